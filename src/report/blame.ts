import { Failure, type Place, type StatementFailure } from '../failure'
import type { Plan } from '../plan/plan'
import { nameHeads, plannedOf, type Result } from '../plan/result'
import { isAboutTheTransaction, type Obstacle } from '../plan/transactional'
import { halvesOf } from './segments'
import { count } from './words'

interface Told {
  message: string
  revision: string | null
  place: Place | undefined
  fromDatabase: boolean
}

/** The last statement that PostgreSQL refused. */
interface Refused {
  sql: string
  error: Omit<StatementFailure, 'sql'> | null
}

/**
 * Puts together what Python said of the failed script and what PostgreSQL said of the failed statement; `blockers` are
 * the sessions that it waited for, in words.
 */
export function failureOf(
  { message, revision, place, fromDatabase }: Told,
  last: Refused | undefined,
  plan: Plan,
  { blockers = [], inSegments = false }: { blockers?: string[]; inSegments?: boolean } = {},
): Failure {
  const script = plan.revisions.find(each => each.id === revision)
  const name = script ? `${script.id}${script.message && ` (${script.message})`}` : revision
  const subject = name === null ? 'env.py' : `Revision ${name}`
  const at = { ...(revision && { revision }), ...(place && { place }) }
  const refused = fromDatabase ? last : undefined
  if (!refused?.error) {
    const quotes = [{ of: 'python', text: message } as const]
    return new Failure('migration-failed', sentence(`${subject} failed: ${message}`), { ...at, quotes })
  }
  const { sql, error } = refused
  const details = { ...at, statement: { sql, ...error } }
  if (notTransactional.has(error.code)) {
    return new Failure(
      'not-transactional',
      sentence(
        `${subject} holds a statement that PostgreSQL does not run in a transaction with others: ${error.message}`,
      ),
      { ...details, advice: waysOut({ inSegments, ofTheTransaction: isAboutTheTransaction(sql, error.message) }) },
    )
  }
  if (isTransient(error.code)) {
    const waitedFor = blockers.length > 0 ? ` It waited for ${blockers.join(' and for ')}.` : ''
    return new Failure('lock-timeout', sentence(`${subject} did not get a lock: ${error.message}`) + waitedFor, {
      ...details,
      transient: true,
      quotes: blockers.map(text => ({ of: 'session', text })),
      advice: 'Run the step again when the table is less busy, or raise `lock-timeout` or `retries`.',
    })
  }
  return new Failure('migration-failed', sentence(`${subject} failed: ${error.message}`), {
    ...details,
    advice: `Mend the script and run the step again: it will start from ${nameHeads(plan.priorHeads)}, as this one did.`,
  })
}

/** Says of statements that were found before anything ran that they cannot be part of one transaction. */
export function notTransactionalFailure(
  [first, ...more]: [Obstacle, ...Obstacle[]],
  { inSegments = false } = {},
): Failure {
  const { revision, line, text, why, ofTheTransaction } = first
  const name = `${revision.id}${revision.message && ` (${revision.message})`}`
  const others = more.length > 0 ? ` So do ${count(more.length, 'other statement')} of the batch.` : ''
  return new Failure(
    'not-transactional',
    `Revision ${name} holds a statement that PostgreSQL does not run in a transaction with others: ${sentence(why)}${others}`,
    {
      revision: revision.id,
      place: { file: revision.path, line },
      quotes: [{ of: 'value', text: why }],
      statement: { sql: text, code: '', message: '' },
      advice: waysOut({ inSegments, ofTheTransaction }),
    },
  )
}

/** Says that a batch which needs segments cannot be rolled back as a whole, as a rehearsal is. */
export function notRehearsableFailure(obstacles: [Obstacle, ...Obstacle[]]): Failure {
  const { reason, message, details } = notTransactionalFailure(obstacles)
  return new Failure(reason, `${message} A rehearsal is rolled back, and this could not be undone.`, {
    ...details,
    advice: 'Rehearse up to the revision before it (input `revision`), or apply the batch to a copy of the database.',
  })
}

/** What a preview warns of: statements that an apply would refuse, and words in scripts without SQL that may mean one. */
export function warningsOf(result: Pick<Result, 'databases'>): string[] {
  const databases = plannedOf(result)
  const obstacles = databases.flatMap(({ forecast }) =>
    forecast.obstacles.map(obstacle => ({ ...obstacle, inSegments: forecast.division !== null })),
  )
  const revisions = databases.flatMap(({ plan }) => plan.revisions)
  const at = (path: string, line: number | null) => `${path}${line === null ? '' : `:${line}`}`
  const refused = obstacles.map(
    ({ revision, line, why, ...which }) =>
      `An apply will refuse revision ${revision.id}: ${why} (${at(revision.path, line)}). ${waysOut(which)}`,
  )
  const mentioned = revisions.flatMap(({ id, path, mentions = [] }) =>
    mentions.map(
      ({ line, text }) =>
        `Revision ${id} cannot be shown as SQL and mentions ${text} (${at(path, line)}): an apply fails, with everything rolled back, if PostgreSQL does not run that in a transaction.`,
    ),
  )
  return [...refused, ...halvesOf(result), ...mentioned]
}

/** What to do about a statement that cannot be in a transaction; `inSegments`: the batch may be several already. */
function waysOut({ inSegments = false, ofTheTransaction = false }): string {
  if (ofTheTransaction)
    return 'The batch runs in a transaction of ours, in READ COMMITTED, which has begun before: take the statement out. Where rows have to stay as they are while the script reads them, it can lock them (`LOCK TABLE`, `SELECT … FOR UPDATE`).'
  return inSegments
    ? 'Let the script run it in `op.get_context().autocommit_block()`. A new enum value is added there too, or in an earlier revision; where the preview does not see that a script uses it, apply the batch up to that one first (input `revision`).'
    : 'Let the script run it in `op.get_context().autocommit_block()` and set `segments: true`: the batch is then more than one transaction, and can stop between them. Or use a form that PostgreSQL runs in a transaction (`CREATE INDEX` without `CONCURRENTLY`, for one), or run that migration outside of this action.'
}

/** Ends with a full stop, whether or not the error's own words do. */
const sentence = (text: string): string => (/[.!?…]$/.test(text) ? text : `${text}.`)

/** active_sql_transaction, invalid_transaction_termination, unsafe_new_enum_value_usage, object_in_use. */
const notTransactional = new Set(['25001', '2D000', '55P04', '55006'])

/** lock_not_available, deadlock_detected, serialization_failure. */
const waited = new Set(['55P03', '40P01', '40001'])

/** Whether an SQLSTATE says that another session was in the way, so that the same batch may succeed a little later. */
export const isTransient = (code = ''): boolean => waited.has(code)
