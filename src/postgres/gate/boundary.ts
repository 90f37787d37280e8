import { Failure, required } from '../../failure'
import type { Handover } from './handover'
import type { Layers } from './layers'
import type { Participant, Start } from './participant'
import { join, statement, syncPoint } from './request'
import type { Settings } from './settings'
import type { Upstream } from './upstream'
import * as wire from './wire'

/** Who ends the transaction upstream and begins the next one, on the connection, which is pg's in the meantime. */
export interface Segmenting {
  /** Whether the transaction has to end before anything else runs; `isIdle`: no client is in one of its own. */
  isDue(isIdle: boolean): boolean
  /** Commits what has run so far. When it rejects, nothing more is run. */
  commit(): Promise<void>
  /** Called before a statement that runs outside of any transaction; resolves to what is sent in its place. */
  alone(sql: string): Promise<string>
  begin(): Promise<void>
}

/** Where the transaction upstream ends and the next one begins, between two units; without `segmenting` nowhere. */
export class Boundary {
  #isInside = true
  /** Why no transaction could be ended or begun any more. */
  failure: unknown

  constructor(
    private readonly upstream: Upstream,
    private readonly handover: Handover,
    private readonly layers: Layers,
    /** All that are connected. */
    private readonly sessions: Set<Participant>,
    private readonly settings: Settings,
    private readonly segmenting: Segmenting | undefined,
  ) {}

  /** The statement of the unit that the session is about to begin, if it is one to run outside of any transaction. */
  standingAlone(session: Participant): string | undefined {
    return this.segmenting && session.standsAlone
  }

  /** Sees to it that what follows is in a transaction; where the one at hand is due to end, in the next one. */
  inside(then: () => void, { mayEnd }: { mayEnd: boolean }): void {
    const { segmenting, upstream } = this
    if (!segmenting) return then()
    const begin = () => this.#lend(() => segmenting.begin(), 'T', then)
    if (!this.#isInside) return begin()
    if (!mayEnd || upstream.status !== 'T' || !segmenting.isDue(this.layers.isEmpty)) return then()
    const obstacle = this.#obstacleToCommit()
    if (!obstacle) return this.#commit(segmenting, begin)
    const failure = new Failure(
      'not-transactional',
      `A transaction has to end before the next revision, and it cannot: ${obstacle}.`,
      { advice: 'Let env.py run the migrations outside of that.' },
    )
    this.#fail(failure)
  }

  /** Sees to it that the statement of the session, which is idle, runs outside of any transaction. */
  outside(session: Participant, sql: string, then: (start: Start) => void): void {
    const segmenting = required(this.segmenting, 'segment to leave')
    const goOn = () => this.#setUp(session, segmenting, sql, then)
    if (!this.#isInside) return goOn()
    const obstacle = this.#obstacleToCommit({ everything: true })
    if (!obstacle) return this.#commit(segmenting, goOn)
    then({ refusal: `this statement needs a COMMIT before it, and there can be none: ${obstacle}` })
  }

  /** The session's settings hold for its statement as they do in its transactions. */
  #setUp(session: Participant, segmenting: Segmenting, sql: string, then: (start: Start) => void): void {
    let refusal: string | undefined
    const error = (message: wire.Message) => {
      refusal = wire.readFields(message.body).M
    }
    let alone = sql
    const ask = async () => {
      alone = await segmenting.alone(sql)
    }
    this.upstream.send(
      join(
        ...this.settings.outside(session.saved).map(each => statement(each, { error })),
        syncPoint(() => (refusal ? then({ refusal }) : this.#lend(ask, 'I', () => then({ alone })))),
      ),
    )
  }

  #commit(segmenting: Segmenting, then: () => void): void {
    this.handover.leave(() => {
      for (const { transaction } of this.sessions) transaction.goOn()
      this.layers.clear()
      this.#lend(() => segmenting.commit(), 'I', then)
    })
  }

  /** Why a COMMIT upstream would commit what a client can still undo; with `everything`, also what only goes on later. */
  #obstacleToCommit({ everything = false } = {}): string | undefined {
    for (const { transaction } of this.sessions) {
      const { status, savepoints, prepared } = transaction.now
      if (status === 'E') return 'a connection is in a failed transaction'
      if (prepared.length > 0) return 'a PREPARE TRANSACTION awaits its COMMIT PREPARED'
      if (status === 'T' && savepoints.length > 0) return 'a connection has a savepoint open'
    }
    const open = this.layers.owners
    return open.length > (everything ? 0 : 1)
      ? 'another connection is inside a transaction that has written'
      : undefined
  }

  /** Lends the connection to pg; `status` is what the server says when it comes back. */
  #lend(action: () => Promise<void>, status: 'T' | 'I', then: () => void): void {
    this.upstream.release()
    action()
      .then(() => {
        this.#isInside = status === 'T'
        this.upstream.take(status)
        then()
      })
      .catch(error => this.#fail(error))
  }

  /** The connection is ended as well, and PostgreSQL rolls back what is not committed. */
  #fail(error: unknown): void {
    this.failure = error
    this.upstream.abandon(error instanceof Error ? error : new Error(String(error)))
  }
}
