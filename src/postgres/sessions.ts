import type { Client } from 'pg'
import { disconnect } from './connection'
import { lockKey } from './transaction'

/**
 * Who holds the deploy lock, in words, by a connection that is not in a transaction (pg_stat_activity is cached there);
 * undefined when nobody does any more. Another role's query is visible only with `pg_read_all_stats`.
 */
export async function lockHolder(client: Client): Promise<string | undefined> {
  const { rows } = await client.query<{ pid: number | null; application_name: string; since: string }>(
    `SELECT l.pid, coalesce(a.application_name, '') AS application_name,
            coalesce(to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), 'unknown') AS since
     FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
       AND (l.classid::bigint << 32 | l.objid::bigint) = ${lockKey}`,
  )
  const [holder] = rows
  if (!holder) return undefined
  // Source: pg_locks in view-pg-locks.html.
  if (holder.pid === null) return 'a prepared transaction (see pg_prepared_xacts)'
  return `${holder.application_name || 'a session without a name'} (pid ${holder.pid}, since ${holder.since})`
}

/** Cancels what a server process runs, over another connection; a server that cannot be asked sees ours end. */
export async function cancelStatement(pid: number, connect: () => Promise<Client>): Promise<void> {
  try {
    const other = await connect()
    try {
      await other.query('SELECT pg_catalog.pg_cancel_backend($1)', [pid])
    } finally {
      await disconnect(other)
    }
  } catch {
    // Nothing more can be done from here.
  }
}
