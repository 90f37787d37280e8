import { Failure } from './failure'
import { settleLeftovers } from './leftovers'
import { isServerError } from './postgres/connection'
import { lockHolder } from './postgres/sessions'
import { Transaction } from './postgres/transaction'
import type { Step } from './step'
import type { Target } from './target'

/** Says that the lock which keeps other deploys out is still ours. Throws a Failure where it is not. */
export type CheckLock = () => Promise<void>

/** Waits for the lock that keeps other deploys out, until the transaction has it. Throws a Failure. */
export async function takeLock(step: Step, target: Target, transaction: Transaction): Promise<void> {
  await transaction.lock(() => tellAndSettle(step, target), step.surroundings.signal)
}

/** While it is waited for: says who has it, and ends what holds it for nobody any more. */
async function tellAndSettle(step: Step, target: Target): Promise<void> {
  const { log } = step.surroundings
  try {
    const holder = await target.aside(lockHolder)
    if (holder) log.info(`Waiting for another deploy of this database: ${holder}.`)
  } catch {
    log.info('Waiting for another deploy of this database.')
  }
  await settleLeftovers(step, { inTheWay: true })
}

/**
 * Runs a batch in segments under the deploy lock, which the batch's own connection would lose with its first COMMIT:
 * an idle READ COMMITTED transaction on a second connection has it. It holds no snapshot, so that CREATE INDEX
 * CONCURRENTLY does not wait for it.
 */
export async function underDeployLock<T>(
  step: Step,
  target: Target,
  action: (checkLock: CheckLock) => Promise<T>,
): Promise<T> {
  return target.aside(async client => {
    target.leaveWhenCancelled(client)
    const holder = await Transaction.begin(client, step.inputs)
    await takeLock(step, target, holder)
    return await action(async () => {
      try {
        await client.query('SELECT 1')
      } catch (error) {
        if (isServerError(error)) throw error
        throw new Failure('connection-failed', 'The connection that holds the deploy lock was lost.', {
          advice: 'Another deploy may have begun: look for it. Run the step again.',
          cause: error,
        })
      }
    })
  })
}
