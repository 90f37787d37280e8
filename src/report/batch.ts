import type { Revision } from '../plan/plan'
import { type PlannedDatabase, plannedOf, type Result } from '../plan/result'

/** A revision of one database's batch; `bind` only where there are several databases. */
export interface Entry {
  bind: string
  database: PlannedDatabase
  revision: Revision
}

/** The revisions of all databases, in the order they are shown. */
export function batchOf(result: Result): Entry[] {
  return plannedOf(result).flatMap(database => {
    const bind = result.databases.length > 1 ? database.bind : ''
    return database.plan.revisions.map(revision => ({ bind, database, revision }))
  })
}
