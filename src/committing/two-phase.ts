import type { Client } from 'pg'
import { Failure, messageOf } from '../failure'
import { allOf, type Step } from '../opening/surroundings'
import { named as by, lockKeys, underCommitLock } from '../postgres/advisory-locks'
import { isServerError } from '../postgres/connection'
import { statusOf } from '../postgres/lost-commit'
import { keepAsking } from '../postgres/patience'
import { type Decision, finish, finishingIn, gidOf, isBusy, isPrepared } from '../postgres/prepared'
import type { Migration } from '../running/migration'
import { patience } from './commit'

/** One database of a commit in two phases, and the name of its prepared transaction. */
interface Participant {
  migration: Migration
  gid: string
}

/**
 * Commits all or none: every transaction is prepared, the first one before the others, so that its id is on disk as soon
 * as any other is; COMMIT PREPARED on the first is the decision, and then follows on the rest. Meanwhile a second lock
 * on the first database, on a connection of its own, tells other runs that somebody is at it.
 * Throws a Failure; whatever a crash leaves behind is settled by a later run.
 */
export async function commitTogether(step: Step, migrations: [Migration, ...Migration[]]): Promise<void> {
  const { log, signal } = step.surroundings
  const [{ target, transaction }] = migrations
  const decision: Decision = { ...(await target.identify()), transaction: transaction.id }
  const named = (migration: Migration, index: number): Participant => ({ migration, gid: gidOf(decision, index) })
  const first = named(migrations[0], 0)
  const others = migrations.slice(1).map((migration, index) => named(migration, index + 1))
  const all = [first, ...others]
  const asked: Participant[] = []
  const prepare = async (participant: Participant) => {
    const { migration, gid } = participant
    asked.push(participant)
    try {
      await migration.transaction.prepare(gid)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      const { bind } = migration
      throw new Failure(error.reason, `${bind}: ${error.message}`, { ...error.details, bind })
    }
  }
  const commit = async () => {
    log.info(`Committing in two phases: ${first.gid} in ${first.migration.bind} decides for all.`)
    for (const { target, course } of migrations) {
      target.committing = true
      course.sent = course.rest
    }
    try {
      await prepare(first)
      await allOf(others.map(prepare))
    } catch (error) {
      const left = await undo(step, asked)
      if (error instanceof Failure && left === '') throw error
      if (signal.aborted) {
        throw new Failure('cancelled', `The step was cancelled before the commit was decided.${left}`, { cause: error })
      }
      throw new Failure('commit-failed', `Not every database could be prepared: ${messageOf(error)}.${left}`, {
        advice: 'Run the step again.',
        cause: error,
      })
    }
    await decide(step, first, all)
    await follow(step, first, others)
    for (const { migration } of all) migration.course.fate = { is: 'committed' }
    return true
  }
  if (await target.aside(client => underCommitLock(client, commit))) return
  const holder = await target.holderOf(lockKeys.commit)
  throw new Failure('lock-timeout', `Another run is committing these databases${by(holder)}.`, { transient: true })
}

/** COMMIT PREPARED on the first database. Throws a Failure, after everything was rolled back or when it is not known. */
async function decide(step: Step, first: Participant, all: Participant[]): Promise<void> {
  const { gid } = first
  const { target, transaction } = first.migration
  const { id } = transaction
  const { log, signal } = step.surroundings
  let how: 'COMMIT' | 'ROLLBACK' = 'COMMIT'
  let why: unknown
  const end = async (client: Client): Promise<boolean> => {
    try {
      return await finish(client, how, gid)
    } catch (error) {
      why = error
      if (isServerError(error) && !isBusy(error)) how = 'ROLLBACK'
      throw error
    }
  }
  if (await end(target.client).catch(() => false)) return
  if (!isServerError(why)) {
    log.info(
      'There was no answer to the first COMMIT PREPARED, or a strange one; asking the database what became of it.',
    )
  }
  const committed = await keepAsking({ patience, signal }, () =>
    target.aside(async client => {
      if ((await isPrepared(client, gid, id)) && (await end(client))) return how === 'COMMIT'
      const status = await statusOf(client, id)
      return status === 'in progress' || status === null ? undefined : status === 'committed'
    }),
  )
  if (committed) return
  if (committed === undefined) {
    for (const { migration } of all) migration.course.leaveInDoubt()
    throw new Failure('commit-failed', 'The databases are prepared, and the first one does not say what it decided.', {
      advice: `Run the step again when it can be reached; it settles this. By hand: ${byHand(first, all)}`,
      cause: why,
    })
  }
  const left = await undo(step, all)
  const told = why ? messageOf(why) : 'somebody else has rolled it back'
  throw new Failure('commit-failed', `The first COMMIT PREPARED was not carried out: ${told}.${left}`, {
    advice: 'Run the step again.',
    cause: why,
  })
}

/** COMMIT PREPARED on the others, after the decision. Throws a Failure where one does not follow. */
async function follow(step: Step, first: Participant, others: Participant[]): Promise<void> {
  const { signal } = step.surroundings
  const behind: Participant[] = []
  const undone: Participant[] = []
  const follows = async (client: Client, { migration, gid }: Participant) => {
    const { id } = migration.transaction
    try {
      if (await finish(client, 'COMMIT', gid)) return true
    } catch (error) {
      // The name is free behind the commit, and somebody else may have taken it.
      if (!isServerError(error) || (await isPrepared(client, gid, id))) throw error
    }
    // Another run may have done it; so may a person, and otherwise.
    const status = await statusOf(client, id)
    return status === 'in progress' ? undefined : status === 'committed'
  }
  await allOf(
    others.map(async participant => {
      const { target } = participant.migration
      const again = () => target.aside(client => follows(client, participant))
      const followed =
        (await follows(target.client, participant).catch(() => undefined)) ??
        (await keepAsking({ patience, signal }, again))
      if (followed === undefined) behind.push(participant)
      if (followed === false) undone.push(participant)
    }),
  )
  if (behind.length + undone.length === 0) return
  for (const { migration } of [first, ...others]) migration.course.fate = { is: 'committed' }
  for (const { migration } of undone) migration.course.fate = { is: 'rolled-back' }
  for (const { migration } of behind) migration.course.leaveInDoubt()
  if (undone.length > 0) {
    throw new Failure(
      'commit-failed',
      `The commit was decided, and in ${namesOf(undone)} somebody has rolled it back.`,
      {
        advice: 'Run the step again: it applies the batch there.',
      },
    )
  }
  throw new Failure('commit-failed', `The commit is decided, and ${namesOf(behind)} could not be told.`, {
    advice: `Run the step again; it settles this. By hand: ${statements('COMMIT', behind)}.`,
  })
}

const namesOf = (participants: Participant[]): string =>
  participants.map(({ migration }) => migration.bind).join(' and ')

/** Rolls back what was prepared, or is about to be; says what could not be. */
async function undo(step: Step, participants: Participant[]): Promise<string> {
  const { signal } = step.surroundings
  const left = await allOf(
    participants.map(async ({ migration, gid }) => {
      const { target, transaction, bind } = migration
      const done = await keepAsking({ patience, signal }, () =>
        target.aside(async client => {
          const { id } = transaction
          if ((await isPrepared(client, gid, id)) && (await finish(client, 'ROLLBACK', gid))) return true
          // The server may still be at it: its session ends by being prepared or rolled back.
          return (await statusOf(client, id)) === 'in progress' ? undefined : true
        }),
      )
      return done ? '' : ` In ${bind} a prepared transaction may be left, for a later run to roll back.`
    }),
  )
  return left.join('')
}

const byHand = ({ migration }: Participant, all: Participant[]): string =>
  `SELECT pg_xact_status('${migration.transaction.id}'::xid8) in ${migration.bind}; where that is committed, ${statements('COMMIT', all)}, else ${statements('ROLLBACK', all)}.`

const statements = (how: 'COMMIT' | 'ROLLBACK', participants: Participant[]): string =>
  participants.map(({ migration, gid }) => finishingIn(migration.bind, how, gid)).join(', ')
