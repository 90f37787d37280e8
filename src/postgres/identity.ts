import type { Client } from 'pg'

/** Which database this is, whatever it is called by: the cluster's system identifier and the database's oid. */
export interface Identity {
  system: string
  oid: string
}

/** The same with the database's name. */
export interface NamedIdentity extends Identity {
  name: string
}

export const sameIdentity = (a: Identity, b: Identity): boolean => a.system === b.system && a.oid === b.oid

/** Asks a database who it is. Throws what PostgreSQL answers. */
export async function identify(client: Client): Promise<NamedIdentity> {
  const { rows } = await client.query<NamedIdentity>(
    `SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system, oid::text AS oid, datname AS name
     FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()`,
  )
  return rows[0]!
}

/** An order that is the same in every run, whatever the order of the inputs. */
export function byIdentity(a: Identity, b: Identity): number {
  const [one, other] = [a, b].map(({ system, oid }) => `${system.padStart(20, '0')}:${oid.padStart(10, '0')}`)
  return one! < other! ? -1 : one! > other! ? 1 : 0
}
