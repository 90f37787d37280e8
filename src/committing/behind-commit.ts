import type { Client } from 'pg'
import { Failure, messageOf } from '../failure'
import { allOf, type Step } from '../opening/surroundings'
import { sameHeads } from '../plan/plan'
import { nameHeads } from '../plan/result'
import { isServerError } from '../postgres/connection'
import { type Relation, readRelation } from '../postgres/heads'
import { keepAsking } from '../postgres/patience'
import type { Migration } from '../running/migration'
import { beginReading, type SecondConnections, timeouts } from '../running/second-connection'
import type { Ended, HeadsAtEnd } from './ended'

/** How long a database is asked for its heads behind the COMMIT, in milliseconds. */
const patience = 5_000

/**
 * Reads the heads of what was committed, on connections that had no part in it: triggers and cursors of the batch can
 * act inside the COMMIT, and what the databases hold then is what is said. Where they cannot be read, the log says so;
 * where they are not the batch's, the step has failed by `drift`, and the outcome is `applied` all the same.
 */
export async function readBehindCommit(
  step: Step,
  migrations: Migration[],
  seconds: SecondConnections,
): Promise<Ended> {
  const moved = migrations.filter(({ course }) => course.plan.revisions.length > 0)
  const heads = new Map<string, HeadsAtEnd>()
  await allOf(
    moved.map(async migration => {
      const read = await headsOf(step, migration, seconds.get(migration.target)?.client)
      heads.set(migration.bind, { heads: read ?? migration.course.plan.newHeads, reread: read !== undefined })
    }),
  )
  for (const { bind, course } of moved) {
    const { newHeads } = course.plan
    const { heads: found = newHeads } = heads.get(bind) ?? {}
    if (!sameHeads(found, newHeads)) {
      return { outcome: 'applied', heads, failure: movedBehind(bind, found, newHeads, migrations.length > 1) }
    }
  }
  return { outcome: 'applied', heads, failure: null }
}

function movedBehind(bind: string, heads: string[], expected: string[], several: boolean): Failure {
  const which = several ? `the database ${bind}` : 'the database'
  return new Failure(
    'drift',
    `The batch is committed, and behind the COMMIT ${which} is at ${nameHeads(heads)} and not at ${nameHeads(expected)}: something has moved the version table in the COMMIT or at once behind it.`,
    {
      advice:
        'Look for a trigger that writes into the version table, and for somebody who migrates without the deploy lock. What the batch did is there: alembic stamp sets the version table right.',
      ...(several && { bind }),
    },
  )
}

/** undefined where they cannot be read. */
async function headsOf(
  { surroundings }: Step,
  { target, relation }: Migration,
  second: Client | undefined,
): Promise<string[] | undefined> {
  const { log, signal } = surroundings
  const unread = (error: unknown) =>
    void log.info(`The heads were not read again behind the COMMIT: ${messageOf(error)}.`)
  try {
    if (second) return await read(second, relation)
  } catch (error) {
    if (isServerError(error)) return unread(error)
    // It was lost, which has been told.
  }
  let why: unknown = new Error('there is no connection')
  const heads = await keepAsking({ patience, signal }, () =>
    target
      .aside(async client => {
        await beginReading(client)
        await client.query(timeouts)
        return await read(client, relation)
      })
      .catch(error => {
        why = error
        throw error
      }),
  )
  return heads ?? unread(why)
}

/** Throws where the server is a standby: it may not know yet what its primary has done. */
async function read(client: Client, relation: Relation | undefined): Promise<string[]> {
  const { rows } = await client.query<{ standby: boolean }>('SELECT pg_catalog.pg_is_in_recovery() AS standby')
  if (rows[0]?.standby) throw new Error('the server that answers is a standby')
  return relation ? (await readRelation(client, relation)).heads : []
}
