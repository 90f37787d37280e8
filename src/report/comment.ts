import type { Failure } from '../failure'
import type { Revision } from '../plan/plan'
import { nameHeads, type Result } from '../plan/result'
import { ownStatements, sqlOf } from '../plan/sql'
import { code, fenced, folded, html, prose } from './markdown'
import { count, describeStatement, headline, seconds, stateOf } from './words'

/** What GitHub takes in one comment, in characters. */
export const commentLimit = 65_536

/** The hidden line by which a later run finds its comment. */
export const marker = (label: string): string => `<!-- atomic-upgrade ${encodeURIComponent(label)} -->`

export interface Links {
  /** The run that has the full SQL in its summary; empty outside of GitHub. */
  run: string
}

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
      sections < revisions.length ? dropped(revisions.length - sections, 'SQL', links) : '',
      rows < revisions.length ? dropped(revisions.length - rows, 'line', links) : '',
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
  if (!plan || outcome === 'up-to-date') return stateOf(result)
  const batch = `${code(nameHeads(plan.priorHeads))} → ${code(nameHeads(plan.newHeads))}`
  const how =
    outcome === 'applied' ? 'ran as one transaction' : `${plan.direction} as one transaction: all of it or nothing`
  return `${batch}, ${how}. ${stateOf(result)}`
}

function failed(failure: Failure): string {
  const { message, details } = failure
  const { statement, place, advice, revision } = details
  const where = place ? ` at ${code(place.line === null ? place.file : `${place.file}:${place.line}`)}` : ''
  const lines = [
    `**${prose(message)}**${revision ? ` Revision ${code(revision)}${where}.` : where && ` See${where.slice(3)}.`}`,
    statement ? fenced(describeStatement(statement), 'text') : '',
    advice ? prose(advice) : '',
  ]
  return lines.filter(Boolean).join('\n\n')
}

function warnings({ plan }: Result): string {
  const unseen = plan?.revisions.filter(revision => revision.notRenderable) ?? []
  if (unseen.length === 0) return ''
  const verb = unseen.length === 1 ? 'has' : 'have'
  return `> [!NOTE]\n> ${count(unseen.length, 'script')} ${verb} no SQL to show without running: it needs the database. \`mode: rehearse\` runs the batch for real and rolls it back.`
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
      code(revision.id),
      prose(revision.message),
      code(revision.path),
      statements,
      ...(timed ? [run ? seconds(run.duration) : '–'] : []),
    ]
  })
  return [head, align, ...lines].map(cells => `| ${cells.join(' | ')} |`).join('\n')
}

function section(revision: Revision): string {
  const title = `<code>${html(revision.id)}</code> ${html(revision.message)}`
  const { notRenderable } = revision
  if (notRenderable) {
    const place = notRenderable.line === null ? revision.path : `${revision.path}:${notRenderable.line}`
    return folded(
      `${title} – not rendered`,
      `No SQL can be shown for this script: ${prose(notRenderable.reason)} (${code(place)}).`,
    )
  }
  const statements = ownStatements(revision)
  const body = statements.length === 0 ? 'The script does nothing.' : fenced(sqlOf(statements), 'sql')
  return folded(`${title} – ${count(statements.length, 'statement')}`, body)
}

function dropped(number: number, what: 'SQL' | 'line', { run }: Links): string {
  const where = run
    ? `the [summary of the run](${run}) and the file of the output \`sql-file\``
    : 'the file of the output `sql-file`'
  const text =
    what === 'SQL'
      ? `The SQL of ${count(number, 'more revision')} is not shown here`
      : `${count(number, 'more revision')} not listed here`
  return `_${text}: see ${where}._`
}

function howToGoOn({ outcome, mode, plan }: Result): string {
  if (outcome === 'previewed' && plan) {
    return 'To apply it, run this action with `mode: apply`; `mode: rehearse` first runs it for real and rolls it back.'
  }
  if (outcome === 'rehearsed') return 'To apply it, run this action with `mode: apply`.'
  return mode === 'apply' && outcome === undefined ? 'The step that applies it is running now.' : ''
}
