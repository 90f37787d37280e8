import type { Client } from 'pg'
import { settleLeftovers } from './leftovers'
import { waitForLock } from './postgres/advisory-locks'
import type { Step } from './step'
import type { Target } from './target'

/** Says that the lock which keeps other deploys out is still ours. Throws a Failure where it is not. */
export type CheckLock = () => Promise<void>

/** Waits for a lock that keeps other deploys out, until the transaction of `client` has it. Throws a Failure. */
export const takeLock = (step: Step, target: Target, client: Client, key: number): Promise<void> =>
  waitForLock(client, key, () => tellAndSettle(step, target, key), step.surroundings.signal)

/** While it is waited for: says who has it, and ends what holds it for nobody any more. */
async function tellAndSettle(step: Step, target: Target, key: number): Promise<string> {
  const holder = await target.holderOf(key)
  step.surroundings.log.info(`Waiting for another deploy of this database${holder && `: ${holder}`}.`)
  await settleLeftovers(step, { inTheWay: true })
  return holder
}
