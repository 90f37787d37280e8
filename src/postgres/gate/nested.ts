import { close, dropTable } from './leavings'
import { afterwards, checkDeferredConstraints, join, literal, statement, statements } from './request'
import type { Savepoints } from './savepoints'
import { copyOf, idle, type Transaction, TransactionViews } from './transaction'
import type { Finish, Unit } from './unit'
import type { Request } from './upstream'
import * as wire from './wire'

/** What a transaction has to know of those of other clients around it and inside of it. */
export interface Nest {
  /** It became a savepoint upstream, or stopped being one. */
  opened(): void
  closed(): void
  /** Whether a COMMIT shall check the deferred constraints: not inside of another client's transaction. */
  checksConstraints(): boolean
}

export const aborted = 'current transaction is aborted, commands ignored until end of transaction block'

/** The client's transaction as savepoints upstream: BEGIN, COMMIT and ROLLBACK become SAVEPOINT, RELEASE and ROLLBACK TO. */
export class NestedTransaction {
  readonly views = new TransactionViews()
  /** The unit at hand runs outside of any transaction upstream. */
  isOutside = false
  /** A COMMIT is under way: a failure in it undoes the transaction. */
  #committing = false

  constructor(
    private readonly unit: Unit,
    private readonly savepoints: Savepoints,
    private readonly nest: Nest,
  ) {}

  /** Makes sure that what follows is inside this transaction's savepoint, and refuses it in a failed one. */
  enter(finish?: Finish): void {
    if (this.views.ahead.status === 'E') this.unit.refuse('25P02', aborted, finish)
    else this.open()
  }

  open(): void {
    if (this.views.ahead.base || this.unit.failed || this.isOutside) return
    const base = this.savepoints.newName()
    this.views.ahead.base = base
    const done = () => {
      this.views.now.base = base
      this.nest.opened()
    }
    this.unit.send(statement(`SAVEPOINT ${base}`, { error: this.unit.deliver, done }))
  }

  willWrite(): void {
    this.views.change(transaction => {
      transaction.wrote = true
      for (const prepared of transaction.prepared) prepared.followed = true
    })
  }

  begin(tag: string, finish: Finish): void {
    this.complete(tag, finish, transaction => {
      transaction.status = 'T'
    })
  }

  commit(chain: boolean, finish: Finish): void {
    this.unit.send(this.#commitment(this.views.ahead))
    this.complete('COMMIT', finish, transaction => this.#leave(transaction, chain))
  }

  rollBack(chain: boolean, finish: Finish): void {
    const { base } = this.views.ahead
    if (base) this.unit.send(this.#toAndAway(base))
    this.complete('ROLLBACK', finish, transaction => this.#leave(transaction, chain))
  }

  savepoint(name: string, finish: Finish): void {
    this.enter(finish)
    if (this.unit.failed) return
    this.willWrite()
    const upstream = this.savepoints.newName()
    this.unit.send(statement(`SAVEPOINT ${upstream}`, { error: this.unit.deliver }))
    this.complete('SAVEPOINT', finish, transaction => {
      const { covered, fleeting } = copyOf(transaction)
      transaction.savepoints.push({ name, upstream, covered, fleeting })
    })
  }

  toSavepoint(kind: 'release' | 'rollback-to', at: number, finish: Finish): void {
    const words = kind === 'release' ? 'RELEASE SAVEPOINT' : 'ROLLBACK TO SAVEPOINT'
    const { upstream } = this.views.ahead.savepoints[at]!
    this.unit.send(statement(`${words} ${upstream}`, { error: this.unit.deliver }))
    this.complete(kind === 'release' ? 'RELEASE' : 'ROLLBACK', finish, transaction => {
      const { covered, fleeting } = transaction.savepoints[at]!
      if (kind === 'rollback-to') Object.assign(transaction, { covered: [...covered], fleeting: [...fleeting] })
      transaction.savepoints.length = kind === 'release' ? at : at + 1
      transaction.status = 'T'
    })
  }

  /** PREPARE TRANSACTION: the savepoint stays, so that ROLLBACK PREPARED can still undo it. */
  prepare(gid: string, finish: Finish): void {
    const { base } = this.views.ahead
    // Only what a COMMIT does beside the RELEASE: the savepoint that it releases is one inside.
    if (base) {
      const inner = this.savepoints.newName()
      this.unit.send(statement(`SAVEPOINT ${inner}`, { error: this.unit.deliver }))
      this.unit.send(this.#commitment({ ...this.views.ahead, base: inner }))
    }
    const prepared = { gid, base, followed: false }
    this.complete('PREPARE TRANSACTION', finish, transaction => {
      Object.assign(transaction, idle(), { prepared: [...transaction.prepared, prepared] })
    })
  }

  finishPrepared(words: 'COMMIT PREPARED' | 'ROLLBACK PREPARED', at: number, finish: Finish): void {
    const { base } = this.views.ahead.prepared[at]!
    // What is committed stays as a savepoint that nobody will go back to.
    if (base && words === 'ROLLBACK PREPARED') this.unit.send(this.#toAndAway(base))
    this.complete(words, finish, transaction => {
      transaction.prepared.splice(at, 1)
      if (transaction === this.views.now) this.#wasClosed()
    })
  }

  /** Answers in the server's place; `change` is what has become of the transaction. */
  complete(tag: string, finish: Finish, change: (transaction: Transaction) => void = () => {}): void {
    if (this.unit.failed) return
    change(this.views.ahead)
    this.unit.answer(wire.commandComplete(tag), () => {
      this.#committing = false
      change(this.views.now)
      finish(tag)
    })
  }

  /** Ends it upstream, where it only read, so that an outer one can go on; it opens anew when it is used again. */
  stepAside(): Request {
    const { base } = this.views.now
    this.views.change(transaction => {
      transaction.base = null
    })
    return statements(`RELEASE SAVEPOINT ${base}`)
  }

  /** Rolls it back, when its client has gone. */
  farewell(): Request {
    const base = this.views.outermostSavepoint
    return base ? statements(`ROLLBACK TO SAVEPOINT ${base}`, `RELEASE SAVEPOINT ${base}`) : join()
  }

  /** A unit has ended: what it was outside of a transaction is committed, or undone, and returned as what is still to do. */
  conclude(failed: boolean): { commit: Request } | { undo: string } | undefined {
    const { now } = this.views
    const { base } = now
    if (failed && (now.status === 'I' || this.#committing)) {
      // Outside of a transaction, or in its COMMIT, a failure undoes what PostgreSQL would have undone.
      this.#committing = false
      this.#leave(now, false)
      return base ? { undo: base } : undefined
    }
    if (failed) now.status = 'E'
    if (now.status !== 'I' || !base) return undefined
    // A statement outside of a transaction commits by itself.
    const committed = () => {
      this.#committing = false
      this.#leave(now, false)
    }
    return { commit: join(this.#commitment(now), afterwards(committed)) }
  }

  /** What stands for a COMMIT upstream. */
  #commitment({ base, covered, fleeting }: Transaction): Request {
    if (!base) return join()
    const values = covered.map(({ name, key }) => `(${literal(name)}, pg_catalog.current_setting('${key}', true))`)
    const restore = `SELECT pg_catalog.set_config(name, pg_catalog.substr(value, 2), false)
      FROM (VALUES ${values.join(', ')}) AS covered (name, value) WHERE pg_catalog.starts_with(value, '=')`
    const sql = [
      ...(this.nest.checksConstraints() ? [checkDeferredConstraints] : []),
      ...fleeting.filter(({ kind }) => kind === 'table').map(dropTable),
      `RELEASE SAVEPOINT ${base}`,
      ...(covered.length > 0 ? [restore] : []),
    ]
    return join(
      afterwards(() => {
        this.#committing = true
      }),
      ...fleeting.filter(({ kind }) => kind === 'cursor').map(close),
      ...sql.map(text => statement(text, { error: this.unit.deliver })),
    )
  }

  #toAndAway(savepoint: string): Request {
    const error = this.unit.deliver
    return join(
      statement(`ROLLBACK TO SAVEPOINT ${savepoint}`, { error }),
      statement(`RELEASE SAVEPOINT ${savepoint}`, { error }),
    )
  }

  #leave(transaction: Transaction, chain: boolean): void {
    const { base, prepared } = transaction
    Object.assign(transaction, idle(), { status: chain ? 'T' : 'I', prepared })
    if (transaction === this.views.now && base) this.#wasClosed()
  }

  #wasClosed(): void {
    if (!this.views.outermostSavepoint) this.nest.closed()
  }
}
