import { sameHeads } from '../plan/plan'
import { type DatabaseState, nameHeads, outcomeOf, type Result } from '../plan/result'
import { markdown } from './division'
import { code } from './markdown'
import { isDivided } from './segments'
import { clip, count, messageLength, nameLength, stateOfOne } from './words'

/** The sign of an outcome, by which one sees it from afar. */
export function icon({ outcome, failure }: Result): string {
  if (outcome === undefined) return '⏳'
  switch (outcome) {
    case 'rolled-back':
    case 'refused':
      return failure?.reason === 'cancelled' ? '⏹️' : '❌'
    case 'in-doubt':
    case 'partly-applied':
      return '⚠️'
    case 'applied':
      return failure ? '⚠️' : '✅'
    case 'rehearsed':
    case 'up-to-date':
      return '✅'
    case 'previewed':
      return '📋'
  }
}

/** The state of each database, and where it goes. */
export function opening(result: Result): string {
  const { databases } = result
  const lines = databases.map(database => openingOf(database, result)).filter(Boolean)
  return databases.length > 1 ? lines.map(each => `- ${each}`).join('\n') : lines.join('')
}

function openingOf(database: DatabaseState, result: Result): string {
  const { plan } = database
  const outcome = outcomeOf(database, result)
  const several = result.databases.length > 1
  const name = (heads: string[]) => code(clip(nameHeads(heads), messageLength))
  const state = stateOfOne({ ...database, bind: code(clip(database.bind, nameLength)) }, result, name, markdown)
  if (!plan || outcome === 'up-to-date' || outcome === 'in-doubt') return state
  if (several && plan.revisions.length === 0) return state
  const [prior, target] = [name(plan.priorHeads), name(plan.newHeads)]
  const one = isDivided(database) ? `in ${count(database.segments!.length, 'segment')}` : 'in one transaction'
  const whole = several
    ? 'together with the others: all of it or nothing'
    : isDivided(database)
      ? `${one}, which are each committed on its own`
      : `${one}: all of it or nothing`
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
      if (!sameHeads(database.newHeads ?? [], plan.newHeads)) return `${state} The target was ${target}.`
      if (database.reread === false) return `${state} It was at ${prior}.`
      return several ? `${state} It was at ${prior}.` : `The database went from ${prior} to ${target} ${one}.`
    default:
      return `${state} The target was ${target}.`.trimStart()
  }
}

/** The last line: where to look, or what to run next. */
export function howToGoOn({ outcome, failure }: Result, run: string): string {
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
      return failure && run ? `See the [log of the run](${run}).` : ''
  }
}
