import type { Failure, Place, StatementFailure } from '../failure'
import { hideLiterals } from '../plan/literals'
import type { Revision } from '../plan/plan'
import { type DatabaseState, nameHeads, outcomeOf, type Result } from '../plan/result'
import { ownStatements, sqlOf } from '../plan/sql'
import type { Obstacle } from '../plan/transactional'
import { hiddenPlan } from './hidden'
import { code, fenced, folded, html, printable, prose, proseWithCode } from './markdown'
import { clip, count, describeStatement, headline, seconds, stateOfOne } from './words'

/** How much fits, by GitHub's own measure. */
export interface Limit {
  most: number
  sizeOf(text: string): number
}

/** One comment, in characters. */
export const commentLimit: Limit = { most: 65_536, sizeOf: text => text.length }

/** The summary of one step, in bytes. */
export const summaryLimit: Limit = { most: 1024 * 1024, sizeOf: text => Buffer.byteLength(text) }

/** What there is to say besides the result. */
export interface Surroundings {
  /** The web page of the run, which has the log and the summary; empty in the summary itself. */
  run: string
  /** Why the comment on the pull request is not what it should be. */
  problem?: string
  /** Whether statements are shown with their constants replaced. */
  hidesLiterals?: boolean
}

/** The hidden line by which a later run finds its comment. */
export const marker = (label: string): string => `<!-- atomic-upgrade ${encodeURIComponent(printable(label))} -->`

/** The longest name, message and paragraph shown, in characters: what is never dropped must fit in any case. */
const [nameLength, messageLength, paragraphLength] = [200, 300, 1_500]

/**
 * The comment on the pull request, or the job summary: the same text, each cut at its own limit. Whole revisions are
 * dropped from the end until the rest fits; first their SQL, then their lines in the table.
 */
export function renderReport(result: Result, surroundings: Surroundings, limit: Limit): string {
  const { digested } = result
  const hidden = digested?.databases.some(({ revisions }) => revisions.length > 0) ? hiddenPlan(digested) : ''
  const { most, sizeOf } = limit
  // What people read goes before it.
  const text = sizeOf(hidden) <= most / 4 ? cutToFit(result, surroundings, limit, hidden) : ''
  return text && sizeOf(text) <= most ? text : cutToFit(result, surroundings, limit, '')
}

function cutToFit(
  result: Result,
  { run, problem = '', hidesLiterals = false }: Surroundings,
  limit: Limit,
  hidden: string,
): string {
  const shown = hidesLiterals ? hideLiterals : (sql: string) => sql
  const batch = batchOf(result)
  const { length } = batch
  const render = (rows: string[], sections: string[], note = ''): string => {
    const parts = [
      // The hidden plan in place of the empty line: an HTML comment needs none behind it.
      `${marker(result.label)}\n${hidden}\n### ${icon(result)} Atomic Upgrade${result.label && `, ${prose(result.label)}`}: ${headline(result)}`,
      opening(result),
      destroyed(result),
      result.failure && failed(result.failure, hidesLiterals),
      rows.join('\n'),
      warnings(result, shown),
      ...sections,
      note && `_${note}${whereItIs(result, run)}._`,
      howToGoOn(result, run),
      problem && `> [!WARNING]\n> ${proseWithCode(clip(problem, paragraphLength))}`,
    ]
    return `${parts.filter(Boolean).join('\n\n')}\n`
  }
  const { most, sizeOf } = limit
  // The longest of the notes.
  const withNote = (rows: string[]) => most - sizeOf(render(rows, [], unlisted(length) + unshown(length, length)))
  const rows = fitting(tableOf(result), '\n', { sizeOf, room: withNote([]) })
  if (rows.length < length) return render(rows, [], unlisted(length - rows.length))
  const room = most - sizeOf(render(rows, []))
  const sections = fitting(sectionsOf(batch, shown), '\n\n', { sizeOf, room, roomWithNote: withNote(rows) })
  return render(rows, sections, unshown(length - sections.length, length))
}

/** A revision of one database's batch; `bind` only where there are several databases. */
interface Entry {
  bind: string
  database: DatabaseState
  revision: Revision
}

function batchOf({ databases }: Result): Entry[] {
  return databases.flatMap(database => {
    const bind = databases.length > 1 ? database.bind : ''
    return (database.plan?.revisions ?? []).map(revision => ({ bind, database, revision }))
  })
}

interface Room {
  sizeOf: Limit['sizeOf']
  /** For all of them. */
  room: number
  /** When some are left out, which a note has to say. */
  roomWithNote?: number
}

/** The blocks that fit, from the first one on. */
function fitting(blocks: Iterable<string>, between: string, { sizeOf, room, roomWithNote = room }: Room): string[] {
  const kept: string[] = []
  let [used, enough] = [0, 0]
  for (const block of blocks) {
    used += sizeOf(block) + between.length
    if (used > room) return kept.slice(0, enough)
    kept.push(block)
    if (used <= roomWithNote) enough = kept.length
  }
  return kept
}

const unlisted = (missing: number): string =>
  `${count(missing, 'more revision')} ${missing === 1 ? 'is' : 'are'} not listed here, and no SQL is shown`

function unshown(missing: number, all: number): string {
  if (missing === 0) return ''
  return `The SQL of ${missing === all ? count(all, 'revision') : count(missing, 'more revision')} is not shown here`
}

function whereItIs({ sqlFile }: Result, run: string): string {
  const places = [run && `the [summary of the run](${run})`, sqlFile && 'the file of the output `sql-file`']
  const named = places.filter(Boolean).join(' and ')
  return named && `: see ${named}`
}

function icon({ outcome, failure }: Result): string {
  if (outcome === undefined) return '⏳'
  switch (outcome) {
    case 'rolled-back':
    case 'refused':
      return failure?.reason === 'cancelled' ? '⏹️' : '❌'
    case 'in-doubt':
    case 'partly-applied':
      return '⚠️'
    case 'applied':
    case 'rehearsed':
    case 'up-to-date':
      return '✅'
    case 'previewed':
      return '📋'
  }
}

/** The state of each database, and where it goes. */
function opening(result: Result): string {
  const { databases } = result
  const lines = databases.map(database => openingOf(database, result)).filter(Boolean)
  return databases.length > 1 ? lines.map(each => `- ${each}`).join('\n') : lines.join('')
}

function openingOf(database: DatabaseState, result: Result): string {
  const { plan } = database
  const outcome = outcomeOf(database, result)
  const several = result.databases.length > 1
  const name = (heads: string[]) => code(clip(nameHeads(heads), messageLength))
  const state = stateOfOne({ ...database, bind: code(clip(database.bind, nameLength)) }, result, name)
  if (!plan || outcome === 'up-to-date' || outcome === 'in-doubt') return state
  if (several && plan.revisions.length === 0) return state
  const [prior, target] = [name(plan.priorHeads), name(plan.newHeads)]
  const whole = several ? 'together with the others: all of it or nothing' : 'in one transaction: all of it or nothing'
  switch (outcome) {
    case undefined:
      return result.mode === 'rehearse'
        ? `${state} This run takes it to ${target} in one transaction, and then rolls that back.`
        : `${state} This run brings it to ${target} ${whole}.`
    case 'previewed':
      return database.name
        ? `${state} An apply brings it to ${target} ${whole}.`
        : `From ${prior} to ${target} ${whole}. ${state}`
    case 'rehearsed':
      return `The batch ran from ${prior} to ${target} in one transaction, which was rolled back. ${state}`
    case 'applied':
      return several
        ? `${state} It was at ${prior}.`
        : `The database went from ${prior} to ${target} in one transaction.`
    default:
      return `${state} The target was ${target}.`.trimStart()
  }
}

function failed({ message, details }: Failure, hidesLiterals: boolean): string {
  const { place, advice, revision } = details
  const statement = details.statement && (hidesLiterals ? withoutLiterals(details.statement) : details.statement)
  const [first, rest] = firstSentence(clip(message, paragraphLength)).map(prose)
  const named = revision && !message.includes(revision) && `revision ${code(clip(revision, nameLength))}`
  // A message that names the file needs no more than that.
  const where = place && (place.line !== null || !message.includes(place.file)) && placeOf(place)
  const script = [named, where].filter(Boolean).join(', ')
  const told = [first && `**${first}**`, rest, script && `In ${script}.`]
  const lines = [
    told.filter(Boolean).join(' '),
    statement && fenced(describeStatement(statement), 'text'),
    advice && proseWithCode(clip(advice, paragraphLength)),
  ]
  return lines.filter(Boolean).join('\n\n')
}

/** Positions count in the statement as it was sent, and details repeat what rows hold. */
function withoutLiterals({ sql, code, message, hint }: StatementFailure): StatementFailure {
  return { sql: hideLiterals(sql), code, message, ...(hint && { hint }) }
}

/** The first sentence and what follows it. */
function firstSentence(text: string): string[] {
  const end = /[.!?]\s+(?=[A-Z“])/.exec(text)
  return end ? [text.slice(0, end.index + 1), text.slice(end.index + 1)] : [text]
}

function placeOf({ file, line }: Place): string {
  return code(`${clip(file, messageLength)}${line === null ? '' : `:${line}`}`)
}

/** The most destructions that are listed. */
const mostListed = 10

/** What a reviewer has to see first. */
function destroyed({ databases, outcome }: Result): string {
  // What was done, or will not be, needs no warning any more.
  if (outcome !== undefined && outcome !== 'previewed' && outcome !== 'rehearsed') return ''
  const found = databases.flatMap(({ bind, destructions = [] }) =>
    destructions.map(({ revision, line, what }) => {
      const where = databases.length > 1 ? `${prose(clip(bind, nameLength))}, ` : ''
      const at = placeOf({ file: revision.path, line })
      return `> - ${where}${code(clip(revision.id, nameLength))} ${prose(clip(what, messageLength))} (${at})`
    }),
  )
  if (found.length === 0) return ''
  const more = found.length - mostListed
  const lines = more > 0 ? [...found.slice(0, mostListed), `> - and ${count(more, 'more statement')}`] : found
  return ['> [!CAUTION]', '> This batch destroys data or changes all of it:', ...lines].join('\n')
}

function warnings(result: Result, shown: (sql: string) => string): string {
  const { databases, failure } = result
  const uncovered = result.uncovered ? [`> [!NOTE]\n> ${prose(result.uncovered)}`] : []
  // What ran needs no rehearsal.
  if (databases.some(({ runs }) => runs.length > 0)) return uncovered.join('')
  const refused = failure ? [] : databases.flatMap(({ obstacles = [] }) => obstacles.map(each => obstacle(each, shown)))
  return [...uncovered, ...refused, unseenNote(batchOf(result))].filter(Boolean).join('\n\n')
}

/** A preview says beforehand what an apply will refuse. */
function obstacle({ revision, line, text, why }: Obstacle, shown: (sql: string) => string): string {
  const at = placeOf({ file: revision.path, line })
  const statement = code(clip(shown(text), messageLength))
  return `> [!WARNING]\n> An apply will refuse revision ${code(clip(revision.id, nameLength))}: ${prose(why)} (${at}). ${statement}`
}

function unseenNote(batch: Entry[]): string {
  const unseen = batch.filter(({ revision }) => revision.notRenderable)
  if (unseen.length === 0) return ''
  return `> [!NOTE]\n> The SQL of ${count(unseen.length, 'script')} is only known when it runs, for the reason given below. \`mode: rehearse\` runs the batch for real and rolls it back.`
}

/** The lines of the table; the first one brings the head along. */
function* tableOf(result: Result): Generator<string> {
  const batch = batchOf(result)
  const timed = result.databases.some(({ runs }) => runs.length > 0)
  const several = result.databases.length > 1
  // Without the folder that they share, the names leave room for the messages.
  const folder = sharedFolder(batch.map(({ revision }) => revision))
  const place = folder && ` in ${code(clip(folder, nameLength))}`
  const head = ['', ...(several ? ['Database'] : []), 'Revision', 'Message', 'Statements', ...(timed ? ['Ran'] : [])]
  const align = ['--:', ...(several ? [':--'] : []), ':--', ':--', '--:', ...(timed ? ['--:'] : [])]
  let before = `${line([...head, `Script${place}`])}\n${line([...align, ':--'])}\n`
  const failed = result.failure?.details
  for (const [index, { bind, database, revision }] of batch.entries()) {
    const run = database.runs.find(({ id }) => id === revision.id)
    const statements = revision.statements ? ownStatements(revision).length : (run?.statements ?? '?')
    const mark = failed?.revision === revision.id && (failed.bind ?? bind) === bind ? '✗ ' : ''
    const cells = [
      index + 1,
      ...(several ? [code(clip(bind, nameLength))] : []),
      code(clip(revision.id, nameLength)),
      prose(clip(revision.message, messageLength)),
      statements,
      ...(timed ? [run ? `${mark}${seconds(run.duration)}`.replaceAll(' ', '&nbsp;') : '–'] : []),
      code(clip(revision.path.slice(folder.length), messageLength)),
    ]
    yield before + line(cells)
    before = ''
  }
}

/** The folder of all scripts with its slash; empty where they lie in several. */
function sharedFolder(revisions: Revision[]): string {
  const folders = new Set(revisions.map(({ path }) => path.slice(0, path.lastIndexOf('/') + 1)))
  const [folder = '', ...others] = folders
  return others.length === 0 ? folder : ''
}

const line = (cells: (string | number)[]): string => `| ${cells.join(' | ')} |`

function* sectionsOf(batch: Entry[], shown: (sql: string) => string): Generator<string> {
  for (const entry of batch) yield section(entry, shown)
}

function section({ bind, revision }: Entry, shown: (sql: string) => string): string {
  const where = bind && `${html(clip(bind, nameLength))}: `
  const id = `<code>${html(clip(revision.id, nameLength))}</code>`
  const title = `${where}${id} ${html(clip(revision.message, messageLength))}`
  const { notRenderable } = revision
  if (notRenderable) {
    const { reason, line } = notRenderable
    return folded(
      `${title} – not rendered`,
      `No SQL can be shown for this script: ${prose(clip(reason, paragraphLength))} (${placeOf({ file: revision.path, line })}).`,
    )
  }
  const statements = ownStatements(revision)
  const body =
    statements.length === 0
      ? 'The script does nothing.'
      : fenced(sqlOf(statements.map(each => ({ ...each, sql: shown(each.sql) }))), 'sql')
  return folded(`${title} – ${count(statements.length, 'statement')}`, body)
}

function howToGoOn({ outcome }: Result, run: string): string {
  if (outcome === undefined) return `It is running now${run && `: see the [log of the run](${run})`}.`
  switch (outcome) {
    case 'previewed':
      return 'To apply it, run this action with `mode: apply`; `mode: rehearse` first runs it for real and rolls it back.'
    case 'rehearsed':
      return 'To apply it, run this action with `mode: apply`.'
    case 'rolled-back':
    case 'refused':
    case 'in-doubt':
    case 'partly-applied':
      return run && `See the [log of the run](${run}).`
    default:
      return ''
  }
}
