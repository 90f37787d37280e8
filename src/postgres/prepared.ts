import type { Client } from 'pg'
import { findRelation, type VersionTable } from './heads'
import type { Identity } from './identity'
import { firstOf } from './rows'

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
  /** Whether it is named as the first database's own. */
  decides: boolean
  /** Its own transaction (xid8). */
  transaction: string
  owner: string
  /** Whether a deploy of ours may have prepared it. Whoever may connect can take a name of our form. */
  isOurs: boolean
}

const prefix = 'atomic-upgrade'

/** A name of at most 200 bytes (prepare.html); `index` is 0 for the first database. */
export const gidOf = ({ system, oid, transaction }: Decision, index: number): string =>
  [prefix, system, oid, transaction, index].join(':')

/** Reads a name of our form; undefined for any other. */
export function readGid(gid: string): Pick<Prepared, 'gid' | 'decision' | 'decides'> | undefined {
  const found = /^atomic-upgrade:(\d+):(\d+):(\d+):(\d+)$/.exec(gid)
  if (!found) return undefined
  const [, system = '', oid = '', transaction = '', index = ''] = found
  return { gid, decision: { system, oid, transaction }, decides: index === '0' }
}

/** Whether role `o` may become role `r`: for that it may be a member without SET from PostgreSQL 16 on. */
const maySet = (o: string, r: string) =>
  `pg_catalog.pg_has_role(${o}, ${r}, CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)`

/**
 * Whether the owner `o` of a prepared transaction may write the version table, itself or by a role that it may SET. Where
 * none is committed yet: whether it is our own role, one that ours may SET, the owner of the schema or the database, or
 * a superuser. A superuser may SET any role, which says nothing.
 */
const isOurs = `CASE WHEN $1::oid IS NOT NULL THEN EXISTS (
    SELECT FROM pg_catalog.pg_roles r WHERE ${maySet('o.oid', 'r.oid')}
      AND pg_catalog.has_table_privilege(r.oid, $1::oid, 'INSERT')
      AND pg_catalog.has_table_privilege(r.oid, $1::oid, 'UPDATE')
      AND pg_catalog.has_table_privilege(r.oid, $1::oid, 'DELETE'))
  ELSE o.rolsuper OR o.rolname IN (current_user, session_user)
    OR (NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AND ${maySet('current_user', 'o.oid')})
    OR o.oid = (SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    OR o.oid = (SELECT nspowner FROM pg_catalog.pg_namespace
                WHERE nspname = coalesce($2::text, pg_catalog.current_schema()::text))
  END`

/** The prepared transactions of this database that are named as ours are. */
export async function listPrepared(client: Client, versionTable: VersionTable): Promise<Prepared[]> {
  const { rows } = await client.query<Record<'gid' | 'owner' | 'xid' | 'next', string> & { ours: boolean | null }>(
    `SELECT p.gid, coalesce(p.owner, '') AS owner, p.transaction::text AS xid, (${isOurs}) AS ours,
            pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text AS next
     FROM pg_catalog.pg_prepared_xacts p LEFT JOIN pg_catalog.pg_roles o ON o.rolname = p.owner
     WHERE p.database = pg_catalog.current_database() AND p.gid LIKE '${prefix}:%' ORDER BY p.gid`,
    [(await findRelation(client, versionTable))?.oid, versionTable.schema],
  )
  return rows.flatMap(({ gid, owner, xid, next, ours }) => {
    const read = readGid(gid)
    return read ? { ...read, owner, transaction: withEpoch(xid, next), isOurs: ours === true } : []
  })
}

/** The one of that name that is that very transaction. */
export async function isPrepared(client: Client, gid: string, transaction: string): Promise<boolean> {
  const { rows } = await client.query<{ xid: string; next: string }>(
    `SELECT transaction::text AS xid, pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text AS next
     FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() AND gid = $1`,
    [gid],
  )
  return rows.some(({ xid, next }) => withEpoch(xid, next) === transaction)
}

/** The xid8 of an xid that is in use, which is at most half the circle away from the next one. */
function withEpoch(xid: string, next: string): string {
  const [circle, near] = [2n ** 32n, BigInt(next)]
  const sameEpoch = near - (near % circle) + BigInt(xid)
  const away = sameEpoch - near
  return String(away > circle / 2n ? sameEpoch - circle : away < -circle / 2n ? sameEpoch + circle : sameEpoch)
}

/** The statement that ends a prepared transaction. */
export const finishing = (how: 'COMMIT' | 'ROLLBACK', gid: string): string => `${how} PREPARED '${gid}'`

/** The same for people. */
export const finishingIn = (bind: string, how: 'COMMIT' | 'ROLLBACK', gid: string): string =>
  `${finishing(how, gid)} in ${bind}`

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
  return firstOf(
    await client.query<{
      most: number
      taken: number
    }>(`SELECT pg_catalog.current_setting('max_prepared_transactions')::int AS most,
            (SELECT pg_catalog.count(*)::int FROM pg_catalog.pg_prepared_xacts) AS taken`),
  )
}
