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
