import { Failure } from './failure'
import { sameHeads } from './plan/plan'
import { type DatabaseState, nameHeads } from './plan/result'
import { nameOf } from './postgres/heads'
import { settle } from './postgres/settle'
import type { Step } from './step'
import type { Target } from './target'

/** How long a database is asked what became of a COMMIT that got no answer, in milliseconds. */
export const patience = 60_000

/**
 * Commits one database after another. Throws a Failure `commit-failed`; the outcome is then that of each database, and
 * `partly-applied` where some had been committed.
 */
export async function commitEach(step: Step, targets: Target[]): Promise<void> {
  const { result } = step
  // What was begun is finished, also when the step is cancelled between two of them.
  for (const target of targets) target.committing = true
  for (const [index, target] of targets.entries()) {
    try {
      await commit(step, target, target.rest)
    } catch (error) {
      for (const committed of targets.slice(0, index)) committed.state.outcome = 'applied'
      // Of one alone it is that of the step, which may have committed segments before.
      if (targets.length > 1) for (const undone of targets.slice(index)) undone.state.outcome ??= 'rolled-back'
      if (index > 0 && target.state.outcome !== 'in-doubt') result.outcome = 'partly-applied'
      throw error
    }
  }
}

/** What a COMMIT moves. */
interface Move {
  priorHeads: string[]
  newHeads: string[]
}

/**
 * Commits what one database has open. Resolves to whether PostgreSQL has answered; if not, the connection is gone and it
 * was found out that it has committed. Throws a Failure `commit-failed`; the outcome is `in-doubt` where nobody knows.
 */
export async function commit(step: Step, target: Target, { priorHeads, newHeads }: Move): Promise<boolean> {
  const { surroundings, result } = step
  const { transaction, versionTable, relation, state } = target
  try {
    await transaction.commit()
    return true
  } catch (error) {
    if (error instanceof Failure) throw error
    surroundings.log.info('The answer to the COMMIT was lost; asking the database what became of it.')
    const { id } = transaction
    const { applicationName, signal } = surroundings
    const about = { database: target.database!, applicationName, versionTable, relation, id, priorHeads, newHeads }
    const settled = await settle({ ...about, patience, signal })
    if (settled.decision === 'committed') return false
    if (settled.decision === 'rolled-back') {
      throw new Failure('commit-failed', 'The connection broke during the COMMIT, and PostgreSQL has rolled back.', {
        advice: 'Run the step again.',
      })
    }
    result.outcome = state.outcome = 'in-doubt'
    state.doubt = { from: priorHeads, to: newHeads }
    delete state.newHeads
    throw new Failure('commit-failed', `The COMMIT was sent, and no answer came: ${settled.why}.`, {
      advice: `When the database can be reached again, ask it: SELECT version_num FROM ${nameOf(versionTable)}; it is final as soon as SELECT pg_catalog.pg_xact_status('${id}'::xid8); does not say “in progress”. ${meaningOf(priorHeads, newHeads, state)}`,
    })
  }
}

function meaningOf(priorHeads: string[], newHeads: string[], { plan, segments }: DatabaseState): string {
  if (sameHeads(priorHeads, newHeads)) return '“committed” then means that what ran before is there.'
  const what = segments && !sameHeads(newHeads, plan!.newHeads) ? 'this part of the batch' : 'the whole batch'
  return `Then ${nameHeads(newHeads)} means that ${what} is there, ${nameHeads(priorHeads)} that nothing of it is.`
}
