import { asFailure, Failure } from './failure'
import type { Inputs } from './inputs'
import { type Result, revisionsOf } from './plan/result'
import { loadParser } from './plan/statements'
import { lossOf } from './postgres/connection'
import { notTransactionalFailure, warningsOf } from './report/blame'
import { stateOf } from './report/words'
import { Step, type Surroundings } from './step'
import { transact } from './transact'
import { settleLeftovers } from './two-phase'

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
    if (step.asksDatabases) await settleLeftovers(step)
    await step.plan()
    if (revisionsOf(result).length === 0) result.outcome = 'up-to-date'
    else if (mode === 'preview') {
      result.outcome = 'previewed'
      for (const warning of warningsOf(result)) log.warning(warning)
    } else {
      refuseObstacles(result)
      result.commentUrl = await publisher.comment(result)
      result.outcome = await transact(step)
    }
    for (const { state } of step.targets) if (state.plan) state.newHeads = state.plan.newHeads
  } catch (error) {
    // A COMMIT that was sent is finished, cancelled or not.
    const cancelled = signal.aborted && !step.committing
    const loss = step.targets.map(({ client }) => client && lossOf(client, error)).find(Boolean)
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
function refuseObstacles({ databases }: Result): void {
  const [first, ...more] = databases.flatMap(({ obstacles = [] }) => obstacles)
  if (first) throw notTransactionalFailure([first, ...more])
}
