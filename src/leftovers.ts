import { setTimeout as pause } from 'node:timers/promises'
import { Failure, messageOf } from './failure'
import { lockKeys, named } from './postgres/advisory-locks'
import { isServerError } from './postgres/connection'
import { sameIdentity } from './postgres/identity'
import { finish, finishing, gidOf, isBusy, listPrepared, type Prepared } from './postgres/prepared'
import { statusOf } from './postgres/settle'
import { allOf, type Step } from './step'
import type { Target } from './target'
import { inBind, underCommitLock } from './two-phase'

/** How long the commit of another run is waited for, in milliseconds; and where its lock cannot be seen. */
const commitPatience = 15 * 60_000
const blindPatience = 10_000

interface Leftover extends Prepared {
  target: Target
}

/** What is named as ours is and is not ours is told once, and passed by. */
async function leftoversIn({ targets, surroundings, strangers }: Step): Promise<Leftover[]> {
  const listed = targets.map(async target => {
    return (await listPrepared(target.client!, target.versionTable)).map(each => ({ ...each, target }))
  })
  const found = (await allOf(listed)).flat()
  if (found.some(({ isOurs, decides }) => isOurs && decides)) await allOf(targets.map(target => target.identify()))
  return found.filter(each => {
    const why = whyNotOurs(each)
    if (!why) return true
    const { gid, owner, target } = each
    const name = `${gid} in ${target.state.bind}`
    if (!strangers.has(name)) {
      surroundings.log.warning(
        `The prepared transaction ${name} is named as ours are, and is passed by: ${why}. The role ${owner}, or a superuser, can end it: ${finishing('ROLLBACK', gid)}.`,
      )
    }
    strangers.add(name)
    return false
  })
}

/** Whoever may connect can prepare a transaction under any name; empty where it is ours. */
function whyNotOurs({ isOurs, decides, decision, transaction, owner, target }: Leftover): string {
  if (!isOurs) return `its owner ${owner} may not write the version table`
  if (!decides || (sameIdentity(target.identity, decision) && transaction === decision.transaction)) return ''
  return `it is not the transaction of its name, but ${transaction} of this database`
}

/**
 * Settles what an earlier run left prepared when it was killed: by the first database's decision, everywhere. A preview
 * and a rehearsal only say that there is something; `inTheWay`: the lock that it holds is waited for. Throws a Failure,
 * with the outcome `in-doubt` where the decision cannot be known; then nothing is touched.
 */
export async function settleLeftovers(step: Step, { inTheWay = false } = {}): Promise<void> {
  const { inputs, surroundings, targets } = step
  const { log, signal } = surroundings
  const started = Date.now()
  for (let told = ''; ; await pause(1_000, undefined, { signal })) {
    const leftovers = await leftoversIn(step)
    if (leftovers.length === 0) return
    const names = leftovers.map(({ gid, target }) => `${gid} in ${target.state.bind}`).join(' and ')
    const left = `An earlier apply has left a prepared transaction (${names})`
    if (inputs.mode !== 'apply' && !inTheWay) return log.warning(`${left}; the next apply settles it.`)
    await allOf(targets.map(target => target.identify()))
    let busy = false
    for (const group of Map.groupBy(leftovers, ({ decision }) => Object.values(decision).join(':')).values()) {
      const first = targets.find(({ identity }) => sameIdentity(identity, group[0]!.decision))
      const waited = Date.now() - started
      if (inputs.mode !== 'apply') {
        if (first && !(await underCommitLock(first, async () => true))) return
        throw new Failure('lock-timeout', `${left}, and with it the lock that a rehearsal needs.`, {
          advice: 'Run an apply: it settles this.',
        })
      }
      if (first) busy = !(await settleGroup(step, first, group[0]!)) || busy
      else if (waited < blindPatience) busy = true
      else throw undecidable(step, group, 'the database that decides is not among those of this step')
    }
    if (!busy) continue
    if (Date.now() - started > commitPatience) {
      const holder = await holderOf(targets)
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
async function holderOf(targets: Target[]): Promise<string> {
  const holders = await allOf(targets.map(target => target.holderOf(lockKeys.commit)))
  return holders.filter(Boolean).join(' and ')
}

/** Ends the prepared transactions of one earlier run; false where that run, or PostgreSQL, is still at it. */
async function settleGroup(step: Step, first: Target, { decision }: Prepared): Promise<boolean> {
  const { log } = step.surroundings
  const { bind } = first.state
  const told = `An earlier run was ended during its commit; ${bind} decides, and its transaction ${decision.transaction} is`
  return underCommitLock(first, async () => {
    // That run may have gone on until it let go of the lock.
    const left = (await leftoversIn(step)).filter(each => gidOf(each.decision, 0) === gidOf(decision, 0))
    if (left.length === 0) return true
    const own = left.find(({ decides }) => decides)
    const status = own ? 'prepared' : await first.aside(client => statusOf(client, decision.transaction))
    if (status === 'in progress') return false
    if (status !== 'prepared' && status !== 'committed' && status !== 'aborted') {
      throw undecidable(step, left, `${bind} says of transaction ${decision.transaction}: ${status ?? 'forgotten'}`)
    }
    log.info(`${told} ${own ? 'only prepared' : status}.`)
    const how = status === 'committed' ? 'COMMIT' : 'ROLLBACK'
    if (own && !(await end(step, how, own, left))) return false
    const rest = left.filter(each => each !== own)
    for (const [index, each] of rest.entries()) {
      if (!(await end(step, how, each, rest.slice(index)))) return false
    }
    return true
  })
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
    if (ended) surroundings.log.info(`${inBind(how, gid, target)}: done.`)
    return ended
  } catch (error) {
    if (isBusy(error)) return false
    if (!isServerError(error)) throw error
    // insufficient_privilege
    const reason = error.code === '42501' ? 'not-permitted' : 'commit-failed'
    const told = `An earlier run has left a prepared transaction, and ${inBind(how, gid, target)} was refused: ${messageOf(error)}.`
    throw new Failure(reason, told, {
      advice: `The role that prepared it can end it, and a superuser. By hand: ${left.map(each => inBind(how, each.gid, each.target)).join(', ')}.`,
      cause: error,
    })
  }
}

function undecidable({ result, targets }: Step, group: Leftover[], why: string): Failure {
  result.outcome = 'in-doubt'
  for (const { state } of targets) {
    state.outcome = 'refused'
    // Behind the locks of what is prepared the heads may not be readable.
    state.reread = false
  }
  for (const { gid, target } of group) {
    target.state.outcome = 'in-doubt'
    target.state.leftPrepared = gid
    delete target.state.newHeads
  }
  const { system, oid, transaction } = group[0]!.decision
  const ends = (how: 'COMMIT' | 'ROLLBACK') => group.map(({ gid, target }) => inBind(how, gid, target)).join(', ')
  return new Failure(
    'commit-failed',
    `An earlier run has left prepared transactions, and they were left alone: ${why}.`,
    {
      advice: `Its decision is SELECT pg_xact_status('${transaction}'::xid8) in the database with oid ${oid} of the cluster with system identifier ${system}: where that is committed, ${ends('COMMIT')}; where it is aborted, or the transaction is itself still in pg_prepared_xacts there, ${ends('ROLLBACK')}.`,
    },
  )
}
