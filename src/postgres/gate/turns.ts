import type { Boundary } from './boundary'
import type { Handover } from './handover'
import type { Nesting } from './nesting'
import type { Session } from './session'
import type { Upstream } from './upstream'

/** Whose turn it is with the one connection upstream, for a unit at a time. */
export class Turns {
  readonly sessions = new Set<Session>()
  holder: Session | undefined
  #waiting: Session[] = []
  /** Sessions whose client has gone and that are still to be tidied after. */
  #departed: Session[] = []
  /** Cancellations that are on their way: nothing starts that they might hit. */
  #cancelling = 0
  #whenQuiet: (() => void) | undefined

  constructor(
    private readonly upstream: Upstream,
    private readonly nesting: Nesting,
    private readonly handover: Handover,
    private readonly boundary: Boundary,
    /** Cancels the statement that runs upstream. */
    private readonly cancelStatement: () => Promise<void>,
  ) {}

  /** Asks for the turn; `session.begin` follows. */
  request(session: Session): void {
    this.#waiting.push(session)
    this.#next()
    if (this.holder !== session) this.holder?.offerTurn()
  }

  get areWanted(): boolean {
    return this.#waiting.length > 0
  }

  end(session: Session): void {
    if (this.holder === session) this.holder = undefined
    this.#next()
  }

  /** A client has gone: it is tidied after before another session's turn. */
  ended(session: Session): void {
    if (!this.sessions.delete(session)) return
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
    this.cancelStatement().then(settled, settled)
  }

  /** Resolves when nothing is under way and nobody waits, or the connection is lost. */
  quiet(): Promise<void> {
    const waiting = this.#waiting.length + this.#departed.length + this.#cancelling
    if (this.upstream.lost || (!this.holder && waiting === 0 && this.upstream.idle)) return Promise.resolve()
    return new Promise(resolve => {
      this.#whenQuiet = resolve
    })
  }

  lose(): void {
    this.#whenQuiet?.()
  }

  #next(): void {
    if (this.holder || this.upstream.lost || this.#cancelling > 0) return
    // A statement_timeout of a millisecond or a cancellation may hit even a SAVEPOINT; without one there is no way back.
    if (this.upstream.status === 'E' && this.nesting.isEmpty)
      return this.upstream.abandon(new Error('the transaction failed where no savepoint was set'))
    const departed = this.#departed.shift()
    this.holder = departed ?? this.#waiting.shift()
    if (departed) this.#tidyAfter(departed)
    else if (this.holder) this.#begin(this.holder)
    else this.#whenQuiet?.()
  }

  #begin(session: Session): void {
    const sql = this.boundary.standingAlone(session)
    if (sql !== undefined) return this.boundary.outside(session, sql, start => session.begin(start))
    const give = () => this.handover.give(session, refusal => session.begin({ refusal }))
    this.boundary.inside(give, { mayEnd: true })
  }

  #tidyAfter(departed: Session): void {
    const tidy = () => this.handover.tidyAfter(departed, this.sessions, () => this.end(departed))
    this.boundary.inside(tidy, { mayEnd: false })
  }
}
