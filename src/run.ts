import { requireDigest } from './expected'
import { asFailure, Failure } from './failure'
import type { Inputs } from './inputs'
import { sameHeads } from './plan/plan'
import { nameHeads, type Result, revisionsOf, stands } from './plan/result'
import { loadParser } from './plan/statements'
import { planBatch } from './planning'
import { lossOf } from './postgres/connection'
import { notRehearsableFailure, notTransactionalFailure, warningsOf } from './report/blame'
import { goingOn, halvesOf } from './report/segments'
import { stateOf } from './report/words'
import { requireReview } from './review'
import { Step, type Surroundings } from './step'
import { transact } from './transact'
import { canPrepare } from './two-phase'

/**
 * The story: resolve, dry run, publish, run in one transaction, verify, commit, publish.
 * Never throws: a failure is part of the result, with the heads as the databases have them then.
 */
export async function run(inputs: Inputs, surroundings: Surroundings): Promise<Result> {
  const { publisher, log, signal } = surroundings
  const { mode, direction, label } = inputs
  const result: Result = { mode, direction, label, databases: [] }
  const step = new Step(inputs, surroundings, result)
  try {
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
    if (!pending) result.outcome = 'up-to-date'
    else if (mode === 'preview') {
      result.outcome = 'previewed'
      if (step.asksDatabases) await canPrepare(step)
      for (const warning of warningsOf(result)) log.warning(warning)
    } else {
      refuseObstacles(result)
      for (const warning of halvesOf(result)) log.warning(warning)
      await requireReview(step)
      result.commentUrl = await publisher.comment(result)
      result.outcome = await transact(step)
    }
    for (const { state } of step.targets) if (state.plan) state.newHeads = state.plan.newHeads
  } catch (error) {
    // A COMMIT that was sent is finished, cancelled or not.
    const cancelled = signal.aborted && !step.committing
    const loss = step.targets.map(({ client }) => client && lossOf(client, error)).find(Boolean)
    result.failure = cancelled ? new Failure('cancelled', 'The step was cancelled.') : (loss ?? asFailure(error))
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
  return result
}

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
