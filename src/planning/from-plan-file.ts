import { type Plan, sameHeads } from '../plan/plan'
import type { PlanContent, PlannedDatabase } from '../plan/plan-file'
import { nameHeads } from '../plan/result'
import { planOf } from '../plan/unfit'
import { refused } from './plan-file'
import type { Located } from './prior-heads'

/**
 * The batch of one database by the plan file; a database that is at the plan's target has nothing to do. Throws a
 * Failure `plan-changed` where the file is of another database, or of other heads.
 */
export async function planFrom(content: PlanContent, database: Located): Promise<Plan> {
  const planned = content.databases.find(({ bind }) => bind === database.bind)
  if (!planned) throw new Error(`The plan file does not have ${database.bind}`)
  const plan = planOf(planned, content.direction)
  return (await isAtTarget(database, planned)) ? { ...plan, priorHeads: plan.newHeads, revisions: [] } : plan
}

/** Whether nothing is left to do; not known of a database that is not asked. */
async function isAtTarget({ target, priorHeads: heads, versionTableExists }: Located, planned: PlannedDatabase) {
  if (!target) return false
  const { database, 'version-table': table, 'prior-heads': priorHeads, 'new-heads': newHeads } = planned
  if (database) {
    const { name, system } = await target.identify()
    if (name !== database.name)
      throw refused(`The plan file is for the database ${database.name}, and this one is ${name}.`)
    if (system !== database['system-identifier']) {
      throw refused(
        `The plan file is for the database ${name} of another PostgreSQL cluster (system identifier ${database['system-identifier']}, and here ${system}).`,
      )
    }
  }
  if (sameHeads(heads, newHeads)) return true
  if (!sameHeads(heads, priorHeads)) {
    throw refused(`The plan file starts from ${nameHeads(priorHeads)}, and the database is at ${nameHeads(heads)}.`)
  }
  if (versionTableExists !== table.exists) {
    throw refused(
      versionTableExists
        ? `The plan file creates the version table ${table.name}, and the database has it already.`
        : `The plan file needs the version table ${table.name}, and the database has none.`,
    )
  }
  return false
}
