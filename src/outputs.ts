import { type DatabaseState, outcomeOf, type Result, revisionsOf } from './plan/result'

/** The step's outputs by name, as GitHub gets them. */
export function outputsOf(result: Result): Record<string, string> {
  const { databases } = result
  const revisions = revisionsOf(result)
  const heads = (which: 'priorHeads' | 'newHeads') => {
    const lines = databases.map(each => (databases.length > 1 ? `${each.bind}=` : '') + (each[which]?.join(',') ?? ''))
    return lines.join('\n')
  }
  return {
    outcome: result.outcome ?? 'refused',
    'failure-reason': result.failure?.reason ?? '',
    'prior-head': heads('priorHeads'),
    'new-head': heads('newHeads'),
    revisions: JSON.stringify(revisions),
    pending: String(revisions.length),
    digest: result.digest ?? '',
    'sql-file': result.sqlFile ?? '',
    'comment-url': result.commentUrl ?? '',
    databases: JSON.stringify(Object.fromEntries(databases.map(each => [each.bind, databaseOutput(each, result)]))),
  }
}

function databaseOutput(database: DatabaseState, result: Result) {
  const { priorHeads, newHeads, plan } = database
  const revisions = plan?.revisions ?? []
  return {
    'prior-head': priorHeads?.join(',') ?? '',
    'new-head': newHeads?.join(',') ?? '',
    revisions: revisions.map(({ id }) => id),
    outcome: outcomeOf(database, result) ?? 'refused',
    digests: Object.fromEntries(revisions.map(({ id, digest }) => [id, digest])),
  }
}
