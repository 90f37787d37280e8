import type { Client } from 'pg'
import { patience } from './commit'
import { Failure, messageOf } from './failure'
import { lockKeys, named, tryLock } from './postgres/advisory-locks'
import { isServerError } from './postgres/connection'
import { keepAsking } from './postgres/patience'
import { type Decision, finish, finishing, gidOf, isBusy, isPrepared, preparedSlots } from './postgres/prepared'
import { statusOf } from './postgres/settle'
import { noTransactionTimeout } from './postgres/transaction'
import { allOf, type Step } from './step'
import type { Target } from './target'

/**
 * Whether the batch can be committed in two phases: it moves several databases, and every server has a place for a
 * prepared transaction left. Throws a Failure `not-permitted` where the workflow requires it.
 */
export async function canPrepare({ inputs, surroundings, result, targets: all }: Step): Promise<boolean> {
  const targets = all.filter(({ state }) => state.plan!.revisions.length > 0)
  if (targets.length < 2) return false
  const lacking = inputs.twoPhase === 'never' ? 'two-phase is never' : await lackingSlots(targets)
  if (!lacking) return true
  if (inputs.twoPhase === 'require') {
    const refusal = `Two-phase commit is required and not possible: ${lacking}.`
    if (inputs.mode !== 'preview') {
      throw new Failure('not-permitted', refusal, {
        advice: 'Set max_prepared_transactions on the server (it needs a restart), or set two-phase: auto.',
      })
    }
    result.uncovered = `An apply will be refused. ${refusal}`
  } else {
    result.uncovered = `The databases are committed one after another (${lacking}): a crash between two of these commits is not covered.`
  }
  surroundings.log.info(result.uncovered)
  return false
}

async function lackingSlots(targets: Target[]): Promise<string> {
  await allOf(targets.map(target => target.identify()))
  for (const target of targets) {
    const { most, taken } = await preparedSlots(target.client!)
    const needed = targets.filter(other => other.identity.system === target.identity.system).length
    if (most === 0) return `max_prepared_transactions is 0 on the server of ${target.state.bind}`
    if (most - taken < needed) {
      return `of ${most} max_prepared_transactions on the server of ${target.state.bind}, ${taken} are taken`
    }
  }
  return ''
}

/**
 * Commits all or none: every transaction is prepared, the first one before the others, so that its id is on disk as soon
 * as any other is; COMMIT PREPARED on the first is the decision, and then follows on the rest. Meanwhile a second lock
 * on the first database, on a connection of its own, tells other runs that somebody is at it.
 * Throws a Failure; whatever a crash leaves behind is settled by a later run.
 */
export async function commitTogether(step: Step, targets: Target[]): Promise<void> {
  const { log, signal } = step.surroundings
  const [first, ...others] = targets as [Target, ...Target[]]
  const decision: Decision = { ...first.identity, transaction: first.transaction.id }
  const gids = new Map(targets.map((target, index) => [target, gidOf(decision, index)]))
  const asked: Target[] = []
  const prepare = async (target: Target) => {
    asked.push(target)
    try {
      await target.transaction.prepare(gids.get(target)!)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      const { bind } = target.state
      throw new Failure(error.reason, `${bind}: ${error.message}`, { ...error.details, bind })
    }
  }
  const locked = await underCommitLock(first, async () => {
    log.info(`Committing in two phases: ${gids.get(first)} in ${first.state.bind} decides for all.`)
    for (const target of targets) target.committing = true
    try {
      await prepare(first)
      await allOf(others.map(prepare))
    } catch (error) {
      const left = await undo(step, asked, gids)
      if (error instanceof Failure && left === '') throw error
      if (signal.aborted) {
        throw new Failure('cancelled', `The step was cancelled before the commit was decided.${left}`, { cause: error })
      }
      throw new Failure('commit-failed', `Not every database could be prepared: ${messageOf(error)}.${left}`, {
        advice: 'Run the step again.',
        cause: error,
      })
    }
    await decide(step, first, gids)
    await follow(step, first, others, gids)
    return true
  })
  if (locked) return
  const holder = await first.holderOf(lockKeys.commit)
  throw new Failure('lock-timeout', `Another run is committing these databases${named(holder)}.`, { transient: true })
}

/** COMMIT PREPARED on the first database. Throws a Failure, after everything was rolled back or when it is not known. */
async function decide(step: Step, first: Target, gids: Map<Target, string>): Promise<void> {
  const gid = gids.get(first)!
  const { id } = first.transaction
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
  if (await end(first.client!).catch(() => false)) return
  if (!isServerError(why)) {
    log.info(
      'There was no answer to the first COMMIT PREPARED, or a strange one; asking the database what became of it.',
    )
  }
  const committed = await keepAsking({ patience, signal }, () =>
    first.aside(async client => {
      if ((await isPrepared(client, gid, id)) && (await end(client))) return how === 'COMMIT'
      const status = await statusOf(client, id)
      return status === 'in progress' || status === null ? undefined : status === 'committed'
    }),
  )
  if (committed) return
  if (committed === undefined) {
    step.result.outcome = 'in-doubt'
    for (const target of gids.keys()) {
      target.state.outcome = 'in-doubt'
      delete target.state.newHeads
    }
    throw new Failure('commit-failed', 'The databases are prepared, and the first one does not say what it decided.', {
      advice: `Run the step again when it can be reached; it settles this. By hand: ${byHand(gids, first)}`,
      cause: why,
    })
  }
  const left = await undo(step, [...gids.keys()], gids)
  const told = why ? messageOf(why) : 'somebody else has rolled it back'
  throw new Failure('commit-failed', `The first COMMIT PREPARED was not carried out: ${told}.${left}`, {
    advice: 'Run the step again.',
    cause: why,
  })
}

/** COMMIT PREPARED on the others, after the decision. Throws a Failure where one does not follow. */
async function follow(step: Step, first: Target, others: Target[], gids: Map<Target, string>): Promise<void> {
  const { signal } = step.surroundings
  const { result } = step
  const behind: Target[] = []
  const undone: Target[] = []
  const follows = async (client: Client, target: Target) => {
    const gid = gids.get(target)!
    const { id } = target.transaction
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
    others.map(async target => {
      const again = () => target.aside(client => follows(client, target))
      const followed =
        (await follows(target.client!, target).catch(() => undefined)) ??
        (await keepAsking({ patience, signal }, again))
      if (followed === undefined) behind.push(target)
      if (followed === false) undone.push(target)
    }),
  )
  if (behind.length + undone.length === 0) return
  for (const { state } of [first, ...others]) state.outcome = 'applied'
  for (const { state } of undone) state.outcome = 'rolled-back'
  for (const { state } of behind) {
    state.outcome = 'in-doubt'
    delete state.newHeads
  }
  result.outcome = behind.length > 0 ? 'in-doubt' : 'partly-applied'
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
    advice: `Run the step again; it settles this. By hand: ${statements('COMMIT', behind, gids)}.`,
  })
}

const namesOf = (targets: Target[]): string => targets.map(({ state }) => state.bind).join(' and ')

/** Rolls back what was prepared, or is about to be; says what could not be. */
async function undo(step: Step, targets: Target[], gids: Map<Target, string>): Promise<string> {
  const { signal } = step.surroundings
  const left = await allOf(
    targets.map(async target => {
      const gid = gids.get(target)!
      const done = await keepAsking({ patience, signal }, () =>
        target.aside(async client => {
          const { id } = target.transaction
          if ((await isPrepared(client, gid, id)) && (await finish(client, 'ROLLBACK', gid))) return true
          // The server may still be at it: its session ends by being prepared or rolled back.
          return (await statusOf(client, id)) === 'in progress' ? undefined : true
        }),
      )
      return done ? '' : ` In ${target.state.bind} a prepared transaction may be left, for a later run to roll back.`
    }),
  )
  return left.join('')
}

const byHand = (gids: Map<Target, string>, first: Target): string => {
  const targets = [...gids.keys()]
  return `SELECT pg_xact_status('${first.transaction.id}'::xid8) in ${first.state.bind}; where that is committed, ${statements('COMMIT', targets, gids)}, else ${statements('ROLLBACK', targets, gids)}.`
}

const statements = (how: 'COMMIT' | 'ROLLBACK', targets: Target[], gids: Map<Target, string>): string =>
  targets.map(target => inBind(how, gids.get(target)!, target)).join(', ')

/** A statement for people. */
export const inBind = (how: 'COMMIT' | 'ROLLBACK', gid: string, { state }: Target): string =>
  `${finishing(how, gid)} in ${state.bind}`

/**
 * Runs an action with the lock that says that a commit is under way. False where another run has it, or the action says
 * so. Throws what the action throws, and a Failure where the lock's connection breaks before.
 */
export async function underCommitLock(first: Target, action: () => Promise<boolean>): Promise<boolean> {
  return first.aside(async client => {
    // A lock of a session would not survive a pooler; an idle READ COMMITTED transaction holds no snapshot.
    await client.query('BEGIN ISOLATION LEVEL READ COMMITTED')
    await client.query('SET LOCAL idle_in_transaction_session_timeout = 0')
    await client.query(noTransactionTimeout)
    return (await tryLock(client, lockKeys.commit)) && (await action())
  })
}
