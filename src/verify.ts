import { Failure, messageOf } from './failure'
import { sameHeads } from './plan/plan'
import { nameHeads } from './plan/result'
import { isServerError } from './postgres/connection'
import { readHeads } from './postgres/heads'
import { isTransient } from './report/blame'
import type { Target } from './target'

/** Everything that has to be true before a COMMIT may be sent. Throws a Failure. */
export async function verify(target: Target): Promise<void> {
  const { transaction, versionTable, state } = target
  await checkTransaction(target)
  const { newHeads } = state.plan!
  const { heads } = await readHeads(transaction.client, versionTable)
  if (!sameHeads(heads, newHeads)) {
    throw new Failure(
      'migration-failed',
      `Python ended without an error, but the heads are ${nameHeads(heads)} and not ${nameHeads(newHeads)}.`,
      { advice: 'Check that env.py runs the migrations, on a connection whose transaction it commits.' },
    )
  }
  await transaction.clearSession()
}

/** The same before a COMMIT while the scripts run, which leaves the heads at `expected`. Throws a Failure. */
export async function verifySegment(target: Target, expected: string[]): Promise<void> {
  const { transaction, versionTable } = target
  await checkTransaction(target)
  // The search path, too, is a script's.
  await transaction.clearSettings()
  const { heads } = await readHeads(transaction.client, versionTable)
  if (sameHeads(heads, expected)) return
  throw new Failure(
    'migration-failed',
    `A COMMIT is needed where the heads have to be ${nameHeads(expected)}, and they are ${nameHeads(heads)}.`,
    { advice: 'Check that no script writes into the version table.' },
  )
}

async function checkTransaction({ transaction, state }: Target): Promise<void> {
  const where = state.bind === 'default' ? '' : ` in the database ${state.bind}`
  try {
    await transaction.checkConstraints()
  } catch (error) {
    if (!isServerError(error)) throw error
    if (isTransient(error.code)) {
      const told = `The check of the deferred constraints met another session: ${messageOf(error)}.`
      throw new Failure('lock-timeout', told, { transient: true, advice: 'Run the step again.', cause: error })
    }
    throw new Failure('migration-failed', `A deferred constraint is violated${where}: ${messageOf(error)}.`, {
      advice: 'Mend the data in the migration before the constraint is checked.',
      bind: state.bind,
      cause: error,
    })
  }
  await transaction.checkIdentity()
}
