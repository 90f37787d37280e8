import { digestedOf, digestOf } from './digest'
import { unfaithfulOf } from './faithful'
import { NewEnumValues } from './new-enum-values'
import type { Plan, Revision } from './plan'
import type { PlanContent, PlannedDatabase } from './plan-file'
import { headsBehind, type Move, moveIn } from './version-rows'

/** The batch of one database as its plan file has it. */
export function planOf(planned: PlannedDatabase, direction: Plan['direction']): Plan {
  const { 'prior-heads': priorHeads, 'new-heads': newHeads, revisions } = planned
  const unknown = { down: [], dependsOn: [], labels: [], file: '', created: '' }
  return {
    direction,
    target: newHeads.join(',') || 'base',
    priorHeads,
    newHeads,
    revisions: revisions.map(revision => ({ ...unknown, ...revision })),
  }
}

/**
 * Why a plan file with this content is not applied, to follow “because”; undefined where it is. The same is asked when it
 * is written and when it is read. Needs the parser to be loaded.
 */
export function unfitOf(content: PlanContent): string | undefined {
  const { databases, direction } = content
  const binds = databases.map(({ bind }) => bind)
  // As JSON writes it, behind an even number of backslashes.
  if (/(?<!\\)(?:\\\\)*\\u0000/.test(JSON.stringify(content))) return 'there is a null character in it'
  if (new Set(binds).size < binds.length) return 'it names a database twice'
  const plans = databases.map(planned => ({ bind: planned.bind, plan: planOf(planned, direction) }))
  if (digestOf(digestedOf({ direction, databases: plans })) !== content.digest) {
    return 'its digest is not that of its revisions'
  }
  for (const { plan } of plans) {
    // Which new values of enums it can use, an apply asks the server.
    const [first] = unfaithfulOf(plan, new NewEnumValues('all'))
    if (first) return `of ${placeOf(first.revision, first.line)}: ${first.why}`
  }
  return databases.map(unfitHeads).find(Boolean)
}

/** The revision with its place, for people. */
export const placeOf = ({ id, path }: Pick<Revision, 'id' | 'path'>, line: number | null): string =>
  `revision ${id} (${path}${line === null ? '' : `:${line}`})`

/** The heads move as its statements move them, and by nothing that is hidden as Alembic's own. */
function unfitHeads(planned: PlannedDatabase): string | undefined {
  const { 'prior-heads': prior, 'new-heads': heads, 'version-table': table, revisions } = planned
  if (new Set(revisions.map(({ id }) => id)).size < revisions.length) return 'it has a revision twice'
  const moves: Move[] = []
  for (const revision of revisions) {
    for (const { sql, line, own } of revision.statements) {
      if (!own) continue
      const move = moveIn(sql, table)
      if (!move) return `of ${placeOf(revision, line)}: a statement is said to be Alembic’s own, and is not`
      moves.push(move)
    }
  }
  const behind = headsBehind(prior, moves)
  const follow = behind?.size === heads.length && heads.every(head => behind.has(head))
  return follow ? undefined : 'its new heads do not follow from its prior heads and its revisions'
}
