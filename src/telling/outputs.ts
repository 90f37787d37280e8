import { digestOf } from '../plan/digest'
import { type DatabaseResult, outcomeOf, plannedOf, type Result, revisionsOf, type SegmentRun } from '../plan/result'
import { printable } from '../report/markdown'

/** The step's outputs by name, as GitHub gets them. */
export function outputsOf(result: Result): Record<string, string> {
  const { databases } = result
  const revisions = revisionsOf(databases)
  const heads = (which: 'priorHeads' | 'newHeads') => {
    const lines = databases.map(each => (databases.length > 1 ? `${each.bind}=` : '') + idsOf(each[which]))
    return lines.join('\n')
  }
  return {
    outcome: result.outcome ?? 'refused',
    'failure-reason': result.failure?.reason ?? '',
    'prior-head': heads('priorHeads'),
    'new-head': heads('newHeads'),
    revisions: JSON.stringify(revisions),
    pending: String(revisions.length),
    digest: result.digested ? digestOf(result.digested) : '',
    'sql-file': result.sqlFile,
    'plan-file': result.planFile,
    'comment-url': result.commentUrl,
    segments: JSON.stringify(
      plannedOf(result).flatMap(({ segments }) => segments.map(each => segmentOutput(each, result))),
    ),
    databases: JSON.stringify(Object.fromEntries(databases.map(each => [each.bind, databaseOutput(each, result)]))),
  }
}

/** On one line: whoever writes it into a file of GitHub's, or reads it line by line, shall not get another one's. */
const idsOf = (heads: string[] | null): string => printable((heads ?? []).join(',')).replaceAll('\n', '\ufffd')

/** What was planned is not run where the step has failed before. */
const segmentOutput = (segment: SegmentRun, { failure }: Result): SegmentRun =>
  failure && segment.outcome === 'planned' ? { ...segment, outcome: 'not-run' } : segment

function databaseOutput(database: DatabaseResult, result: Result) {
  const { priorHeads, newHeads, plan } = database
  const revisions = plan?.revisions ?? []
  return {
    'prior-head': idsOf(priorHeads),
    'new-head': idsOf(newHeads),
    revisions: revisions.map(({ id }) => id),
    outcome: outcomeOf(database, result) ?? 'refused',
    digests: Object.fromEntries(revisions.map(({ id, digest }) => [id, digest])),
  }
}
