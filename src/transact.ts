import pRetry from 'p-retry'
import { readBehindCommit } from './behind-commit'
import { commitEach } from './commit'
import { takeLock } from './deploy-lock'
import { Failure } from './failure'
import { sameHeads } from './plan/plan'
import { nameHeads } from './plan/result'
import { lockKeys } from './postgres/advisory-locks'
import { checkWritable, readHeads } from './postgres/heads'
import { Transaction } from './postgres/transaction'
import { seconds } from './report/words'
import {
  endSecondConnections,
  giveWay,
  openSecondConnections,
  type SecondConnection,
  type SecondConnections,
} from './second-connection'
import { canGoOn, SegmentedRun } from './segments'
import { allOf, type Step } from './step'
import { inLockOrder, type Target } from './target'
import { runThroughGates } from './through-gates'
import { runMessages } from './through-messages'
import { canPrepare, commitTogether } from './two-phase'
import { verify } from './verify'

/** The first pause between two tries, and the longest, in milliseconds; each is doubled, and up to doubled again by chance. */
const pauses = { minTimeout: 1_000, maxTimeout: 30_000 }

type Ending = 'up-to-date' | 'rehearsed' | 'applied'

/**
 * Runs the batch in one transaction for each database and ends them together: committed in mode apply, rolled back in
 * mode rehearse. Where another session was in the way, the whole batch is tried again. Whatever is thrown, the
 * transactions are over then.
 */
export async function transact(step: Step): Promise<Ending> {
  const { inputs, surroundings } = step
  const { log, signal } = surroundings
  let last: Promise<Ending> | undefined
  const attempt = async (number: number) => {
    if (number > 1) await step.startAnew()
    return await attemptOnce(step)
  }
  try {
    await pRetry(number => (last = attempt(number)), {
      ...pauses,
      retries: inputs.retries,
      randomize: true,
      signal,
      shouldRetry: ({ error, attemptNumber, retryDelay }) => {
        if (!(error instanceof Failure) || !error.details.transient) return false
        if (!step.targets.every(canGoOn)) return false
        const what = step.targets.some(({ committed }) => committed > 0) ? 'rest of the' : 'whole'
        log.info(`Try ${attemptNumber} of ${inputs.retries + 1} was rolled back: ${error.message}`)
        log.info(`The ${what} batch is tried again in ${seconds(retryDelay)}.`)
        return true
      },
    })
  } catch (error) {
    last ??= Promise.reject(error)
  }
  // p-retry throws when the step is cancelled; what the last try has come to stays what it is.
  return last!
}

async function attemptOnce(step: Step): Promise<Ending> {
  const seconds: SecondConnections = step.inputs.mode === 'apply' ? await openSecondConnections(step) : new Map()
  try {
    const ending = step.runsInSegments ? await attemptInSegments(step, seconds) : await attempt(step, seconds)
    if (ending === 'applied') await readBehindCommit(step, seconds)
    return ending
  } finally {
    await endSecondConnections(seconds)
  }
}

/** The second connection has the deploy lock then, which the batch's own would lose with its first COMMIT. */
async function attemptInSegments(step: Step, seconds: SecondConnections): Promise<Ending> {
  const [second] = [...seconds.values()] as [SecondConnection]
  const { target } = second
  await takeLock(step, target, second.client, lockKeys.deploy)
  const run = new SegmentedRun(step, target, () => second.check())
  try {
    const ending = await attempt(step, seconds, run)
    if (ending === 'applied') run.applied()
    return ending
  } catch (error) {
    await run.failed()
    throw error
  }
}

async function attempt(step: Step, seconds: SecondConnections, run?: SegmentedRun): Promise<Ending> {
  const { inputs, surroundings } = step
  const begun: Transaction[] = []
  try {
    const beginning = step.targets.map(async target => {
      target.transaction = await Transaction.begin(target.client!, inputs)
      begun.push(target.transaction)
    })
    await giveWay(step, seconds, allOf(beginning))
    if (inputs.mode === 'rehearse') {
      surroundings.log.info('A rehearsal takes the same locks as an apply, until it is rolled back.')
    }
    const targets = inLockOrder(step.targets)
    for (const target of targets) {
      if (!run) await takeLock(step, target, target.client!, lockKeys.deploy)
      await target.transaction.identify()
    }
    const there = await allOf(targets.map(target => isAlreadyThere(step, target)))
    if (!there.includes(false)) return 'up-to-date'
    const moving = targets.filter(({ state }) => state.plan!.revisions.length > 0)
    const together = await canPrepare(step)
    await (inputs.planFile ? runMessages(step) : runThroughGates(step, run))
    await allOf(targets.map(target => verify(target)))
    await run?.checkLock()
    if (inputs.mode === 'rehearse') return 'rehearsed'
    await step.throwIfCancelled()
    await (together ? commitTogether(step, moving) : commitEach(step, moving))
    return 'applied'
  } finally {
    await allOf(begun.map(transaction => transaction.end()))
  }
}

/** Reads the heads again, now that nobody else can move them. Throws a Failure `drift` if they moved elsewhere. */
async function isAlreadyThere({ surroundings, targets }: Step, target: Target): Promise<boolean> {
  const { state, client, versionTable } = target
  const { heads, relation } = await readHeads(client!, versionTable)
  target.relation = relation
  const plan = target.rest
  if (target.committed === 0) state.priorHeads = heads
  const which = targets.length > 1 ? `The database ${state.bind}` : 'The database'
  if (sameHeads(heads, plan.newHeads)) {
    if (plan.revisions.length > 0) surroundings.log.info(`${which} was brought to the target in the meantime.`)
    plan.revisions = []
    state.outcome = 'up-to-date'
    return true
  }
  if (!sameHeads(heads, plan.priorHeads)) {
    throw new Failure(
      'drift',
      `${which} has moved from ${nameHeads(plan.priorHeads)} to ${nameHeads(heads)} since the batch was planned.`,
      { advice: 'Run the step again: it will plan from the new heads.' },
    )
  }
  await checkWritable(client!, versionTable, relation)
  return false
}
