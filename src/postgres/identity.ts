import type { Client } from 'pg'
import { Failure, messageOf } from '../failure'
import { firstOf } from './rows'

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

/**
 * Asks a database who it is. Throws a Failure `not-permitted` where the role may not ask; by default every role may, but
 * a provider can have taken that away.
 */
export async function identify(client: Client): Promise<NamedIdentity> {
  try {
    return firstOf(
      await client.query<NamedIdentity>(`SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system, oid::text AS oid, datname AS name
       FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()`),
    )
  } catch (error) {
    if ((error as { code?: string }).code !== '42501') throw error
    throw new Failure('not-permitted', `The role may not ask which database this is: ${messageOf(error)}.`, {
      advice: 'GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() to the role of database-url.',
      cause: error,
    })
  }
}

/** An order that is the same in every run, whatever the order of the inputs. */
export function byIdentity(a: Identity, b: Identity): number {
  const [one, other] = [keyOf(a), keyOf(b)]
  return one < other ? -1 : one > other ? 1 : 0
}

const keyOf = ({ system, oid }: Identity): string => `${system.padStart(20, '0')}:${oid.padStart(10, '0')}`
