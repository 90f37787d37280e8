import type { Client } from 'pg'
import { settleLeftovers } from '../opening/leftovers'
import type { Target } from '../opening/target'
import { waitForLock } from '../postgres/advisory-locks'
import type { Running } from './running'

/** Waits for a lock that keeps other deploys out, until the transaction of `client` has it. Throws a Failure. */
export const takeLock = (running: Running, target: Target, client: Client, key: number): Promise<void> =>
  waitForLock(client, key, () => tellAndSettle(running, target, key), running.step.surroundings.signal)

/** While it is waited for: says who has it, and ends what holds it for nobody any more. */
async function tellAndSettle({ step, courses }: Running, target: Target, key: number): Promise<string> {
  const holder = await target.holderOf(key)
  step.surroundings.log.info(`Waiting for another deploy of this database${holder && `: ${holder}`}.`)
  await settleLeftovers(step, courses, { inTheWay: true })
  return holder
}
