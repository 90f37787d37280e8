import { Failure, messageOf } from '../failure'
import { sameHeads } from '../plan/plan'
import { nameHeads } from '../plan/result'
import { isServerError } from '../postgres/connection'
import { readHeadsAgain } from '../postgres/heads'
import { isTransient } from '../report/blame'
import type { Course } from '../running/course'
import type { Migration } from '../running/migration'

/** Everything that has to be true before a COMMIT may be sent. Throws a Failure. */
export async function verify(migration: Migration): Promise<void> {
  const { newHeads } = migration.course.plan
  const cursors = await checkTransaction(migration)
  for (const cursor of cursors) await exhaust(migration, cursor)
  if (cursors.length > 0) await checkTransaction(migration)
  await clear(migration)
  const heads = await headsBehindScripts(migration)
  if (sameHeads(heads, newHeads)) return
  throw new Failure(
    'migration-failed',
    `Python ended without an error, but the heads are ${nameHeads(heads)} and not ${nameHeads(newHeads)}.`,
    {
      advice:
        'Check that env.py runs the migrations, on a connection whose transaction it commits; where it sets a search_path, name the schema of its version table in version-table-schema.',
    },
  )
}

/** The same before a COMMIT while the scripts run, which leaves the heads at `expected`. Throws a Failure. */
export async function verifySegment(migration: Migration, expected: string[]): Promise<void> {
  await checkTransaction(migration)
  // The search path, too, is a script's. Temporary relations stay, as they do behind any COMMIT.
  await migration.transaction.clearSettings()
  const heads = await headsBehindScripts(migration)
  if (sameHeads(heads, expected)) return
  throw new Failure(
    'migration-failed',
    `A COMMIT is needed where the heads have to be ${nameHeads(expected)}, and they are ${nameHeads(heads)}.`,
    { advice: 'Check that no script writes into the version table.' },
  )
}

/** Reads the heads; a version table that the scripts have made is known from then on. */
async function headsBehindScripts(migration: Migration): Promise<string[]> {
  const { transaction, course } = migration
  const { heads, relation } = await readHeadsAgain(transaction.client, course.versionTable, migration.relation)
  migration.relation ??= relation
  return heads
}

const inDatabase = ({ bind, several }: Course): string => (several ? ` in the database ${bind}` : '')

/** Runs now what the COMMIT would: the rest of a cursor's query. */
async function exhaust({ transaction, course }: Migration, cursor: string): Promise<void> {
  try {
    await transaction.exhaust(cursor)
  } catch (error) {
    if (!isServerError(error)) throw error
    const told = `The cursor ${cursor} WITH HOLD fails as its query is run to its end${inDatabase(course)}: ${messageOf(error)}.`
    throw new Failure('migration-failed', told, {
      advice: 'Close the cursor in the migration, or mend its query: PostgreSQL runs it to its end at the COMMIT.',
      ...(course.several && { bind: course.bind }),
      cause: error,
    })
  }
}

async function clear({ transaction, course }: Migration): Promise<void> {
  try {
    await transaction.clearSession()
  } catch (error) {
    if (!isServerError(error)) throw error
    const told = `What the scripts have left in the session could not be cleared${inDatabase(course)}: ${messageOf(error)}.`
    throw new Failure('migration-failed', told, {
      advice: 'Drop temporary tables at the end of the migration that makes them.',
      ...(course.several && { bind: course.bind }),
      cause: error,
    })
  }
}

/** Resolves to the cursors WITH HOLD that are open. */
async function checkTransaction({ transaction, course }: Migration): Promise<string[]> {
  try {
    await transaction.checkConstraints()
  } catch (error) {
    if (!isServerError(error)) throw error
    if (isTransient(error.code)) {
      const told = `The check of the deferred constraints met another session: ${messageOf(error)}.`
      throw new Failure('lock-timeout', told, { transient: true, advice: 'Run the step again.', cause: error })
    }
    throw new Failure(
      'migration-failed',
      `A deferred constraint is violated${inDatabase(course)}: ${messageOf(error)}.`,
      {
        advice: 'Mend the data in the migration before the constraint is checked.',
        ...(course.several && { bind: course.bind }),
        cause: error,
      },
    )
  }
  return await transaction.checkIdentity()
}
