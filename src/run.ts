import { requireDigest } from './expected'
import { asFailure, Failure } from './failure'
import type { Inputs } from './inputs'
import { nameEditedOlder } from './older'
import { sameHeads } from './plan/plan'
import { nameHeads, type Result, revisionsOf, stands } from './plan/result'
import { loadParser } from './plan/statements'
import { planBatch, renderBatch } from './planning'
import { lossOf } from './postgres/connection'
import { notRehearsableFailure, notTransactionalFailure, warningsOf } from './report/blame'
import { withoutConstants } from './report/discretion'
import { goingOn, halvesOf } from './report/segments'
import { stateOf } from './report/state'
import { requireReview } from './review'
import { Step, type Surroundings } from './step'
import { transact } from './transact'
import { canPrepare } from './two-phase'

/**
 * The story: resolve, decide whether it may run, dry run, publish, run in one transaction, verify, commit, publish. What
 * comes of it is in the result, a failure too, with the heads as the databases have them then.
 */
export async function run(inputs: Inputs, result: Result, surroundings: Surroundings): Promise<void> {
  const { publisher, log, signal, stuck } = surroundings
  const step = new Step(inputs, surroundings, result)
  try {
    await Promise.race([carryOut(step), stuck])
    // What came to its end all the same stays what it is.
    const fault = faultIn(signal)
    if (fault) result.failure = fault
  } catch (error) {
    // A COMMIT that was sent is finished, cancelled or not.
    const cancelled = signal.aborted && !step.committing
    const loss = step.targets.map(({ client }) => client && lossOf(client, error)).find(Boolean)
    result.failure =
      faultIn(signal) ?? (cancelled ? new Failure('cancelled', 'The step was cancelled.') : (loss ?? asFailure(error)))
    if (error === faultIn(signal)) leaveInDoubt(step)
    if (result.databases.some(stands)) result.outcome ??= 'partly-applied'
    result.outcome ??= step.started ? 'rolled-back' : 'refused'
    await step.rereadHeads()
    result.failure = goingOn(driftOf(result) ?? result.failure, result)
  } finally {
    await step.end()
  }
  result.commentUrl = (await publisher.comment(result)) || result.commentUrl || ''
  await publisher.summarize(result)
  if (result.commentUrl) log.info(`Comment: ${result.commentUrl}`)
  log.info(`Outcome: ${result.outcome}. ${stateOf(result)}`.trimEnd())
}

/** The stages, in their order; throws what ends them before. */
async function carryOut(step: Step): Promise<void> {
  const { inputs, result } = step
  const { publisher, log } = step.surroundings
  const { mode } = inputs
  // A warning is an annotation, which the pull request shows.
  const shown = () => (inputs.hideLiterals ? withoutConstants(result) : result)
  await step.checkTrust()
  // Python takes longest to start, so it goes first; everything else is done while the app imports.
  step.startPython()
  if (step.asksDatabases) await step.open()
  await loadParser()
  await planBatch(step)
  const pending = revisionsOf(result).length > 0
  if (pending && inputs.expectedDigest) {
    await requireDigest(result, inputs.expectedDigest, () => publisher.standing())
  }
  if (pending && mode !== 'preview') await requireReview(step)
  if (pending) await nameEditedOlder(step)
  // Until here no script was imported.
  await renderBatch(step)
  if (!pending) result.outcome = 'up-to-date'
  else if (mode === 'preview') {
    result.outcome = 'previewed'
    if (step.asksDatabases) await canPrepare(step)
    for (const warning of warningsOf(shown())) log.warning(warning)
  } else {
    refuseObstacles(result)
    for (const warning of halvesOf(shown())) log.warning(warning)
    result.commentUrl = await publisher.comment(result)
    result.outcome = await transact(step)
  }
  for (const { state } of step.targets) if (state.plan) state.newHeads = state.plan.newHeads
}

/** A fault has come between a COMMIT and what is known of it. */
function leaveInDoubt({ result, targets }: Step): void {
  for (const { state, committing } of targets) {
    if (!committing || state.outcome) continue
    result.outcome = state.outcome = 'in-doubt'
    delete state.newHeads
  }
}

/** The fault of ours that has stopped the step; a cancellation is none. */
const faultIn = ({ aborted, reason }: AbortSignal): Failure | undefined =>
  aborted && reason instanceof Failure ? reason : undefined

/** Throws a Failure `not-transactional` where a statement of the batch cannot be part of one transaction. */
function refuseObstacles({ databases, mode }: Result): void {
  const [first, ...more] = databases.flatMap(({ obstacles = [] }) => obstacles)
  if (!first) return
  const divisions = databases.flatMap(({ division }) => division ?? [])
  if (mode === 'rehearse' && divisions.some(each => each.obstacles.length === 0)) {
    throw notRehearsableFailure([first, ...more])
  }
  throw notTransactionalFailure([first, ...more], { inSegments: divisions.length > 0 })
}

/** The batch failed while somebody moved the heads who does not take the deploy lock, such as a raw `flask db upgrade`. */
function driftOf({ outcome, failure, databases }: Result): Failure | undefined {
  if (outcome !== 'rolled-back' || failure?.reason !== 'migration-failed') return undefined
  for (const { priorHeads, newHeads, reread } of databases) {
    if (!reread || !priorHeads || !newHeads || sameHeads(priorHeads, newHeads)) continue
    const moved = `The database was moved from ${nameHeads(priorHeads)} to ${nameHeads(newHeads)} while the batch ran.`
    return new Failure('drift', `${moved} ${failure.message}`, {
      ...failure.details,
      advice:
        'Let nobody else migrate this database at the same time, and run the step again: it will plan from the new heads.',
    })
  }
  return undefined
}
