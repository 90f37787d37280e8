import type { Failure, Place } from '../failure'
import type { Revision } from '../plan/plan'
import { nameHeads, type Result } from '../plan/result'
import { ownStatements, sqlOf } from '../plan/sql'
import { code, fenced, folded, html, printable, prose } from './markdown'
import { clip, count, describeStatement, headline, seconds, stateOf } from './words'

/** What GitHub takes in one comment, in characters. */
export const commentLimit = 65_536

/** The hidden line by which a later run finds its comment. */
export const marker = (label: string): string => `<!-- atomic-upgrade ${encodeURIComponent(printable(label))} -->`

export interface Links {
  /** The run that has the full SQL in its summary; empty outside of GitHub. */
  run: string
}

/** The longest name, message and paragraph shown, in characters: what is never dropped must fit in any case. */
const [nameLength, messageLength, paragraphLength] = [200, 300, 1_500]

/** The comment on the pull request, or the job summary: the same text, each cut at its own limit. */
export function renderReport(result: Result, links: Links, limit = commentLimit): string {
  const head = [
    marker(result.label),
    `### ${icon(result)} Atomic Upgrade${result.label ? ` · ${prose(result.label)}` : ''}: ${headline(result)}`,
    heads(result),
    result.failure ? failed(result.failure) : '',
    warnings(result),
  ]
  const foot = howToGoOn(result)
  const revisions = result.plan?.revisions ?? []
  // Whole revisions are dropped from the end until the rest fits; first their SQL, then their line in the table.
  const cut = (build: (kept: number) => string): string => {
    if (build(revisions.length).length <= limit) return build(revisions.length)
    let [fits, tooMany] = [0, revisions.length]
    while (tooMany - fits > 1) {
      const middle = (fits + tooMany) >> 1
      if (build(middle).length <= limit) fits = middle
      else tooMany = middle
    }
    return build(fits)
  }
  const join = (...parts: string[]) => `${parts.filter(Boolean).join('\n\n')}\n`
  const withTable = (rows: number, sections: number) =>
    join(
      ...head,
      table(result, rows),
      ...revisions.slice(0, sections).map(revision => section(revision)),
      sections < revisions.length ? dropped(revisions.length - sections, 'SQL', result, links) : '',
      rows < revisions.length ? dropped(revisions.length - rows, 'line', result, links) : '',
      foot,
    )
  const whole = cut(kept => withTable(revisions.length, kept))
  return whole.length <= limit ? whole : cut(kept => withTable(kept, 0))
}

function icon({ outcome }: Result): string {
  switch (outcome) {
    case 'rolled-back':
    case 'refused':
      return '❌'
    case 'in-doubt':
      return '⚠️'
    case 'applied':
    case 'rehearsed':
    case 'up-to-date':
      return '✅'
    default:
      return '📋'
  }
}

function heads(result: Result): string {
  const { plan, outcome } = result
  const state = prose(clip(stateOf(result), paragraphLength))
  if (!plan || outcome === 'up-to-date') return state
  const [prior, target] = [plan.priorHeads, plan.newHeads].map(each => code(clip(nameHeads(each), messageLength)))
  const batch = `${prior} → ${target}`
  const how =
    outcome === 'applied' ? 'ran as one transaction' : `${plan.direction} as one transaction: all of it or nothing`
  return `${batch}, ${how}. ${state}`
}

function failed(failure: Failure): string {
  const { message, details } = failure
  const { statement, place, advice, revision } = details
  const where = place ? placeOf(place) : ''
  const unnamed = revision && !message.includes(revision)
  const script = unnamed
    ? ` Revision ${code(clip(revision, nameLength))}${where && ` in ${where}`}.`
    : where && ` In ${where}.`
  const told = prose(clip(message, paragraphLength))
  const lines = [
    `${told && `**${told}**`}${script}`.trim(),
    statement ? fenced(describeStatement(statement), 'text') : '',
    advice ? prose(clip(advice, paragraphLength)) : '',
  ]
  return lines.filter(Boolean).join('\n\n')
}

function placeOf({ file, line }: Place): string {
  return code(`${clip(file, messageLength)}${line === null ? '' : `:${line}`}`)
}

function warnings({ plan, runs }: Result): string {
  // What ran needs no rehearsal.
  if (runs.length > 0) return ''
  const unseen = plan?.revisions.filter(revision => revision.notRenderable) ?? []
  if (unseen.length === 0) return ''
  const verb = unseen.length === 1 ? 'has' : 'have'
  return `> [!NOTE]\n> ${count(unseen.length, 'script')} ${verb} no SQL to show without running, for the reason given below. \`mode: rehearse\` runs the batch for real and rolls it back.`
}

function table({ plan, runs }: Result, rows: number): string {
  if (!plan || plan.revisions.length === 0 || rows === 0) return ''
  const ran = new Map(runs.map(run => [run.id, run]))
  const timed = runs.length > 0
  const head = ['', 'Revision', 'Message', 'Script', 'Statements', ...(timed ? ['Ran'] : [])]
  const align = ['--:', ':--', ':--', ':--', '--:', ...(timed ? ['--:'] : [])]
  const lines = plan.revisions.slice(0, rows).map((revision, index) => {
    const run = ran.get(revision.id)
    const statements = revision.statements ? ownStatements(revision).length : (run?.statements ?? '?')
    return [
      index + 1,
      code(clip(revision.id, nameLength)),
      prose(clip(revision.message, messageLength)),
      code(clip(revision.path, messageLength)),
      statements,
      ...(timed ? [run ? seconds(run.duration).replace(' ', '&nbsp;') : '–'] : []),
    ]
  })
  return [head, align, ...lines].map(cells => `| ${cells.join(' | ')} |`).join('\n')
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

function dropped(number: number, what: 'SQL' | 'line', { sqlFile }: Result, { run }: Links): string {
  const places = [run && `the [summary of the run](${run})`, sqlFile && 'the file of the output `sql-file`']
  const where = places.filter(Boolean).join(' and ')
  const text =
    what === 'SQL'
      ? `The SQL of ${count(number, 'more revision')} is not shown here`
      : `${count(number, 'more revision')} not listed here`
  return `_${text}${where && `: see ${where}`}._`
}

function howToGoOn({ outcome, mode, plan }: Result): string {
  if (outcome === 'previewed' && plan) {
    return 'To apply it, run this action with `mode: apply`; `mode: rehearse` first runs it for real and rolls it back.'
  }
  if (outcome === 'rehearsed') return 'To apply it, run this action with `mode: apply`.'
  return mode === 'apply' && outcome === undefined ? 'The step that applies it is running now.' : ''
}
