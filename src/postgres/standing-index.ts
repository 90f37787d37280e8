import type { Client } from 'pg'
import type { MadeIndex } from '../plan/standing-index'

export interface StandingIndex {
  /** With its schema, quoted. */
  name: string
  isValid: boolean
  /** As PostgreSQL writes it. */
  definition: string
}

/** The index of that name on that table, as the connection's search path finds it. */
export async function findIndex(client: Client, { name, table }: MadeIndex): Promise<StandingIndex | undefined> {
  const { rows } = await client.query<StandingIndex>(
    `SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, i.indisvalid AS "isValid",
            pg_catalog.pg_get_indexdef(c.oid) AS definition
     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE i.indrelid = pg_catalog.to_regclass($1) AND c.relname = $2`,
    [table, name],
  )
  return rows[0]
}

/** The same behind everybody who builds an index on the table right now: until then every such index is invalid. */
export async function findSettledIndex(client: Client, index: MadeIndex): Promise<StandingIndex | undefined> {
  const found = await findIndex(client, index)
  if (!found || found.isValid) return found
  await client.query('BEGIN')
  try {
    // The lock that CREATE INDEX CONCURRENTLY holds from its start to its end.
    await client.query(`LOCK TABLE ${index.table} IN SHARE UPDATE EXCLUSIVE MODE`)
    return await findIndex(client, index)
  } finally {
    await client.query('ROLLBACK')
  }
}
