import { Failure } from '../failure'
import type { Plan } from '../plan/plan'
import { nameHeads, plannedOf, type Result, type SegmentRun, stands } from '../plan/result'
import { canRunAgain, stopBehind } from '../plan/segments'
import { plain, type Style } from './standing'
import { count } from './words'

/** Whether the batch of a database is more than one transaction. */
export const isDivided = (segments: SegmentRun[]): boolean =>
  segments.length > 1 || segments[0]?.statement !== undefined

/** The segments, a line for each: what runs in it, and what became of it or where the batch can stop behind it. */
export function segmentLines(plan: Plan, segments: SegmentRun[], { id, sql }: Style = plain): string[] {
  return segments.map((segment, index) => {
    const { revisions, statement, outcome } = segment
    const [first = '', last = first] = [revisions[0], revisions.at(-1)]
    const ids = revisions.length > 1 ? `${id(first)} to ${id(last)}, ${count(revisions.length, 'revision')}` : id(first)
    const what = statement === undefined ? `${ids} in one transaction` : `${ids}: ${sql(statement)} alone`
    if (outcome !== 'planned') return `${what}: ${words[outcome]}`
    if (index === segments.length - 1) return what
    const { heads, half } = stopBehind(plan, segments, index)
    const then = `stops behind it at ${id(nameHeads(heads))}`
    return `${what}; ${then}${half === undefined ? '' : `, with a part of ${id(half)}`}`
  })
}

const words: Record<Exclude<SegmentRun['outcome'], 'planned'>, string> = {
  applied: 'committed',
  'rolled-back': 'rolled back',
  failed: 'failed',
  'in-doubt': 'no answer came',
  'not-run': 'not run',
}

/** The same failure with what to do when a part of the batch is committed. */
export function goingOn(failure: Failure, result: Result): Failure {
  const database = result.outcome === 'partly-applied' && plannedOf(result).find(({ segments }) => stands(segments))
  if (!database) return failure
  const { standing, invalidIndex } = database
  const newHeads = database.newHeads ?? []
  const { advice } = failure.details
  const dropped = invalidIndex ? ' It drops the invalid index before it builds it anew.' : ''
  const again = `Run the step again: it goes on from ${nameHeads(newHeads)}.${dropped}`
  const half = standing?.statements.filter(sql => !canRunAgain(sql)) ?? []
  if (standing && half.length > 0) {
    const told = `Alembic runs revision ${standing.revision} from its start again, and a part of it is there already: undo that by hand, or write it so that it can run again (IF NOT EXISTS); then run the step again.`
    return new Failure(failure.reason, failure.message, { ...failure.details, transient: false, advice: told })
  }
  const first = failure.reason === 'migration-failed' ? 'Mend the script.' : keptAdvice(advice)
  return new Failure(failure.reason, failure.message, {
    ...failure.details,
    advice: [first, again].filter(Boolean).join(' '),
  })
}

/** Without what is said better here. */
const keptAdvice = (advice = ''): string => advice.replace(/(^|\. )Run the step again[^.]*\.$/, '$1').trim()

/** What a preview warns of: scripts of which a part may stand. */
export function halvesOf(result: Pick<Result, 'databases'>): string[] {
  return plannedOf(result).flatMap(({ forecast }) =>
    (forecast.division?.halves ?? []).map(({ revision, line, statements }) => {
      const [first = ''] = statements.filter(sql => !canRunAgain(sql)).map(plain.sql)
      const at = `${revision.path}${line === null ? '' : `:${line}`}`
      return `Revision ${revision.id} may come to stand half (${at}): if the run stops behind “${first}”, Alembic cannot run the script again. Give everything beside what runs alone a revision of its own, or write it so that it can run again (IF NOT EXISTS, IF EXISTS).`
    }),
  )
}
