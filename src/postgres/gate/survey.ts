import type { Layers, Owner } from './layers'
import { join, statement, syncPoint } from './request'
import type { Savepoints } from './savepoints'
import type { Request, Upstream } from './upstream'
import type * as wire from './wire'

/** What PostgreSQL says of the transaction upstream. */
export interface Survey {
  /** How many savepoints have a transaction id, which one gets with the first thing written in it or inside of it. */
  written: number
  /** Whether PostgreSQL counts what is read and changed, which is the setting track_counts. */
  counts: boolean
  /** The advisory locks of the connection, each by its key and its mode. */
  advisory: string[]
  /** By oid, each table of users' that was changed or read in this transaction. */
  tables: Map<string, Counters>
}

interface Counters {
  name: string
  /** Rows inserted, updated and deleted; what was undone by a rollback to a savepoint stays counted. */
  changes: number
  /** Scans, and rows that they brought. */
  reads: number
  /** Blocks of the table that were asked for: by a look at a row's place (ctid) nothing else is counted. */
  blocks: number
}

/** The first oid that is not one of PostgreSQL's own (FirstNormalObjectId in transam.h). */
const firstOfUsers = 16384

const changes = `pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_xact_tuples_updated(c.oid)
  + pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid)`

/** The counters of pg_stat_xact_user_tables, those of the indexes among them. */
const readsOf = (oid: string) => `pg_catalog.pg_stat_get_xact_numscans(${oid})
  + pg_catalog.pg_stat_get_xact_tuples_returned(${oid}) + pg_catalog.pg_stat_get_xact_tuples_fetched(${oid})`

const tables = (
  reads: string,
  blocks: string,
) => `SELECT pg_catalog.json_agg(pg_catalog.json_build_array(oid, name, changes, reads, blocks))
  FROM (SELECT c.oid, c.oid::pg_catalog.regclass::text AS name, ${changes} AS changes, ${reads} AS reads, ${blocks} AS blocks
        FROM pg_catalog.pg_class c WHERE c.oid >= ${firstOfUsers} AND c.relkind IN ('r', 'm')) AS counted
  WHERE changes + reads + blocks > 0`

const counts = `pg_catalog.current_setting('track_counts') = 'on'`

const ownLocks = `FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND granted`

const advisory = `SELECT pg_catalog.json_agg(pg_catalog.concat_ws(' ', classid, objid, objsubid, mode))
  ${ownLocks} AND locktype = 'advisory'`

const written = `SELECT pg_catalog.count(*) - 1 ${ownLocks} AND locktype = 'transactionid' AND mode = 'ExclusiveLock'`

const everything = `SELECT pg_catalog.json_build_object('written', (${written}), 'counts', ${counts}, 'advisory', (${advisory}),
  'tables', (${tables(
    `${readsOf('c.oid')} + (SELECT coalesce(pg_catalog.sum(${readsOf('i.indexrelid')}), 0)::bigint
                            FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)`,
    'pg_catalog.pg_stat_get_xact_blocks_fetched(c.oid)',
  )}))::text`

const asking =
  (sql: string) =>
  (seen: (survey: Survey) => void, error?: (message: wire.Message) => void): Request =>
    statement(sql, { row: ([json]) => seen(read(json ?? '{}')), ...(error && { error }) })

/** Asks who has written and read what; the transaction itself has an id already. */
export const survey = asking(everything)

/** Asks for the tables that were changed, and for nothing else. */
export const surveyOfChanges = asking(`SELECT pg_catalog.json_build_object('tables', (${tables('0', '0')}))::text`)

/** Asks how many savepoints have written, and for nothing else. */
export const surveyOfWritten = asking(`SELECT pg_catalog.json_build_object('written', (${written}))::text`)

/** Asks for the advisory locks, and for nothing else. */
export const surveyOfLocks = asking(`SELECT pg_catalog.json_build_object('advisory', (${advisory}))::text`)

function read(json: string): Survey {
  const found = JSON.parse(json) as Partial<Omit<Survey, 'tables'>> & {
    tables?: [string, string, number, number, number][] | null
  }
  const counted = (found.tables ?? []).map(([oid, name, changes, reads, blocks]): [string, Counters] => {
    return [String(oid), { name, changes, reads, blocks }]
  })
  const { written = 0, counts = true, advisory } = found
  return { written, counts, advisory: advisory ?? [], tables: new Map(counted) }
}

export const nothing: Survey = { written: 0, counts: true, advisory: [], tables: new Map() }

/** By oid with their names, the tables that were changed between two surveys; a TRUNCATE begins to count anew. */
export const changedBetween = (before: Survey, after: Survey): Map<string, string> =>
  between(before, after, (was, is) => is.changes !== was.changes)

/** By oid with their names, the tables of which rows were read between two surveys: by a scan, or by their places. */
export const readBetween = (before: Survey, after: Survey): Map<string, string> =>
  between(before, after, (was, is) => is.reads > was.reads || (is.blocks > was.blocks && is.changes === was.changes))

const uncounted = { changes: 0, reads: 0, blocks: 0 }

function between(
  before: Survey,
  after: Survey,
  differ: (was: Omit<Counters, 'name'>, is: Omit<Counters, 'name'>) => boolean,
): Map<string, string> {
  const found = new Map<string, string>()
  for (const [oid, { name }] of [...before.tables, ...after.tables]) {
    if (differ(before.tables.get(oid) ?? uncounted, after.tables.get(oid) ?? uncounted)) found.set(oid, name)
  }
  return found
}

/** Where a survey is made. */
export interface Surveyed {
  readonly upstream: Upstream
  readonly layers: Layers
  readonly savepoints: Savepoints
}

/**
 * Asks between two units, as often as it takes: a cancellation or a statement_timeout may hit the question. `status` is
 * the server's; what failed in the owner's layer on top is undone first, as its client will have to do.
 */
export function ask(surveyed: Surveyed, owner: Owner, status: string, judge: (found: Survey) => void): void {
  const { upstream, layers, savepoints } = surveyed
  let found: Survey | undefined
  const seen = (survey: Survey) => {
    found = survey
  }
  const look = () =>
    upstream.send(
      join(
        survey(seen),
        syncPoint(status => (found ? judge(found) : goOn(status))),
      ),
    )
  const goOn = (status: string) => {
    if (status !== 'E') return look()
    const { top } = layers
    if (top?.owner !== owner) return upstream.abandon(new Error('the transaction failed where no savepoint was set'))
    layers.rolledBackTo(top)
    savepoints.backTo(top.savepoint, look)
  }
  goOn(status)
}
