import type { Failure, Place } from '../failure'
import type { Revision } from '../plan/plan'
import { nameHeads, type Result } from '../plan/result'
import { ownStatements, sqlOf } from '../plan/sql'
import { code, fenced, folded, html, printable, prose, proseWithCode } from './markdown'
import { clip, count, describeStatement, headline, seconds, stateOf } from './words'

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
}

/** The hidden line by which a later run finds its comment. */
export const marker = (label: string): string => `<!-- atomic-upgrade ${encodeURIComponent(printable(label))} -->`

/** The longest name, message and paragraph shown, in characters: what is never dropped must fit in any case. */
const [nameLength, messageLength, paragraphLength] = [200, 300, 1_500]

/**
 * The comment on the pull request, or the job summary: the same text, each cut at its own limit. Whole revisions are
 * dropped from the end until the rest fits; first their SQL, then their lines in the table.
 */
export function renderReport(result: Result, { run, problem = '' }: Surroundings, limit: Limit): string {
  const revisions = result.plan?.revisions ?? []
  const { length } = revisions
  const render = (rows: string[], sections: string[], note = ''): string => {
    const parts = [
      marker(result.label),
      `### ${icon(result)} Atomic Upgrade${result.label && `, ${prose(result.label)}`}: ${headline(result)}`,
      opening(result),
      result.failure && failed(result.failure),
      rows.join('\n'),
      warnings(result),
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
  const sections = fitting(sectionsOf(revisions), '\n\n', { sizeOf, room, roomWithNote: withNote(rows) })
  return render(rows, sections, unshown(length - sections.length, length))
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
      return '⚠️'
    case 'applied':
    case 'rehearsed':
    case 'up-to-date':
      return '✅'
    case 'previewed':
      return '📋'
  }
}

/** The state of the database, and where it goes. */
function opening(result: Result): string {
  const { plan, outcome, database } = result
  const name = (heads: string[]) => code(clip(nameHeads(heads), messageLength))
  const state = stateOf(result, name)
  if (!plan || outcome === 'up-to-date' || outcome === 'in-doubt') return state
  const [prior, target] = [name(plan.priorHeads), name(plan.newHeads)]
  const whole = 'in one transaction: all of it or nothing'
  switch (outcome) {
    case undefined:
      return `${state} This run brings it to ${target} ${whole}.`
    case 'previewed':
      return database
        ? `${state} An apply brings it to ${target} ${whole}.`
        : `From ${prior} to ${target} ${whole}. ${state}`
    case 'rehearsed':
      return `The batch ran from ${prior} to ${target} in one transaction, which was rolled back. ${state}`
    case 'applied':
      return `The database went from ${prior} to ${target} in one transaction.`
    default:
      return `${state} The target was ${target}.`.trimStart()
  }
}

function failed({ message, details }: Failure): string {
  const { statement, place, advice, revision } = details
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

/** The first sentence and what follows it. */
function firstSentence(text: string): string[] {
  const end = /[.!?]\s+(?=[A-Z“])/.exec(text)
  return end ? [text.slice(0, end.index + 1), text.slice(end.index + 1)] : [text]
}

function placeOf({ file, line }: Place): string {
  return code(`${clip(file, messageLength)}${line === null ? '' : `:${line}`}`)
}

function warnings({ plan, runs }: Result): string {
  // What ran needs no rehearsal.
  if (runs.length > 0) return ''
  const unseen = plan?.revisions.filter(revision => revision.notRenderable) ?? []
  if (unseen.length === 0) return ''
  return `> [!NOTE]\n> The SQL of ${count(unseen.length, 'script')} is only known when it runs, for the reason given below. \`mode: rehearse\` runs the batch for real and rolls it back.`
}

/** The lines of the table; the first one brings the head along. */
function* tableOf({ plan, runs, failure }: Result): Generator<string> {
  const revisions = plan?.revisions ?? []
  const ran = new Map(runs.map(run => [run.id, run]))
  const timed = runs.length > 0
  // Without the folder that they share, the names leave room for the messages.
  const folder = sharedFolder(revisions)
  const place = folder && ` in ${code(clip(folder, nameLength))}`
  const head = ['', 'Revision', 'Message', 'Statements', ...(timed ? ['Ran'] : []), `Script${place}`]
  const align = ['--:', ':--', ':--', '--:', ...(timed ? ['--:'] : []), ':--']
  let before = `${line(head)}\n${line(align)}\n`
  for (const [index, revision] of revisions.entries()) {
    const run = ran.get(revision.id)
    const statements = revision.statements ? ownStatements(revision).length : (run?.statements ?? '?')
    const mark = failure && failure.details.revision === revision.id ? '✗ ' : ''
    const cells = [
      index + 1,
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

function* sectionsOf(revisions: Revision[]): Generator<string> {
  for (const revision of revisions) yield section(revision)
}

function section(revision: Revision): string {
  const title = `<code>${html(clip(revision.id, nameLength))}</code> ${html(clip(revision.message, messageLength))}`
  const { notRenderable } = revision
  if (notRenderable) {
    const { reason, line } = notRenderable
    return folded(
      `${title} – not rendered`,
      `No SQL can be shown for this script: ${prose(clip(reason, paragraphLength))} (${placeOf({ file: revision.path, line })}).`,
    )
  }
  const statements = ownStatements(revision)
  const body = statements.length === 0 ? 'The script does nothing.' : fenced(sqlOf(statements), 'sql')
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
      return run && `See the [log of the run](${run}).`
    default:
      return ''
  }
}
