import type { Failure, StatementFailure } from '../failure'
import { sameHeads } from '../plan/plan'
import { type DatabaseState, nameHeads, outcomeOf, type Result, revisionsOf } from '../plan/result'
import { besidesHeads, type Style } from './standing'

export const count = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? '' : 's'}`

export function seconds(milliseconds: number): string {
  return milliseconds < 9_950 ? `${(milliseconds / 1000).toFixed(2)} s` : `${(milliseconds / 1000).toFixed(0)} s`
}

/** One line that says what will happen, or what has. */
export function headline(result: Result): string {
  const { outcome, mode, direction, failure, databases } = result
  const cancelled = failure?.reason === 'cancelled'
  const on = databases.length > 1 ? ` on ${count(databases.length, 'database')}` : ''
  const batch = `by ${count(revisionsOf(result).length, 'revision')}${on}`
  const [doing, done] = direction === 'downgrade' ? ['downgrading', 'downgraded'] : ['upgrading', 'upgraded']
  if (outcome === undefined) return mode === 'rehearse' ? `rehearsing the ${direction} ${batch}` : `${doing} ${batch}`
  switch (outcome) {
    case 'up-to-date':
      return 'nothing to do'
    case 'previewed':
      return `${direction} ${batch}`
    case 'rehearsed':
      return `${direction} ${batch} rehearsed, nothing of it kept`
    case 'applied':
      return failure ? `committed, and not at its target` : `${done} ${batch}`
    case 'rolled-back':
      return cancelled ? 'cancelled, everything rolled back' : 'failed, everything rolled back'
    case 'refused':
      return cancelled ? 'cancelled before anything ran' : 'refused, nothing ran'
    case 'in-doubt':
      return 'in doubt, no answer to the COMMIT'
    case 'partly-applied': {
      const [{ segments = [] } = { segments: [] }] = databases
      const there = segments.filter(({ outcome }) => outcome === 'applied').length
      if (segments.length === 0) return 'partly applied, some databases have moved and others have not'
      return `${cancelled ? 'cancelled' : 'failed'}, ${there} of ${count(segments.length, 'segment')} committed`
    }
  }
}

/** The state of the databases, a sentence for each; empty where there is none to speak of. */
export function stateOf(result: Result, name?: (heads: string[]) => string): string {
  return result.databases
    .map(database => stateOfOne(database, result, name))
    .filter(Boolean)
    .join(result.databases.length > 1 ? '\n' : ' ')
}

/** The state of one database in one sentence; empty where there is none to speak of. */
export function stateOfOne(
  state: DatabaseState,
  result: Result,
  name: (heads: string[]) => string = nameHeads,
  style?: Style,
): string {
  const { priorHeads, newHeads, name: database, reread, bind } = state
  const the = result.databases.length > 1 ? `The database ${bind}` : 'The database'
  const [before, after] = [name(priorHeads ?? []), name(newHeads ?? [])]
  const outcome = outcomeOf(state, result)
  const unread = reread === false ? notRead : ''
  if (outcome === undefined) return `${the} is at ${before}.`
  switch (outcome) {
    case 'up-to-date':
      return database ? `${the} is at ${after}.` : `No database was asked; the batch from ${before} is empty.`
    case 'previewed':
      return database ? `${the} is at ${before}; nothing was written to it.` : 'No database was asked.'
    case 'rehearsed':
      return `${the} is at ${before}, as before.`
    case 'applied':
      return `${the} is at ${after}${unread}.`
    case 'partly-applied': {
      return [`${the} is at ${after}${unread}.`, besidesHeads(state, style)].filter(Boolean).join(' ')
    }
    case 'in-doubt':
      if (state.leftPrepared) return `${the} holds the prepared transaction ${state.leftPrepared} of an earlier run.`
      return [betweenOf(state, the, name), besidesHeads(state, style)].filter(Boolean).join(' ')
    case 'rolled-back':
    case 'refused': {
      if (!newHeads) return outcome === 'rolled-back' ? `${the} is as it was before.` : `${the} was not touched.`
      if (!database) return ''
      const read = reread ? '' : notRead
      const unchanged = priorHeads && newHeads.join() === priorHeads.join()
      return unchanged
        ? `${the} is at ${after}, as before${read}.`
        : `${the} is now at ${after}; this step changed nothing in it.`
    }
  }
}

const notRead = ' (not re-read: it could not be reached)'

function betweenOf({ doubt, plan, priorHeads }: DatabaseState, the: string, name: (heads: string[]) => string): string {
  const { from, to } = doubt ?? { from: priorHeads ?? [], to: plan?.newHeads ?? [] }
  return sameHeads(from, to)
    ? `${the} is at ${name(from)}.`
    : `${the} is wholly at ${name(from)} or wholly at ${name(to)}.`
}

/** Everything that a person needs after a failure, as plain text: what happened, the database's state, what to do. */
export function explain(result: Result): string {
  const { message = '', details = {} }: Partial<Failure> = result.failure ?? {}
  const statement = details.statement && describeStatement(details.statement)
  return [clip(message, longest), statement, stateOf(result), details.advice].filter(Boolean).join('\n')
}

/** PostgreSQL's words about a statement, with its position as a line and a caret, as psql shows them. */
export function describeStatement({ sql, code, message, detail, hint, position }: StatementFailure): string {
  return [
    code && `ERROR ${code}: ${clip(message, longest)}`,
    detail && `DETAIL: ${clip(detail, longest)}`,
    hint && `HINT: ${clip(hint, longest)}`,
    ...excerpt(sql, position),
  ]
    .filter(line => line !== undefined && line !== '')
    .join('\n')
}

/** How much to show of a message, a detail and a hint; a script can raise what it likes. */
const longest = 1_500

/** The longest piece of a line to show, in characters, and the most lines. */
const width = 160
const height = 8

function excerpt(sql: string, position: number | undefined): string[] {
  if (position === undefined) {
    const lines = sql.split(/\r?\n/)
    const shown = lines.slice(0, height).map(line => `  ${clip(line, width)}`)
    return lines.length > height ? [...shown, '  …'] : shown
  }
  // PostgreSQL counts characters, not UTF-16 units.
  const before = [...sql].slice(0, Math.max(0, position - 1)).join('')
  const start = before.lastIndexOf('\n') + 1
  const end = sql.indexOf('\n', start)
  // A tab would move the caret; psql shows it as a space too.
  const line = [
    ...sql
      .slice(start, end < 0 ? undefined : end)
      .replace(/\r$/, '')
      .replaceAll('\t', ' '),
  ]
  const column = [...before.slice(start)].length
  const from = Math.max(0, column - width / 2)
  const head = `LINE ${before.split('\n').length}: ${from > 0 ? '…' : ''}`
  const shown = line.slice(from, from + width).join('')
  return [`${head}${shown}${from + width < line.length ? '…' : ''}`, `${' '.repeat(head.length + column - from)}^`]
}

/** The longest name, message and paragraph shown, in characters: what is never dropped must fit in any case. */
export const [nameLength, messageLength, paragraphLength] = [200, 300, 1_500]

/** At most `length` UTF-16 units and a mark that something is missing; no character is cut in two. */
export const clip = (text: string, length: number): string =>
  text.length > length ? `${text.slice(0, length).replace(/[\ud800-\udbff]$/, '')}…` : text
