import { statement } from './request'
import type { Request } from './upstream'
import type * as wire from './wire'

/** What PostgreSQL says of the transaction upstream. */
export interface Survey {
  /** How many savepoints have a transaction id, which one gets with the first thing written in it or inside of it. */
  written: number
  /** By oid, each table of users' that was changed or read in this transaction. */
  tables: Map<string, Counters>
}

interface Counters {
  name: string
  /** Rows inserted, updated and deleted; what was undone by a rollback to a savepoint stays counted. */
  changes: number
  /** Scans, and rows that they brought. */
  reads: number
}

/** The first oid that is not one of PostgreSQL's own (FirstNormalObjectId in transam.h). */
const firstOfUsers = 16384

const changes = `pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_xact_tuples_updated(c.oid)
  + pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid)`

/** The counters of pg_stat_xact_user_tables, those of the indexes among them. */
const readsOf = (oid: string) => `pg_catalog.pg_stat_get_xact_numscans(${oid})
  + pg_catalog.pg_stat_get_xact_tuples_returned(${oid}) + pg_catalog.pg_stat_get_xact_tuples_fetched(${oid})`

const tables = (reads: string) => `SELECT pg_catalog.json_agg(pg_catalog.json_build_array(oid, name, changes, reads))
  FROM (SELECT c.oid, c.oid::pg_catalog.regclass::text AS name, ${changes} AS changes, ${reads} AS reads
        FROM pg_catalog.pg_class c WHERE c.oid >= ${firstOfUsers} AND c.relkind IN ('r', 'm')) AS counted
  WHERE changes + reads > 0`

const written = `SELECT pg_catalog.count(*) - 1 FROM pg_catalog.pg_locks
  WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted`

const everything = `SELECT pg_catalog.json_build_object('written', (${written}), 'tables', (${tables(
  `${readsOf('c.oid')} + (SELECT coalesce(pg_catalog.sum(${readsOf('i.indexrelid')}), 0)::bigint
                          FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)`,
)}))::text`

const changesOnly = `SELECT pg_catalog.json_build_object('written', 0, 'tables', (${tables('0')}))::text`

const asking =
  (sql: string) =>
  (seen: (survey: Survey) => void, error?: (message: wire.Message) => void): Request =>
    statement(sql, { row: ([json]) => seen(read(json ?? '{}')), ...(error && { error }) })

/** Asks who has written and read what; the transaction itself has an id already. */
export const survey = asking(everything)

/** Asks for the tables that were changed, and for nothing else. */
export const surveyOfChanges = asking(changesOnly)

function read(json: string): Survey {
  const { written, tables } = JSON.parse(json) as { written: number; tables: [string, string, number, number][] | null }
  const counted = (tables ?? []).map(([oid, name, changes, reads]): [string, Counters] => {
    return [String(oid), { name, changes, reads }]
  })
  return { written, tables: new Map(counted) }
}

export const nothing: Survey = { written: 0, tables: new Map() }

/**
 * What differs between two surveys, by oid with the tables' names: of reads what has grown, of changes also what has
 * shrunk, for a TRUNCATE begins to count anew.
 */
export function difference(before: Survey, after: Survey, what: 'changes' | 'reads'): Map<string, string> {
  const found = new Map<string, string>()
  for (const [oid, { name }] of [...before.tables, ...after.tables]) {
    const [was, is] = [before, after].map(({ tables }) => tables.get(oid)?.[what] ?? 0) as [number, number]
    if (is > was || (what === 'changes' && is < was)) found.set(oid, name)
  }
  return found
}
