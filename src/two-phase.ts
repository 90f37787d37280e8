import { setTimeout as pause } from 'node:timers/promises'
import { patience } from './commit'
import { Failure, messageOf } from './failure'
import { isServerError } from './postgres/connection'
import { sameIdentity } from './postgres/identity'
import { keepAsking } from './postgres/patience'
import {
  type Decision,
  finish,
  finishing,
  gidOf,
  listPrepared,
  type Prepared,
  preparedSlots,
} from './postgres/prepared'
import { statusOf } from './postgres/settle'
import { commitKey } from './postgres/transaction'
import { allOf, type Step } from './step'
import type { Target } from './target'

/** How long the commit of another run is waited for, in milliseconds. */
const commitPatience = 15 * 60_000

/**
 * Whether the batch can be committed in two phases: every server has a place for a prepared transaction left.
 * Throws a Failure `not-permitted` where the workflow requires it.
 */
export async function canPrepare({ inputs, surroundings, result }: Step, targets: Target[]): Promise<boolean> {
  const lacking = inputs.twoPhase === 'never' ? 'two-phase is never' : await lackingSlots(targets)
  if (!lacking) return true
  if (inputs.twoPhase === 'require' && inputs.mode !== 'preview') {
    throw new Failure('not-permitted', `Two-phase commit is required and not possible: ${lacking}.`, {
      advice: 'Set max_prepared_transactions on the server (it needs a restart), or set two-phase: auto.',
    })
  }
  result.uncovered = `The databases are committed one after another (${lacking}): a crash between two of these commits is not covered.`
  surroundings.log.info(result.uncovered)
  return false
}

async function lackingSlots(targets: Target[]): Promise<string> {
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
  const [first, ...others] = targets as [Target, ...Target[]]
  const decision: Decision = { ...first.identity, transaction: first.transaction.id }
  const gids = new Map(targets.map((target, index) => [target, gidOf(decision, index)]))
  const asked: Target[] = []
  const prepare = async (target: Target) => {
    asked.push(target)
    await target.transaction.prepare(gids.get(target)!)
  }
  const locked = await underCommitLock(first, async () => {
    for (const target of targets) target.committing = true
    try {
      await prepare(first)
      await allOf(others.map(prepare))
    } catch (error) {
      const left = await undo(step, asked, gids)
      if (error instanceof Failure && left === '') throw error
      throw new Failure('commit-failed', `Not every database could be prepared: ${messageOf(error)}.${left}`, {
        advice: 'Run the step again.',
        cause: error,
      })
    }
    await decide(step, first, gids)
    await follow(step, first, others, gids)
  })
  if (!locked) throw new Failure('lock-timeout', 'Another run is committing these databases.', { transient: true })
}

/** COMMIT PREPARED on the first database. Throws a Failure, after everything was rolled back or when it is not known. */
async function decide(step: Step, first: Target, gids: Map<Target, string>): Promise<void> {
  const gid = gids.get(first)!
  const { log, signal } = step.surroundings
  let why: unknown
  try {
    await finish(first.client!, 'COMMIT', gid)
    return
  } catch (error) {
    why = error
  }
  let committed: boolean | undefined = false
  if (!isServerError(why)) {
    log.info('The answer to the first COMMIT PREPARED was lost; asking the database what became of it.')
    const { id } = first.transaction
    committed = await keepAsking({ patience, signal }, () =>
      first.aside(async client => {
        if ((await listPrepared(client)).some(prepared => prepared.gid === gid)) await finish(client, 'COMMIT', gid)
        const status = await statusOf(client, id)
        return status === 'in progress' || status === null ? undefined : status === 'committed'
      }),
    )
  }
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
  throw new Failure('commit-failed', `The first COMMIT PREPARED was refused: ${messageOf(why)}.${left}`, { cause: why })
}

/** COMMIT PREPARED on the others, after the decision. */
async function follow(step: Step, first: Target, others: Target[], gids: Map<Target, string>): Promise<void> {
  const { signal } = step.surroundings
  const behind: Target[] = []
  await allOf(
    others.map(async target => {
      const gid = gids.get(target)!
      try {
        await finish(target.client!, 'COMMIT', gid)
      } catch {
        const again = () => target.aside(client => finish(client, 'COMMIT', gid)).then(() => true)
        if (!(await keepAsking({ patience, signal }, again))) behind.push(target)
      }
    }),
  )
  if (behind.length === 0) return
  step.result.outcome = 'in-doubt'
  for (const { state } of [first, ...others]) state.outcome = 'applied'
  for (const { state } of behind) {
    state.outcome = 'in-doubt'
    delete state.newHeads
  }
  const names = behind.map(({ state }) => state.bind).join(' and ')
  throw new Failure('commit-failed', `The commit is decided, and ${names} could not be told.`, {
    advice: `Run the step again; it settles this. By hand, in ${names}: ${behind.map(target => finishing('COMMIT', gids.get(target)!)).join('; ')}`,
  })
}

/** Rolls back what was prepared, or is about to be; says what could not be. */
async function undo(step: Step, targets: Target[], gids: Map<Target, string>): Promise<string> {
  const { signal } = step.surroundings
  const left = await allOf(
    targets.map(async target => {
      const gid = gids.get(target)!
      const done = await keepAsking({ patience, signal }, () =>
        target.aside(async client => {
          if ((await listPrepared(client)).some(prepared => prepared.gid === gid)) {
            await finish(client, 'ROLLBACK', gid)
            return true
          }
          // The server may still be at it: its session ends by being prepared or rolled back.
          return (await statusOf(client, target.transaction.id)) === 'in progress' ? undefined : true
        }),
      )
      return done ? '' : ` In ${target.state.bind} a prepared transaction may be left, for a later run to roll back.`
    }),
  )
  return left.join('')
}

const byHand = (gids: Map<Target, string>, first: Target): string =>
  `SELECT pg_xact_status('${first.transaction.id}'::xid8) in ${first.state.bind}; where that is committed, ${statements('COMMIT', gids)}, else ${statements('ROLLBACK', gids)}.`

const statements = (how: 'COMMIT' | 'ROLLBACK', gids: Map<Target, string>): string =>
  [...gids].map(([{ state }, gid]) => `${finishing(how, gid)} in ${state.bind}`).join(', ')

/** Runs an action with the lock that says that a commit is under way; false where another run has it. */
async function underCommitLock(first: Target, action: () => Promise<void>): Promise<boolean> {
  return first.aside(async client => {
    // A lock of a session would not survive a pooler; an idle READ COMMITTED transaction holds no snapshot.
    await client.query('BEGIN ISOLATION LEVEL READ COMMITTED')
    await client.query('SET LOCAL idle_in_transaction_session_timeout = 0')
    const { rows } = await client.query(`SELECT pg_catalog.pg_try_advisory_xact_lock(${commitKey}) AS locked`)
    if (!rows[0].locked) return false
    await action()
    return true
  })
}

interface Leftover extends Prepared {
  target: Target
}

/**
 * Settles what an earlier run left prepared when it was killed: by the first database's decision, everywhere. A preview
 * and a rehearsal only say that there is something. Throws a Failure, with the outcome `in-doubt`, where the decision
 * cannot be known; then nothing is touched.
 */
export async function settleLeftovers(step: Step): Promise<void> {
  const { inputs, surroundings, targets } = step
  const { log, signal } = surroundings
  const started = Date.now()
  for (;;) {
    const found = await allOf(
      targets.map(async target => (await listPrepared(target.client!)).map(each => ({ ...each, target }))),
    )
    const leftovers = found.flat()
    if (leftovers.length === 0) return
    const names = leftovers.map(({ gid, target }) => `${gid} in ${target.state.bind}`).join(' and ')
    if (inputs.mode !== 'apply') {
      return log.warning(`An earlier apply has left a prepared transaction (${names}); the next apply settles it.`)
    }
    await allOf(targets.map(target => target.identify()))
    let busy = false
    for (const group of Map.groupBy(leftovers, ({ decision }) => Object.values(decision).join(':')).values()) {
      busy = !(await settleGroup(step, group)) || busy
    }
    if (!busy) continue
    if (Date.now() - started > commitPatience) {
      throw new Failure('lock-timeout', `Another run has been committing these databases for 15 minutes (${names}).`)
    }
    log.info(`Another run is committing these databases (${names}); waiting for it.`)
    await pause(1_000, undefined, { signal })
  }
}

/** Ends the prepared transactions of one earlier run; false where that run is still at it. */
async function settleGroup(step: Step, group: Leftover[]): Promise<boolean> {
  const { decision } = group[0]!
  const first = step.targets.find(({ identity }) => sameIdentity(identity, decision))
  if (!first) throw undecidable(step, group, 'the database that decides is not among those of this step')
  const { log } = step.surroundings
  return underCommitLock(first, async () => {
    // That run may have gone on until it let go of the lock.
    const still = await allOf(
      [...new Set(group.map(({ target }) => target))].map(target => listPrepared(target.client!)),
    )
    const left = group.filter(({ gid }) => still.flat().some(prepared => prepared.gid === gid))
    const own = left.find(({ decides }) => decides)
    const how = own ? 'ROLLBACK' : await decided(step, first, left)
    for (const { target, gid } of own ? [own, ...left.filter(each => each !== own)] : left) {
      log.info(`An earlier run has left a transaction prepared in ${target.state.bind}: ${finishing(how, gid)}.`)
      try {
        await target.aside(client => finish(client, how, gid))
      } catch (error) {
        if (!isServerError(error)) throw error
        throw undecidable(step, left, `${finishing(how, gid)} was refused in ${target.state.bind}: ${messageOf(error)}`)
      }
    }
  })
}

async function decided(step: Step, first: Target, left: Leftover[]): Promise<'COMMIT' | 'ROLLBACK'> {
  const { transaction } = left[0]?.decision ?? { transaction: '' }
  if (!transaction) return 'ROLLBACK'
  const status = await first.aside(client => statusOf(client, transaction))
  if (status === 'committed') return 'COMMIT'
  if (status === 'aborted') return 'ROLLBACK'
  throw undecidable(step, left, `${first.state.bind} says of transaction ${transaction}: ${status ?? 'forgotten'}`)
}

function undecidable({ result }: Step, group: Leftover[], why: string): Failure {
  result.outcome = 'in-doubt'
  for (const { target } of group) target.state.outcome = 'in-doubt'
  const { system, oid, transaction } = group[0]!.decision
  const ends = (how: 'COMMIT' | 'ROLLBACK') =>
    group.map(({ gid, target }) => `${finishing(how, gid)} in ${target.state.bind}`).join(', ')
  return new Failure(
    'commit-failed',
    `An earlier run has left prepared transactions, and they were left alone: ${why}.`,
    {
      advice: `Its decision is SELECT pg_xact_status('${transaction}'::xid8) in the database with oid ${oid} of the cluster with system identifier ${system}: where that is committed, ${ends('COMMIT')}; where it is aborted, or the transaction is itself still in pg_prepared_xacts there, ${ends('ROLLBACK')}.`,
    },
  )
}
