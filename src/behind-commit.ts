import type { Client } from 'pg'
import { Failure, messageOf } from './failure'
import { sameHeads } from './plan/plan'
import { nameHeads } from './plan/result'
import { isServerError } from './postgres/connection'
import { readRelation } from './postgres/heads'
import { keepAsking } from './postgres/patience'
import { beginReading, type SecondConnections, timeouts } from './second-connection'
import { allOf, type Step } from './step'
import type { Target } from './target'

/** How long a database is asked for its heads behind the COMMIT, in milliseconds. */
const patience = 5_000

/**
 * Reads the heads of what was committed, on connections that had no part in it: triggers and cursors of the batch can
 * act inside the COMMIT, and what the databases hold then is what is said. Where they cannot be read, the log says so.
 * Throws a Failure `drift` where they are not the batch's; the outcome is `applied` all the same.
 */
export async function readBehindCommit(step: Step, seconds: SecondConnections): Promise<void> {
  const { result, targets } = step
  const moved = targets.filter(({ state }) => state.plan!.revisions.length > 0)
  await allOf(
    moved.map(async target => {
      const { state } = target
      const heads = await headsOf(step, target, seconds.get(target)?.client)
      state.reread = heads !== undefined
      state.newHeads = heads ?? state.plan!.newHeads
    }),
  )
  const [first] = moved.filter(({ state }) => !sameHeads(state.newHeads!, state.plan!.newHeads))
  if (!first) return
  const { bind, newHeads, plan } = first.state
  const which = targets.length > 1 ? `the database ${bind}` : 'the database'
  result.outcome = 'applied'
  throw new Failure(
    'drift',
    `The batch is committed, and behind the COMMIT ${which} is at ${nameHeads(newHeads!)} and not at ${nameHeads(plan!.newHeads)}: something has moved the version table in the COMMIT or at once behind it.`,
    {
      advice:
        'Look for a trigger that writes into the version table, and for somebody who migrates without the deploy lock. What the batch did is there: alembic stamp sets the version table right.',
      ...(targets.length > 1 && { bind }),
    },
  )
}

/** undefined where they cannot be read. */
async function headsOf(step: Step, target: Target, second: Client | undefined): Promise<string[] | undefined> {
  const { log, signal } = step.surroundings
  const unread = (error: unknown) =>
    void log.info(`The heads were not read again behind the COMMIT: ${messageOf(error)}.`)
  try {
    if (second) return await read(second, target)
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
        return await read(client, target)
      })
      .catch(error => {
        why = error
        throw error
      }),
  )
  return heads ?? unread(why)
}

/** Throws where the server is a standby: it may not know yet what its primary has done. */
async function read(client: Client, { relation }: Target): Promise<string[]> {
  const { rows } = await client.query<{ standby: boolean }>('SELECT pg_catalog.pg_is_in_recovery() AS standby')
  if (rows[0]?.standby) throw new Error('the server that answers is a standby')
  return relation ? (await readRelation(client, relation)).heads : []
}
