import { Failure } from '../failure'
import type { Step } from '../opening/surroundings'
import { sameHeads } from '../plan/plan'
import { nameHeads } from '../plan/result'
import { nameOf } from '../postgres/heads'
import { settleLostCommit } from '../postgres/lost-commit'
import type { Course, Move } from '../running/course'
import type { Migration } from '../running/migration'

/** How long a database is asked what became of a COMMIT that got no answer, in milliseconds. */
export const patience = 60_000

/** Commits one database after another. Throws a Failure `commit-failed`; what became of each is noted. */
export async function commitEach(step: Step, migrations: Migration[]): Promise<void> {
  // What was begun is finished, also when the step is cancelled between two of them.
  for (const { target, course } of migrations) {
    target.committing = true
    course.sent = course.rest
  }
  for (const [index, migration] of migrations.entries()) {
    try {
      await commit(step, migration, migration.course.rest)
      migration.course.fate = { is: 'committed' }
    } catch (error) {
      // Of one alone it is what became of the step, which may have committed segments before.
      const undone = migrations.length > 1 ? migrations.slice(index) : []
      for (const { course } of undone) if (course.fate.is === 'open') course.fate = { is: 'rolled-back' }
      throw error
    }
  }
}

/**
 * Commits what one database has open. Resolves to whether PostgreSQL has answered; if not, the connection is gone and it
 * was found out that it has committed. Throws a Failure `commit-failed`; it is in doubt where nobody knows.
 */
export async function commit(
  { surroundings }: Step,
  { course, target, transaction, relation }: Migration,
  { priorHeads, newHeads }: Move,
): Promise<boolean> {
  const { applicationName, signal, log } = surroundings
  const { versionTable } = course
  try {
    await transaction.commit()
    return true
  } catch (error) {
    if (error instanceof Failure) throw error
    log.info('The answer to the COMMIT was lost; asking the database what became of it.')
    const { id } = transaction
    const about = { database: target.database, applicationName, versionTable, relation, id, priorHeads, newHeads }
    const settled = await settleLostCommit({ ...about, patience, signal })
    if (settled.decision === 'committed') return false
    if (settled.decision === 'rolled-back') {
      throw new Failure('commit-failed', 'The connection broke during the COMMIT, and PostgreSQL has rolled back.', {
        advice: 'Run the step again.',
      })
    }
    course.sent = { priorHeads, newHeads }
    course.leaveInDoubt()
    throw new Failure('commit-failed', `The COMMIT was sent, and no answer came: ${settled.why}.`, {
      advice: `When the database can be reached again, ask it: SELECT version_num FROM ${nameOf(versionTable)}; it is final as soon as SELECT pg_catalog.pg_xact_status('${id}'::xid8); does not say “in progress”. ${meaningOf(priorHeads, newHeads, course)}`,
    })
  }
}

function meaningOf(priorHeads: string[], newHeads: string[], { plan, segments }: Course): string {
  if (sameHeads(priorHeads, newHeads)) return '“committed” then means that what ran before is there.'
  const isPart = segments.length > 0 && !sameHeads(newHeads, plan.newHeads)
  const what = isPart ? 'this part of the batch' : 'the whole batch'
  return `Then ${nameHeads(newHeads)} means that ${what} is there, ${nameHeads(priorHeads)} that nothing of it is.`
}
