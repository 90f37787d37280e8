import { sameHeads } from '../plan/plan'
import { type DatabaseResult, nameHeads, outcomeOf, type Result } from '../plan/result'
import { markdown } from './division'
import { code } from './markdown'
import { openingSaid, stateSaid } from './outcomes'
import { isDivided } from './segments'
import { spokenOf } from './state'
import { clip, count, messageLength, nameLength } from './words'

/** The state of each database, and where it goes. */
export function opening(result: Result): string {
  const { databases } = result
  const lines = databases.map(database => openingOf(database, result)).filter(Boolean)
  return databases.length > 1 ? lines.map(each => `- ${each}`).join('\n') : lines.join('')
}

function openingOf(database: DatabaseResult, result: Result): string {
  const { bind } = database
  const outcome = outcomeOf(database, result)
  const several = result.databases.length > 1
  const name = (heads: string[]) => code(clip(nameHeads(heads), messageLength))
  const spoken = spokenOf(database, result, name, { style: markdown, bind: code(clip(bind, nameLength)) })
  if (database.plan === null || (several && database.plan.revisions.length === 0)) return stateSaid(outcome, spoken)
  const { plan, segments, newHeads } = database
  const one = isDivided(segments) ? `in ${count(segments.length, 'segment')}` : 'in one transaction'
  const whole = several
    ? 'together with the others: all of it or nothing'
    : isDivided(segments)
      ? `${one}, which are each committed on its own`
      : `${one}: all of it or nothing`
  const [prior, target] = [name(plan.priorHeads), name(plan.newHeads)]
  return openingSaid(outcome, { prior, target, isThere: sameHeads(newHeads ?? [], plan.newHeads), one, whole }, spoken)
}
