import pRetry from 'p-retry'
import type { Client } from 'pg'
import { ScriptError } from './alembic/driver'
import { Failure, messageOf } from './failure'
import { type Plan, sameHeads } from './plan/plan'
import { nameHeads } from './plan/result'
import { LockWatch } from './postgres/blockers'
import { connectionLost, disconnect, isServerError } from './postgres/connection'
import { Gate } from './postgres/gate/gate'
import { Tape } from './postgres/gate/tape'
import { checkWritable, readHeads } from './postgres/heads'
import { cancelStatement, lockHolder, processIdOf } from './postgres/sessions'
import { settle } from './postgres/settle'
import { Transaction } from './postgres/transaction'
import { Progress } from './progress'
import { failureOf, isTransient } from './report/blame'
import { count, seconds } from './report/words'
import type { Step } from './step'

/** How long the database is asked what became of a COMMIT that got no answer, in milliseconds. */
const patience = 60_000

/** The first pause between two tries, and the longest, in milliseconds; each is doubled, and up to doubled again by chance. */
const pauses = { minTimeout: 1_000, maxTimeout: 30_000 }

type Ending = 'up-to-date' | 'rehearsed' | 'applied'

/**
 * Runs the batch in one transaction and ends it: committed in mode apply, rolled back in mode rehearse. Where another
 * session was in the way, the whole batch is tried again. Whatever is thrown, the transaction is over then.
 */
export async function transact(step: Step, plan: Plan): Promise<Ending> {
  const { inputs, surroundings } = step
  const { log, signal } = surroundings
  let last: Promise<Ending> | undefined
  const attempt = async (number: number) => {
    if (number > 1) await step.startAnew()
    return await attemptOnce(step, plan)
  }
  try {
    await pRetry(number => (last = attempt(number)), {
      ...pauses,
      retries: inputs.retries,
      randomize: true,
      signal,
      shouldRetry: ({ error, attemptNumber, retryDelay }) => {
        if (!(error instanceof Failure) || !error.details.transient) return false
        log.info(`Try ${attemptNumber} of ${inputs.retries + 1} was rolled back: ${error.message}`)
        log.info(`The whole batch is tried again in ${seconds(retryDelay)}.`)
        return true
      },
    })
  } catch (error) {
    last ??= Promise.reject(error)
  }
  // p-retry throws when the step is cancelled; what the last try has come to stays what it is.
  return last!
}

async function attemptOnce(step: Step, plan: Plan): Promise<Ending> {
  const { inputs, surroundings } = step
  const transaction = await Transaction.begin(step.client!, inputs)
  try {
    if (inputs.mode === 'rehearse') {
      surroundings.log.info('A rehearsal takes the same locks as an apply, until it is rolled back.')
    }
    await transaction.lock(() => sayWhoHoldsTheLock(step), surroundings.signal)
    if (await isAlreadyThere(step, plan)) return 'up-to-date'
    await runThroughGate(step, transaction, plan)
    await verify(step, transaction, plan)
    if (inputs.mode === 'rehearse') return 'rehearsed'
    await commit(step, transaction, plan)
    return 'applied'
  } finally {
    await transaction.end()
  }
}

/** Reads the heads again, now that nobody else can move them. Throws a Failure `drift` if they moved elsewhere. */
async function isAlreadyThere(step: Step, plan: Plan): Promise<boolean> {
  const { client, versionTable, result, surroundings } = step
  const { heads, tableExists } = await readHeads(client!, versionTable!)
  result.priorHeads = heads
  if (sameHeads(heads, plan.newHeads)) {
    surroundings.log.info('Another deploy has brought the database to the target in the meantime.')
    plan.revisions = []
    return true
  }
  if (!sameHeads(heads, plan.priorHeads)) {
    throw new Failure(
      'drift',
      `The database has moved from ${nameHeads(plan.priorHeads)} to ${nameHeads(heads)} since the batch was planned.`,
      { advice: 'Run the step again: it will plan from the new heads.' },
    )
  }
  await checkWritable(client!, versionTable!, tableExists)
  return false
}

async function runThroughGate(step: Step, transaction: Transaction, plan: Plan): Promise<void> {
  const { client, settings, lockTimeout } = transaction
  const { surroundings, inputs, versionTable, printed } = step
  const { log, signal } = surroundings
  const cancel = () => cancelStatement(client, () => step.connect())
  const tape = new Tape(versionTable!.name)
  const gate = await Gate.open({ client, tape, settings, cancel })
  const watch = new LockWatch({
    pid: processIdOf(client),
    quietSince: () => tape.quietSince,
    lockTimeout,
    connect: () => step.connect(),
    onWait: blockers => log.info(`Waiting for a lock that is held by ${blockers.join(' and by ')}.`),
  })
  signal.addEventListener('abort', cancel)
  step.started = true
  log.info(`Running ${count(plan.revisions.length, 'revision')} in one transaction.`)
  const progress = new Progress(tape, log, plan)
  let error: unknown
  try {
    const { user = '', database = '' } = client
    const { direction, revision: target } = inputs
    const revisions = plan.revisions.map(revision => revision.id)
    const request = { direction, target, revisions, gate: { ...gate.address, user, database } }
    await step.driver.run(request, id => progress.start(id))
  } catch (thrown) {
    error = thrown
  }
  await gate.close()
  await watch.end()
  signal.removeEventListener('abort', cancel)
  progress.finish({ failed: error !== undefined })
  step.result.runs = progress.runs
  printed.show(log, 'Output of the scripts')
  if (tape.notices.length > 0) {
    log.group(
      'Notices of PostgreSQL',
      tape.notices.map(({ severity, message }) => `${severity}: ${message}`),
    )
  }
  if (gate.lost) {
    throw connectionLost(gate.lost, tape.revision === null ? {} : { revision: tape.revision })
  }
  if (error instanceof ScriptError) {
    throw failureOf(error, tape.failure, plan, watch.blockersSince(tape.failure?.since))
  }
  if (error) throw error
}

/** Everything that has to be true before a COMMIT may be sent. */
async function verify({ versionTable }: Step, transaction: Transaction, plan: Plan): Promise<void> {
  try {
    await transaction.checkConstraints()
  } catch (error) {
    if (!isServerError(error)) throw error
    if (isTransient((error as { code?: string }).code)) {
      const told = `The check of the deferred constraints met another session: ${messageOf(error)}.`
      throw new Failure('lock-timeout', told, { transient: true, advice: 'Run the step again.', cause: error })
    }
    throw new Failure('migration-failed', `A deferred constraint is violated: ${messageOf(error)}.`, {
      advice: 'Mend the data in the migration before the constraint is checked.',
      cause: error,
    })
  }
  await transaction.checkIdentity()
  const { heads } = await readHeads(transaction.client, versionTable!)
  if (!sameHeads(heads, plan.newHeads)) {
    throw new Failure(
      'migration-failed',
      `Python ended without an error, but the heads are ${nameHeads(heads)} and not ${nameHeads(plan.newHeads)}.`,
      { advice: 'Check that env.py runs the migrations, on a connection whose transaction it commits.' },
    )
  }
  await transaction.clearSettings()
}

async function commit(step: Step, transaction: Transaction, { priorHeads, newHeads }: Plan): Promise<void> {
  const { inputs, surroundings, result } = step
  const versionTable = step.versionTable!
  surroundings.signal.throwIfAborted()
  step.committing = true
  try {
    await transaction.commit()
  } catch (error) {
    if (error instanceof Failure) throw error
    surroundings.log.info('The answer to the COMMIT was lost; asking the database what became of it.')
    const { applicationName } = surroundings
    const { id } = transaction
    const database = inputs.database!
    const { signal } = surroundings
    const settled = await settle({
      database,
      applicationName,
      versionTable,
      id,
      priorHeads,
      newHeads,
      patience,
      signal,
    })
    if (settled.decision === 'committed') return
    if (settled.decision === 'rolled-back') {
      throw new Failure('commit-failed', 'The connection broke during the COMMIT, and PostgreSQL has rolled back.', {
        advice: 'Run the step again.',
      })
    }
    result.outcome = 'in-doubt'
    delete result.newHeads
    throw new Failure('commit-failed', `The COMMIT was sent, and no answer came: ${settled.why}.`, {
      advice: `When the database can be reached again, ask it: SELECT pg_xact_status('${id}'::xid8), and look at the heads with SELECT version_num FROM ${versionTable.name}.`,
    })
  }
}

/** Only for the log: the wait goes on without it. */
async function sayWhoHoldsTheLock(step: Step): Promise<void> {
  const { log } = step.surroundings
  let client: Client | undefined
  try {
    client = await step.connect()
    const holder = await lockHolder(client)
    if (holder) log.info(`Waiting for another deploy of this database: ${holder}.`)
  } catch {
    log.info('Waiting for another deploy of this database.')
  } finally {
    if (client) await disconnect(client)
  }
}
