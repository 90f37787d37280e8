import type { Revision } from '../plan/plan'
import type { DatabaseState, Result } from '../plan/result'

/** A revision of one database's batch; `bind` only where there are several databases. */
export interface Entry {
  bind: string
  database: DatabaseState
  revision: Revision
}

/** The revisions of all databases, in the order they are shown. */
export function batchOf({ databases }: Result): Entry[] {
  return databases.flatMap(database => {
    const bind = databases.length > 1 ? database.bind : ''
    return (database.plan?.revisions ?? []).map(revision => ({ bind, database, revision }))
  })
}
