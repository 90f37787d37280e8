import type { Client } from 'pg'
import type { Identity } from './identity'

/**
 * What a prepared transaction of ours is named after: the transaction (xid8) of the first database, whose COMMIT
 * PREPARED is the decision for all.
 */
export interface Decision extends Identity {
  transaction: string
}

export interface Prepared {
  gid: string
  decision: Decision
  /** Whether this is the first database's own. */
  decides: boolean
}

const prefix = 'atomic-upgrade'

/** A name of at most 200 bytes (prepare.html); `index` is 0 for the first database. */
export const gidOf = ({ system, oid, transaction }: Decision, index: number): string =>
  [prefix, system, oid, transaction, index].join(':')

/** Reads a name of ours; undefined for anybody else's. */
export function readGid(gid: string): Prepared | undefined {
  const found = /^atomic-upgrade:(\d+):(\d+):(\d+):(\d+)$/.exec(gid)
  if (!found) return undefined
  const [, system = '', oid = '', transaction = '', index = ''] = found
  return { gid, decision: { system, oid, transaction }, decides: index === '0' }
}

/** The prepared transactions of ours in this database. */
export async function listPrepared(client: Client): Promise<Prepared[]> {
  const { rows } = await client.query<{ gid: string }>(
    `SELECT gid FROM pg_catalog.pg_prepared_xacts
     WHERE database = pg_catalog.current_database() AND gid LIKE '${prefix}:%' ORDER BY gid`,
  )
  return rows.flatMap(({ gid }) => readGid(gid) ?? [])
}

/** The statement that ends a prepared transaction. */
export const finishing = (how: 'COMMIT' | 'ROLLBACK', gid: string): string => `${how} PREPARED '${gid}'`

/**
 * Ends a prepared transaction; false where there is none of that name (any more): then somebody else has ended it, one
 * way or the other. Throws what else PostgreSQL answers.
 */
export async function finish(client: Client, how: 'COMMIT' | 'ROLLBACK', gid: string): Promise<boolean> {
  try {
    await client.query(finishing(how, gid))
    return true
  } catch (error) {
    if ((error as { code?: string }).code === undefinedObject) return false
    throw error
  }
}

const undefinedObject = '42704'

/** Another session is ending that prepared transaction (object_not_in_prerequisite_state). */
export const isBusy = (error: unknown): boolean => (error as { code?: string }).code === '55000'

/** How many transactions can be prepared in this cluster, and how many of these places are taken. */
export async function preparedSlots(client: Client): Promise<{ most: number; taken: number }> {
  const { rows } = await client.query<{ most: number; taken: number }>(
    `SELECT pg_catalog.current_setting('max_prepared_transactions')::int AS most,
            (SELECT pg_catalog.count(*)::int FROM pg_catalog.pg_prepared_xacts) AS taken`,
  )
  return rows[0]!
}
