import { setTimeout as pause } from 'node:timers/promises'
import { Failure, messageOf } from '../failure'
import { lockKeys, named, underCommitLock } from '../postgres/advisory-locks'
import { isServerError } from '../postgres/connection'
import type { VersionTable } from '../postgres/heads'
import { sameIdentity } from '../postgres/identity'
import { statusOf } from '../postgres/lost-commit'
import {
  type Decision,
  finish,
  finishing,
  finishingIn,
  gidOf,
  isBusy,
  listPrepared,
  type Prepared,
} from '../postgres/prepared'
import { allOf, type Step } from './surroundings'
import type { Target } from './target'

/** How long the commit of another run is waited for, in milliseconds; and where its lock cannot be seen. */
const commitPatience = 15 * 60_000
const blindPatience = 10_000

/** A database with the table that tells whose prepared transactions are ours. */
export interface Located {
  target: Target
  versionTable: VersionTable
}

interface Leftover extends Prepared {
  target: Target
}

/** What earlier runs left prepared, where their decision cannot be known: nothing was touched. */
export class Undecided extends Failure {
  /** By bind, the name of one that it holds. */
  readonly left: Map<string, string>

  constructor(group: Leftover[], message: string, advice: string) {
    super('commit-failed', message, { advice })
    this.left = new Map(group.map(({ gid, target }) => [target.bind, gid]))
  }
}

/** Lists the prepared transactions that are ours. One that only has a name like ours is warned of once, and passed by. */
async function leftoversIn({ surroundings }: Step, databases: Located[]): Promise<Leftover[]> {
  const listed = databases.map(async ({ target, versionTable }) => {
    const prepared = await listPrepared(target.client, versionTable)
    return await allOf(prepared.map(async each => ({ ...each, target, why: await whyNotOurs(each, target) })))
  })
  return (await allOf(listed)).flat().filter(({ why, gid, owner, target }) => {
    if (!why) return true
    surroundings.log.warningOnce(
      `The prepared transaction ${gid} in ${target.bind} is named as ours are, and is passed by: ${why}. The role ${owner}, or a superuser, can end it: ${finishing('ROLLBACK', gid)}.`,
    )
    return false
  })
}

/** Whoever may connect can prepare a transaction under any name; empty where it is ours. */
async function whyNotOurs(
  { isOurs, decides, decision, transaction, owner }: Prepared,
  target: Target,
): Promise<string> {
  if (!isOurs) return `its owner ${owner} may not write the version table`
  if (!decides) return ''
  if (transaction === decision.transaction && sameIdentity(await target.identify(), decision)) return ''
  return `it is not the transaction of its name, but ${transaction} of this database`
}

/**
 * Settles what an earlier run left prepared when it was killed: by the first database's decision, everywhere. A preview
 * and a rehearsal only say that there is something; `inTheWay`: the lock that it holds is waited for. Throws a Failure,
 * with the outcome `in-doubt` where the decision cannot be known; then nothing is touched.
 */
export async function settleLeftovers(step: Step, databases: Located[], { inTheWay = false } = {}): Promise<void> {
  const { inputs, surroundings } = step
  const { log, signal } = surroundings
  const started = Date.now()
  for (let told = ''; ; await pause(1_000, undefined, { signal })) {
    const leftovers = await leftoversIn(step, databases)
    if (leftovers.length === 0) return
    const names = leftovers.map(({ gid, target }) => `${gid} in ${target.bind}`).join(' and ')
    const left = `An earlier apply has left a prepared transaction (${names})`
    if (inputs.mode !== 'apply' && !inTheWay) return log.warning(`${left}; the next apply settles it.`)
    const identified = await allOf(databases.map(async ({ target }) => [target, await target.identify()] as const))
    let busy = false
    for (const group of groupsOf(leftovers)) {
      const [{ decision }] = group
      const [first] = identified.find(([, identity]) => sameIdentity(identity, decision)) ?? []
      const waited = Date.now() - started
      if (inputs.mode !== 'apply') {
        if (first && !(await first.aside(client => underCommitLock(client, async () => true)))) return
        throw new Failure('lock-timeout', `${left}, and with it the lock that a rehearsal needs.`, {
          advice: 'Run an apply: it settles this.',
        })
      }
      if (first) busy = !(await settleGroup(step, databases, first, decision)) || busy
      else if (waited < blindPatience) busy = true
      else throw undecidable(decision, group, 'the database that decides is not among those of this step')
    }
    if (!busy) continue
    if (Date.now() - started > commitPatience) {
      const holder = await holderOf(databases)
      throw new Failure(
        'lock-timeout',
        `Another run has been committing these databases for 15 minutes (${names})${named(holder)}.`,
      )
    }
    if (told !== names) log.info(`A transaction is prepared (${names}): waiting for the run that is at it.`)
    told = names
  }
}

/** Who says that a commit is under way; empty where that cannot be told. */
async function holderOf(databases: Located[]): Promise<string> {
  const holders = await allOf(databases.map(({ target }) => target.holderOf(lockKeys.commit)))
  return holders.filter(Boolean).join(' and ')
}

/** Those of one run belong together. */
const groupsOf = (leftovers: Leftover[]): [Leftover, ...Leftover[]][] =>
  [...Map.groupBy(leftovers, ({ decision }) => Object.values(decision).join(':')).values()].flatMap(
    ([first, ...more]) => (first ? [[first, ...more]] : []),
  )

/** Ends the prepared transactions of one earlier run; false where that run, or PostgreSQL, is still at it. */
async function settleGroup(step: Step, databases: Located[], first: Target, decision: Decision): Promise<boolean> {
  const { log } = step.surroundings
  const { bind } = first
  const told = `An earlier run was ended during its commit; ${bind} decides, and its transaction ${decision.transaction} is`
  const settle = async () => {
    // That run may have gone on until it let go of the lock.
    const all = await leftoversIn(step, databases)
    const left = all.filter(each => gidOf(each.decision, 0) === gidOf(decision, 0))
    if (left.length === 0) return true
    const own = left.find(({ decides }) => decides)
    const status = own ? 'prepared' : await first.aside(client => statusOf(client, decision.transaction))
    if (status === 'in progress') return false
    if (status !== 'prepared' && status !== 'committed' && status !== 'aborted') {
      throw undecidable(decision, left, `${bind} says of transaction ${decision.transaction}: ${status ?? 'forgotten'}`)
    }
    log.info(`${told} ${own ? 'only prepared' : status}.`)
    const how = status === 'committed' ? 'COMMIT' : 'ROLLBACK'
    if (own && !(await end(step, how, own, left))) return false
    const rest = left.filter(each => each !== own)
    for (const [index, each] of rest.entries()) {
      if (!(await end(step, how, each, rest.slice(index)))) return false
    }
    return true
  }
  return first.aside(client => underCommitLock(client, settle))
}

/** Ends one of them; false where somebody else has, or is at it. Throws a Failure where PostgreSQL refuses. */
async function end(
  { surroundings }: Step,
  how: 'COMMIT' | 'ROLLBACK',
  { gid, target }: Leftover,
  left: Leftover[],
): Promise<boolean> {
  try {
    const ended = await target.aside(client => finish(client, how, gid))
    if (ended) surroundings.log.info(`${finishingIn(target.bind, how, gid)}: done.`)
    return ended
  } catch (error) {
    if (isBusy(error)) return false
    if (!isServerError(error)) throw error
    // insufficient_privilege
    const reason = error.code === '42501' ? 'not-permitted' : 'commit-failed'
    const told = `An earlier run has left a prepared transaction, and ${finishingIn(target.bind, how, gid)} was refused: ${messageOf(error)}.`
    throw new Failure(reason, told, {
      advice: `The role that prepared it can end it, and a superuser. By hand: ${left.map(each => finishingIn(each.target.bind, how, each.gid)).join(', ')}.`,
      cause: error,
    })
  }
}

function undecidable({ system, oid, transaction }: Decision, group: Leftover[], why: string): Undecided {
  const ends = (how: 'COMMIT' | 'ROLLBACK') =>
    group.map(({ gid, target }) => finishingIn(target.bind, how, gid)).join(', ')
  return new Undecided(
    group,
    `An earlier run has left prepared transactions, and they were left alone: ${why}.`,
    `Its decision is SELECT pg_xact_status('${transaction}'::xid8) in the database with oid ${oid} of the cluster with system identifier ${system}: where that is committed, ${ends('COMMIT')}; where it is aborted, or the transaction is itself still in pg_prepared_xacts there, ${ends('ROLLBACK')}.`,
  )
}
