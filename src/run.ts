import { asFailure, Failure } from './failure'
import type { Inputs } from './inputs'
import type { Result } from './plan/result'
import { loadParser } from './plan/statements'
import { lossOf } from './postgres/connection'
import { notTransactionalFailure, warningsOf } from './report/blame'
import { stateOf } from './report/words'
import { Step, type Surroundings } from './step'
import { transact } from './transact'

/**
 * The story: resolve, dry run, publish, run in one transaction, verify, commit, publish.
 * Never throws: a failure is part of the result, with the heads as the database has them then.
 */
export async function run(inputs: Inputs, surroundings: Surroundings): Promise<Result> {
  const { publisher, log, signal } = surroundings
  const { mode, direction, label, fromRevision } = inputs
  // Heads that the user names go before what the database says, so it is not asked.
  const database = fromRevision ? undefined : inputs.database
  const result: Result = { mode, direction, label, database: database?.name ?? '', runs: [] }
  const step = new Step(inputs, surroundings, result)
  try {
    await step.checkTrust()
    // Python takes longest to start, so it goes first; everything else is done while the app imports.
    step.startPython()
    if (database) await step.open()
    await loadParser()
    const plan = await step.plan()
    if (plan.revisions.length === 0) result.outcome = 'up-to-date'
    else if (mode === 'preview') {
      result.outcome = 'previewed'
      for (const warning of warningsOf(plan, result.obstacles)) log.warning(warning)
    } else {
      refuseObstacles(result)
      result.commentUrl = await publisher.comment(result)
      result.outcome = await transact(step, plan)
    }
    result.newHeads = plan.newHeads
  } catch (error) {
    // A COMMIT that was sent is finished, cancelled or not.
    const cancelled = signal.aborted && !step.committing
    const loss = step.client && lossOf(step.client, error)
    result.failure = cancelled ? new Failure('cancelled', 'The step was cancelled.') : (loss ?? asFailure(error))
    result.outcome ??= step.started ? 'rolled-back' : 'refused'
    await step.rereadHeads()
  } finally {
    await step.end()
  }
  result.commentUrl = (await publisher.comment(result)) || result.commentUrl || ''
  await publisher.summarize(result)
  log.info(`Outcome: ${result.outcome}. ${stateOf(result)}`.trimEnd())
  return result
}

/** Throws a Failure `not-transactional` where a statement of the batch cannot be part of one transaction. */
function refuseObstacles({ obstacles: [first, ...more] = [] }: Result): void {
  if (first) throw notTransactionalFailure([first, ...more])
}
