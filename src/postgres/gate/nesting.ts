import type { Session } from './session'
import type { Upstream } from './upstream'

/** The sessions' transactions inside of one another, last in, first out: each is a savepoint upstream. */
export class Nesting {
  /** Outermost first. */
  #open: Session[] = []

  constructor(private readonly upstream: Upstream) {}

  get isEmpty(): boolean {
    return this.#open.length === 0
  }

  opened(session: Session): void {
    if (!this.#open.includes(session)) this.#open.push(session)
  }

  closed(session: Session): void {
    this.#open = this.#open.filter(other => other !== session)
  }

  has(session: Session): boolean {
    return this.#open.includes(session)
  }

  isOutermost(session: Session): boolean {
    return this.#open.every(other => other === session)
  }

  /** Sees to it that the session's transaction is the innermost one; says why it cannot be. */
  makeRoom(session: Session): string | undefined {
    if (session.transaction.now.status === 'E') {
      // Only a ROLLBACK is of use now, and it takes the inner ones along.
      this.loseAbove(session)
      return undefined
    }
    if (this.upstream.status === 'E')
      return 'another connection of this migration is in a failed transaction, which has to be rolled back first'
    const above = this.#above(session)
    if (!above.every(inner => inner.transaction.canStepAside))
      return 'this connection cannot be used while a newer one is inside a transaction that has written: both are part of the same transaction, and the newer one has to end first'
    for (const inner of above.reverse()) this.upstream.send(inner.nested.stepAside())
    this.#open = this.#open.filter(other => !above.includes(other))
    return undefined
  }

  /** Why a COMMIT upstream would commit what a client can still undo; with `everything`, also what only goes on later. */
  obstacleToCommit({ everything = false } = {}): string | undefined {
    for (const [depth, { transaction }] of this.#open.entries()) {
      const { status, savepoints, prepared } = transaction.now
      if (status === 'E') return 'a connection is in a failed transaction'
      if (prepared.length > 0) return 'a PREPARE TRANSACTION awaits its COMMIT PREPARED'
      if (savepoints.length > 0) return 'a connection has a savepoint open'
      if ((depth > 0 || everything) && !transaction.canStepAside)
        return 'another connection is inside a transaction that has written'
    }
    return undefined
  }

  /** Everything was committed upstream: what clients have open goes on in the next transaction. */
  committed(): void {
    for (const { transaction } of this.#open) transaction.goOn()
    this.#open = []
  }

  /** The transactions inside of the session's go with it. */
  loseAbove(session: Session): void {
    const above = this.#above(session)
    this.#open = this.#open.filter(other => !above.includes(other))
    for (const lost of above) lost.lose()
  }

  #above(session: Session): Session[] {
    const at = this.#open.indexOf(session)
    return at < 0 ? [] : this.#open.slice(at + 1)
  }
}
