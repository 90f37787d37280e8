import type { Result } from './plan/result'

/** The step's outputs by name, as GitHub gets them. */
export function outputsOf(result: Result): Record<string, string> {
  const revisions = result.plan?.revisions.map(revision => revision.id) ?? []
  return {
    outcome: result.outcome ?? 'refused',
    'failure-reason': result.failure?.reason ?? '',
    'prior-head': result.priorHeads?.join(',') ?? '',
    'new-head': result.newHeads?.join(',') ?? '',
    revisions: JSON.stringify(revisions),
    pending: String(revisions.length),
    'sql-file': result.sqlFile ?? '',
    'comment-url': result.commentUrl ?? '',
  }
}
