import { required } from '../../failure'
import type { Boundary } from './boundary'
import { waitedForCopy, waitedInVain } from './conflict'
import type { Handover } from './handover'
import type { Isolation } from './isolation'
import type { Layers } from './layers'
import type { Participant } from './participant'
import type { Savepoints } from './savepoints'
import type { Speakers } from './speakers'
import { ask } from './survey'
import type { Tape } from './tape'
import type { Upstream } from './upstream'

/** What a gate has for the turns of its sessions. */
export interface Places {
  readonly upstream: Upstream
  readonly tape: Tape
  readonly layers: Layers
  readonly isolation: Isolation
  readonly savepoints: Savepoints
  readonly speakers: Speakers
  readonly handover: Handover
  readonly boundary: Boundary
  readonly sessions: Set<Participant>
  /** How long a thread waits for another one that sends nothing, in milliseconds; 0 is no limit. */
  readonly patience: number
  /** Cancels the statement that runs upstream. */
  cancelStatement(): Promise<void>
}

/** Which lock a statement means PostgreSQL alone knows; threads that keep one another out say the same. */
const takesTheSameLock = (session: Participant, { transactionLocks }: Participant): boolean =>
  transactionLocks.length > 0 && transactionLocks.includes(session.heldStatement)

/** Whose turn it is with the one connection upstream, for a unit at a time. */
export class Turns {
  holder: Participant | undefined
  #waiting: Participant[] = []
  /** Sessions whose client has gone and that are still to be tidied after. */
  #departed: Participant[] = []
  /** Cancellations that are on their way: nothing starts that they might hit. */
  #cancelling = 0
  /** PostgreSQL is being asked what the last holder has written. */
  #isSurveying = false
  #whenQuiet: (() => void) | undefined
  #alarm: NodeJS.Timeout | undefined

  constructor(private readonly places: Places) {}

  /** Asks for the turn; `session.begin` follows. */
  request(session: Participant): void {
    this.#waiting.push(session)
    this.#next()
    if (this.holder !== session) this.holder?.offerTurn()
  }

  get areWanted(): boolean {
    return this.#waiting.length > 0
  }

  end(session: Participant): void {
    if (this.holder === session) this.holder = undefined
    this.#next()
  }

  /** A client has gone: it is tidied after before another session's turn. */
  ended(session: Participant): void {
    if (!this.places.sessions.delete(session)) return
    this.#waiting = this.#waiting.filter(other => other !== session)
    this.#departed.push(session)
    this.#next()
  }

  /** Cancels the statement that runs: it was asked for, or nobody hears its answer any more. */
  cancel(done?: () => void): void {
    this.#cancelling++
    const settled = () => {
      this.#cancelling--
      done?.()
      this.#next()
    }
    this.places.cancelStatement().then(settled, settled)
  }

  /** Resolves when nothing is under way and nobody waits, or the connection is lost. */
  quiet(): Promise<void> {
    const { upstream } = this.places
    const waiting = this.#waiting.length + this.#departed.length + this.#cancelling
    const isBusy = this.holder || this.#isSurveying || waiting > 0 || !upstream.idle
    if (upstream.lost || !isBusy) return Promise.resolve()
    return new Promise(resolve => {
      this.#whenQuiet = resolve
    })
  }

  lose(): void {
    clearTimeout(this.#alarm)
    this.#whenQuiet?.()
  }

  #next(): void {
    const { upstream, layers } = this.places
    if (this.holder && this.#waiting[0]) this.#watchCopy(this.holder, this.#waiting[0])
    if (this.holder || this.#isSurveying || upstream.lost || this.#cancelling > 0) return
    // A statement_timeout of a millisecond or a cancellation may hit even a SAVEPOINT; without one there is no way back.
    if (upstream.status === 'E' && layers.isEmpty && !upstream.doom)
      return upstream.abandon(new Error('the transaction failed where no savepoint was set'))
    const [departed] = this.#departed
    const wanting = departed ? [departed] : this.#waiting
    if (!upstream.doom && wanting.some(session => this.#isUnknownTo(session))) return this.#survey()
    if (departed) {
      this.#departed.shift()
      this.holder = departed
      return this.#tidyAfter(departed)
    }
    const next = this.#waiting.find(session => !this.#blockerOf(session))
    if (next) {
      this.#waiting = this.#waiting.filter(other => other !== next)
      this.holder = next
      return this.#begin(next)
    }
    if (this.#waiting.length > 0) this.#watchPatience()
    else this.#whenQuiet?.()
  }

  #begin(session: Participant): void {
    const { boundary, handover } = this.places
    const sql = boundary.standingAlone(session)
    if (sql !== undefined) return boundary.outside(session, sql, start => session.begin(start))
    const give = () => handover.give(session, refusal => session.begin({ refusal }))
    boundary.inside(give, { mayEnd: true })
  }

  #tidyAfter(departed: Participant): void {
    const { boundary, handover, sessions } = this.places
    const tidy = () => handover.tidyAfter(departed, sessions, () => this.end(departed))
    boundary.inside(tidy, { mayEnd: false })
  }

  // ── What the last holder has written ──────────────────────────────────────────────────────────────────────────────

  /** Whether it matters to the session what was written in the layer on top, and that is not known yet. */
  #isUnknownTo(session: Participant): boolean {
    const { top, isSurveyed } = this.places.layers
    return !isSurveyed && top !== undefined && top.status === 'open' && top.owner !== session
  }

  /** Asks PostgreSQL; a failed statement is undone first, as its client will have to do. */
  #survey(): void {
    const { upstream, layers, isolation } = this.places
    const top = required(layers.top, 'layer to ask about')
    const hasFailed = upstream.status === 'E'
    this.#isSurveying = true
    ask(this.places, top.owner, upstream.status, found => {
      if (hasFailed && layers.floorOf(top.owner) === layers.height - 1) isolation.forget(found)
      else isolation.attribute(top.owner, found)
      upstream.send(layers.keep(found.written))
      this.#isSurveying = false
      this.#next()
    })
  }

  // ── Threads ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The session of another thread that has written, and whose transaction has to end before this one may go on. */
  #blockerOf(session: Participant): Participant | undefined {
    const { layers, speakers, sessions } = this.places
    if (layers.owners.includes(session)) return undefined
    const others = layers.othersOpen(session)
    const isInTheWay = (other: Participant) =>
      speakers.areConcurrent(session, other) && (others.includes(other) || takesTheSameLock(session, other))
    const blocker = [...sessions].find(isInTheWay)
    return blocker && !session.isHarmless ? blocker : undefined
  }

  /** A COPY may wait for what its client wants to read on the connection that waits for the COPY. */
  #watchCopy(holder: Participant, { who, place, heldStatement: sql }: Participant): void {
    const { patience, upstream, layers, tape } = this.places
    clearTimeout(this.#alarm)
    if (patience === 0 || upstream.lost) return
    const left = holder.quietSince + patience - performance.now()
    if (!holder.owesData || left > 0) this.#alarm = setTimeout(() => this.#next(), Math.max(left, 100)).unref()
    else upstream.abandon(waitedForCopy({ who, place, sql }, layers.deedOf(holder), patience, tape.revision))
  }

  /** Those who wait for a thread that sends nothing do so for a while only. */
  #watchPatience(): void {
    const { patience, upstream, layers, tape } = this.places
    clearTimeout(this.#alarm)
    if (patience === 0) return
    const now = performance.now()
    const waits = this.#waiting.flatMap(session => {
      const blocker = this.#blockerOf(session)
      return blocker ? [{ session, blocker, left: blocker.quietSince + patience - now }] : []
    })
    const [worst] = waits.sort((a, b) => a.left - b.left)
    if (!worst) return
    if (worst.left > 0) {
      this.#alarm = setTimeout(() => this.#next(), worst.left)
      return
    }
    const { session, blocker } = worst
    const waiting = { who: session.who, place: session.place, sql: session.heldStatement }
    upstream.abandon(waitedInVain(waiting, layers.deedOf(blocker), patience, tape.revision))
  }
}
