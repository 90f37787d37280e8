import pRetry from 'p-retry'
import { Failure } from '../failure'
import { allOf, throwIfCancelled } from '../opening/surroundings'
import { inLockOrder } from '../opening/target'
import { sameHeads } from '../plan/plan'
import { nameHeads } from '../plan/result'
import { lockKeys } from '../postgres/advisory-locks'
import { checkWritable, readHeads } from '../postgres/heads'
import { seconds } from '../report/words'
import { takeLock } from '../running/deploy-lock'
import { Migration } from '../running/migration'
import type { Running } from '../running/running'
import {
  endSecondConnections,
  giveWay,
  openSecondConnections,
  type SecondConnection,
  type SecondConnections,
} from '../running/second-connection'
import { canGoOn, SegmentedRun } from '../running/segments'
import { runThroughGates } from '../running/through-gates'
import { runMessages } from '../running/through-messages'
import { canPrepare } from '../trying/can-prepare'
import { verify, verifySegment } from './before-commit'
import { readBehindCommit } from './behind-commit'
import { commit, commitEach } from './commit'
import type { Ended } from './ended'
import { commitTogether } from './two-phase'

/** The first pause between two tries, and the longest, in milliseconds; each is doubled, and up to doubled again by chance. */
const pauses = { minTimeout: 1_000, maxTimeout: 30_000 }

/**
 * Runs the batch in one transaction for each database and ends them together: committed in mode apply, rolled back in
 * mode rehearse. Where another session was in the way, the whole batch is tried again. Whatever is thrown, the
 * transactions are over then, and what became of each database is noted in `running`.
 */
export async function transact(running: Running): Promise<Ended> {
  const { inputs, surroundings } = running.step
  const { log, signal } = surroundings
  let last: Promise<Ended> | undefined
  const start = async (number: number) => {
    if (number > 1) await running.startAnew()
    return await oneTry(running)
  }
  try {
    await pRetry(number => (last = start(number)), {
      ...pauses,
      retries: inputs.retries,
      randomize: true,
      signal,
      shouldRetry: ({ error, attemptNumber, retryDelay }) => {
        if (!(error instanceof Failure) || !error.details.transient) return false
        if (!running.courses.every(canGoOn)) return false
        const what = running.courses.some(({ committed }) => committed > 0) ? 'rest of the' : 'whole'
        log.info(`Try ${attemptNumber} of ${inputs.retries + 1} was rolled back: ${error.message}`)
        log.info(`The ${what} batch is tried again in ${seconds(retryDelay)}.`)
        return true
      },
    })
  } catch (error) {
    // p-retry throws when the step is cancelled; what the last try has come to stays what it is.
    if (!last) throw error
  }
  if (!last) throw new Error('Nothing was tried')
  return last
}

async function oneTry(running: Running): Promise<Ended> {
  const { source, inputs } = running.tried
  const online =
    source.is === 'scripts' ? await source.python.loadOnline(files => source.sources.read(files)) : undefined
  const seconds: SecondConnections = inputs.mode === 'apply' ? await openSecondConnections(running) : new Map()
  try {
    return await inTransactions(running, seconds, (migrations, segmented) =>
      source.is === 'scripts' && online
        ? runThroughGates(running, source, online, migrations, segmented)
        : runMessages(running, migrations),
    )
  } finally {
    await endSecondConnections(seconds)
  }
}

/** Runs the scripts, or the SQL of a plan file. */
type Run = (migrations: Migration[], segmented: SegmentedRun | undefined) => Promise<void>

/** Begins a transaction on each database, with the locks that keep other deploys out; whatever happens, they end. */
async function inTransactions(running: Running, seconds: SecondConnections, run: Run): Promise<Ended> {
  // In segments the second connection has the deploy lock, which the batch's own would lose with its first COMMIT.
  const second = running.isInSegments ? [...seconds.values()][0] : undefined
  if (second) await takeLock(running, second.target, second.client, lockKeys.deploy)
  const begun: Migration[] = []
  let segmented: SegmentedRun | undefined
  const migrate = async (): Promise<Ending> => {
    const beginning = running.courses.map(course => Migration.begin(course, running.step.inputs))
    for (const each of beginning) each.then(migration => begun.push(migration)).catch(() => {})
    await giveWay(running, seconds, allOf(beginning))
    const migrations = await inLockOrder(begun)
    for (const { target, transaction } of migrations) {
      if (!second) await takeLock(running, target, target.client, lockKeys.deploy)
      await transaction.identify()
    }
    const [first] = migrations
    if (second && first) segmented = new SegmentedRun(running.step, first, endOfSegments(running, first, second))
    return await runAndCommit(running, migrations, () => run(migrations, segmented), second)
  }
  let ending: Ending
  try {
    ending = await migrate().finally(() => allOf(begun.map(({ transaction }) => transaction.end())))
  } catch (error) {
    await segmented?.failed()
    throw error
  }
  if (ending === 'rehearsed') return { outcome: ending, failure: null, heads: new Map() }
  if (ending === 'up-to-date') {
    const isOurs = running.courses.some(({ fate }) => fate.is === 'committed')
    const read = running.courses.map(({ bind, plan }) => [bind, { heads: plan.newHeads, reread: true }] as const)
    return { outcome: isOurs ? 'applied' : ending, failure: null, heads: new Map(read) }
  }
  segmented?.applied()
  return await readBehindCommit(running.step, begun, seconds)
}

type Ending = 'up-to-date' | 'rehearsed' | 'applied'

/** With the deploy lock on every database: is it needed still, can it be, run it, verify it, commit it. */
async function runAndCommit(
  running: Running,
  migrations: Migration[],
  run: () => Promise<void>,
  second: SecondConnection | undefined,
): Promise<Ending> {
  const { step } = running
  const { mode } = step.inputs
  if (mode === 'rehearse') {
    step.surroundings.log.info('A rehearsal takes the same locks as an apply, until it is rolled back.')
  }
  const isPending = await allOf(migrations.map(migration => recheckHeads(running, migration)))
  if (!isPending.includes(true)) return 'up-to-date'
  const moving = migrations.filter(({ course }) => course.plan.revisions.length > 0)
  const { isPossible, uncovered } = await canPrepare(
    step,
    moving.map(({ course, target }) => ({ plan: course.plan, target })),
  )
  running.uncovered = uncovered
  await run()
  await allOf(migrations.map(verify))
  await second?.check()
  if (mode === 'rehearse') return 'rehearsed'
  await throwIfCancelled(step)
  const [first, ...others] = moving
  if (first && isPossible) await commitTogether(step, [first, ...others])
  else await commitEach(step, moving)
  return 'applied'
}

/**
 * Reads the heads again, now that nobody else can move them; false where nothing is left to run. Throws a Failure: `drift`
 * where they moved elsewhere, `not-permitted`.
 */
async function recheckHeads({ step, courses }: Running, migration: Migration): Promise<boolean> {
  const { course, target } = migration
  const { versionTable } = course
  const { heads, relation } = await readHeads(target.client, versionTable)
  migration.relation = relation
  const plan = course.rest
  if (course.committed === 0) course.priorHeads = heads
  const which = courses.length > 1 ? `The database ${course.bind}` : 'The database'
  if (sameHeads(heads, plan.newHeads)) {
    if (plan.revisions.length > 0) step.surroundings.log.info(`${which} was brought to the target in the meantime.`)
    course.noteAtTarget()
    return false
  }
  if (!sameHeads(heads, plan.priorHeads)) {
    throw new Failure(
      'drift',
      `${which} has moved from ${nameHeads(plan.priorHeads)} to ${nameHeads(heads)} since the batch was planned.`,
      { advice: 'Run the step again: it will plan from the new heads.' },
    )
  }
  await checkWritable(target.client, versionTable, relation)
  return true
}

/** A segment is verified and committed as the last one is, while the scripts run. */
function endOfSegments({ step }: Running, migration: Migration, second: SecondConnection) {
  const { course, target } = migration
  const mayGoOn = async () => {
    await second.check()
    await throwIfCancelled(step)
  }
  return {
    mayGoOn,
    commit: async (heads: string[]) => {
      await verifySegment(migration, heads)
      await mayGoOn()
      const move = { priorHeads: course.rest.priorHeads, newHeads: heads }
      target.committing = true
      course.sent = move
      try {
        return await commit(step, migration, move)
      } finally {
        target.committing = false
        course.sent = undefined
      }
    },
  }
}
