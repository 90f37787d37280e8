import type { Client } from 'pg'
import { Failure, messageOf } from '../failure'
import { type Step, throwIfCancelled } from '../opening/surroundings'
import { inLockOrder, type Target } from '../opening/target'
import { lockKeys } from '../postgres/advisory-locks'
import { causeOf, disconnect, isServerError } from '../postgres/connection'
import { noTransactionTimeout } from '../postgres/transaction'
import { takeLock } from './deploy-lock'
import type { Running } from './running'

/** How long the second connection may take to begin, in milliseconds: a pooler may have no server process left for it. */
const patience = 5_000

/**
 * A second connection to one database, in an idle READ COMMITTED transaction. It holds a lock that every apply takes
 * first, and so it can read the heads behind the COMMIT before any other deploy has moved them. The transaction holds
 * no snapshot, so that CREATE INDEX CONCURRENTLY does not wait for it; a lock of a session would not survive a pooler.
 */
export class SecondConnection {
  private constructor(
    readonly target: Target,
    readonly client: Client,
  ) {}

  /**
   * Connects and waits for the lock. Throws a Failure `connection-failed` where the connection cannot be had or is lost,
   * `lock-timeout` or `cancelled` as `takeLock` does.
   */
  static async open(running: Running, target: Target): Promise<SecondConnection> {
    const client = await target.connectForLock()
    try {
      target.leaveWhenCancelled(client)
      await beginReading(client)
      await takeLock(running, target, client, lockKeys.second)
      await client.query(timeouts)
      const second = new SecondConnection(target, client)
      // Where the batch's own connection breaks, what became of it may take long to find out: others go on meanwhile.
      target.client.once('end', () => setTimeout(() => void second.end(), patience).unref())
      return second
    } catch (error) {
      await disconnect(client)
      if (error instanceof Failure) throw error
      const cause = causeOf(client, error)
      throw new Failure(
        'connection-failed',
        `The second connection to the database cannot be used: ${messageOf(cause)}.`,
        { cause },
      )
    }
  }

  /** Says that the connection is there. Throws a Failure where it is not. */
  async check(): Promise<void> {
    try {
      await this.client.query('SELECT 1')
    } catch (error) {
      if (isServerError(error)) throw error
      const cause = causeOf(this.client, error)
      throw new Failure(
        'connection-failed',
        `The connection that holds the deploy lock was lost: ${messageOf(cause)}.`,
        {
          advice:
            'Another deploy may have begun: look for it. Run the step again. A script that ends the sessions of others (pg_terminate_backend) has to leave those whose application_name begins with atomic-upgrade.',
          cause,
        },
      )
    }
  }

  end(): Promise<void> {
    return disconnect(this.client)
  }
}

/** For what is read behind the COMMIT: whoever is in the way then is not waited for long. */
export const timeouts = `SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '10s'`

/** Begins the transaction. Throws where that takes too long. */
export async function beginReading(client: Client): Promise<void> {
  const settings = ['tcp_keepalives_idle = 30', 'tcp_keepalives_interval = 10', 'tcp_keepalives_count = 3']
  const all = ['idle_in_transaction_session_timeout = 0', ...settings].map(each => `SET LOCAL ${each}`)
  const begun = client.query(`BEGIN ISOLATION LEVEL READ COMMITTED; ${all.join('; ')}; ${noTransactionTimeout}`)
  begun.catch(() => {})
  await inTime(begun, 'the server has none left for it')
}

async function inTime<T>(action: Promise<T>, otherwise: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(otherwise)), patience)
  })
  try {
    return await Promise.race([action, late])
  } finally {
    clearTimeout(timer)
  }
}

export type SecondConnections = Map<Target, SecondConnection>

/**
 * One for each database, in the order of the locks. Where it cannot be had, the log says what that means, and an apply
 * goes on without it; not in segments, where it has the deploy lock. Throws a Failure.
 */
export async function openSecondConnections(running: Running): Promise<SecondConnections> {
  const opened: SecondConnections = new Map()
  try {
    for (const { target } of await inLockOrder(running.courses)) {
      try {
        const second = await SecondConnection.open(running, target)
        opened.set(target, second)
        second.client.once('end', () => lost(running, target, opened))
      } catch (error) {
        const isOptional = error instanceof Failure && error.reason === 'connection-failed' && !running.isInSegments
        if (!isOptional) throw error
        await throwIfCancelled(running.step)
        doWithout(running.step, error.message)
      }
    }
    return opened
  } catch (error) {
    await endSecondConnections(opened)
    throw error
  }
}

/** Without one of these locks a run would keep others waiting for nothing, so all go. */
function lost({ step, isInSegments }: Running, target: Target, opened: SecondConnections): void {
  if (!opened.has(target)) return
  if (!isInSegments && !step.surroundings.signal.aborted) doWithout(step, 'It was lost.')
  void endSecondConnections(opened)
}

/** A pooler may have had one server process for both: then the batch goes first, and the other connection goes. */
export async function giveWay(running: Running, opened: SecondConnections, begun: Promise<unknown>): Promise<void> {
  const timer = setTimeout(() => {
    if (running.isInSegments || opened.size === 0) return
    doWithout(running.step, 'The batch’s own transaction could not begin beside it.')
    void endSecondConnections(opened)
  }, patience)
  try {
    await begun
  } finally {
    clearTimeout(timer)
  }
}

export async function endSecondConnections(opened: SecondConnections): Promise<void> {
  const all = [...opened.values()]
  opened.clear()
  await Promise.all(all.map(second => second.end()))
}

const doWithout = ({ surroundings }: Step, why: string): void =>
  surroundings.log.info(
    `No second connection: another deploy may come between the COMMIT and the look at the heads behind it. ${why}`,
  )
