import { required } from '../../failure'
import type { Layer, Layers, Owner } from './layers'
import { close, dropTable, isCursor, type Leaving } from './leavings'
import { locksRows, looksLikeRead } from './looks'
import { afterwards, checkDeferredConstraints, join, literal, statement } from './request'
import type { Savepoints } from './savepoints'
import type { Values } from './settings'
import { type Survey, surveyOfChanges, surveyOfWritten } from './survey'
import { type Before, copyOf, idle, type Transaction, TransactionViews } from './transaction'
import type { Understood } from './understand'
import type { Finish, Unit } from './unit'
import type { Request } from './upstream'
import * as wire from './wire'

/** What a transaction has to know of those of other clients around it. */
export interface Nest {
  readonly owner: Owner
  readonly layers: Layers
  /** Whether a COMMIT shall check the deferred constraints. */
  readonly canCheckConstraints: boolean
  /** Whether other clients are connected. */
  isShared(): boolean
  /** Whether the unit at hand runs outside of any transaction upstream. */
  isOutside(): boolean
  /** What is written from now on is this transaction's; `before` was not. */
  begins(before: Survey): void
  /** It has ended, with nothing left to be undone. */
  ended(): void
  /** Sets the client's settings to what they were. */
  restore(values: Values): Request
  /** That cursor or portal is gone. */
  closed(cursor: string): void
  /** It is to be rolled back, and cannot without what another has written: nothing more may be run, or committed. */
  cannotUndo(layer: Layer): void
}

export const aborted = 'current transaction is aborted, commands ignored until end of transaction block'

/** The client's transaction as savepoints upstream: BEGIN, COMMIT and ROLLBACK become SAVEPOINT, RELEASE and ROLLBACK TO. */
export class NestedTransaction {
  readonly views = new TransactionViews()
  /** A COMMIT is under way: a failure in it undoes the transaction. */
  #committing = false

  constructor(
    private readonly unit: Unit,
    private readonly savepoints: Savepoints,
    private readonly nest: Nest,
  ) {}

  /** Makes sure that what follows is inside of this transaction's savepoint, and refuses it in a failed one. */
  enter(finish?: Finish): void {
    if (this.views.ahead.status === 'E') this.unit.refuse('25P02', aborted, finish)
    else this.open()
  }

  open(): void {
    if (this.unit.failed || this.nest.isOutside() || this.isInside) return
    // A statement outside of a transaction needs no look at what was changed before: nobody else speaks until it is over.
    if (this.views.ahead.status === 'T') {
      this.unit.send(surveyOfChanges(before => this.nest.begins(before), this.unit.deliver))
    }
    this.#push()
  }

  /** What the client is about to do, for people, should it stand in another's way. */
  note({ text: sql }: Understood): void {
    const layer = this.views.ahead.layers.at(-1)
    if (layer) layer.locks ||= locksRows(sql)
    if (!layer || layer.deed?.writes) return
    const writes = !looksLikeRead(sql)
    if (!layer.deed || writes) layer.deed = { sql, writes }
  }

  /** Whether the next statement belongs into the layer on top. */
  get isInside(): boolean {
    const { layers, savepoints } = this.views.ahead
    const top = layers.at(-1)
    if (!top || top.carries || top.isBlank || !this.nest.layers.isUncovered(top)) return false
    // What fails is undone in the layer on top, and nothing of another's with it.
    if (this.nest.layers.bearsCursor(top)) return false
    return savepoints.every(({ at }) => at < layers.length)
  }

  #push({ asksBefore = false } = {}): void {
    const { owner } = this.nest
    const savepoint = this.savepoints.newName()
    const nothing = { deed: undefined, carries: undefined, writtenBefore: undefined, isBlank: false, locks: false }
    const layer: Layer = { savepoint, owner, status: 'open', ...nothing }
    const ask = (found: Survey) => {
      layer.writtenBefore = found.written
    }
    if (asksBefore) this.unit.send(surveyOfWritten(ask, this.unit.deliver))
    this.views.ahead.layers.push(layer)
    const done = () => {
      this.views.now.layers.push(layer)
      this.nest.layers.push(layer)
    }
    this.unit.send(statement(`SAVEPOINT ${savepoint}`, { error: this.unit.deliver, done }))
  }

  begin(tag: string, level: string | undefined, finish: Finish): void {
    this.complete(tag, finish, transaction => {
      Object.assign(transaction, { status: 'T', level })
    })
  }

  commit(chain: boolean, finish: Finish): void {
    const { request, ended } = this.#commitment(this.views.ahead)
    this.unit.send(request)
    this.complete('COMMIT', finish, transaction => {
      if (transaction === this.views.now) ended(transaction.layers)
      leave(transaction, chain)
    })
  }

  rollBack(chain: boolean, finish: Finish): void {
    const { layers, fleeting, before } = this.views.ahead
    this.#undo(layers, lowest => this.#toAndAway(lowest), fleeting.filter(isCursor), before)
    this.complete('ROLLBACK', finish, transaction => {
      if (transaction === this.views.now) this.#undone(transaction.layers)
      leave(transaction, chain)
    })
  }

  savepoint(name: string, finish: Finish): void {
    this.enter(finish)
    if (this.unit.failed) return
    const at = this.views.ahead.layers.length
    // Alone, it matters only where what has run so far may have written or not; others may come later.
    const isUncertain = this.views.ahead.layers.at(-1)?.deed?.writes === false
    this.#push({ asksBefore: isUncertain || this.nest.isShared() })
    this.complete('SAVEPOINT', finish, transaction => {
      const { covered, fleeting } = copyOf(transaction)
      transaction.savepoints.push({ name, at, covered, fleeting, before: undefined })
    })
  }

  toSavepoint(kind: 'release' | 'rollback-to', which: number, finish: Finish): void {
    const { layers, savepoints } = this.views.ahead
    const { at, fleeting, before } = required(savepoints[which], 'such savepoint')
    const inside = layers.slice(at)
    if (kind === 'release') return this.#release(which, inside, finish)
    const [lowest] = inside
    const gone = this.views.ahead.fleeting.slice(fleeting.length).filter(isCursor)
    const to = ({ savepoint }: Layer) => statement(`ROLLBACK TO SAVEPOINT ${savepoint}`, { error: this.unit.deliver })
    this.#undo(inside, to, gone, before)
    this.complete('ROLLBACK', finish, transaction => {
      const { covered, fleeting } = required(transaction.savepoints[which], 'such savepoint')
      if (transaction === this.views.now) {
        this.nest.layers.remove(transaction.layers.slice(at + 1))
        if (lowest) this.nest.layers.rolledBackTo(lowest)
        for (const { name } of gone) this.nest.closed(name)
      }
      transaction.layers.length = Math.min(transaction.layers.length, at + 1)
      Object.assign(transaction, { covered: [...covered], fleeting: [...fleeting], status: 'T' })
      transaction.savepoints.length = which + 1
    })
  }

  /** What stays is part of the layer below, or stands in a savepoint of its own where another has written since. */
  #release(which: number, inside: Layer[], finish: Finish): void {
    const { savepoints } = this.views.ahead
    const { at } = required(savepoints[which], 'such savepoint')
    const [lowest] = inside
    const isAlone = savepoints.slice(0, which).every(other => other.at < at)
    const into = this.views.ahead.layers[at - 1]
    const fits = isAlone && into !== undefined && (!lowest || this.nest.layers.areAdjacent(into, lowest))
    const goes = fits && inside.every(layer => !layer.carries && this.nest.layers.isUncovered(layer))
    if (into && goes) {
      into.locks ||= inside.some(({ locks }) => locks)
      into.deed = [into, ...inside].find(({ deed }) => deed?.writes)?.deed ?? into.deed ?? inside[0]?.deed
    }
    // Whether it has written matters only where what it is released into has not.
    let wrote = true
    if (lowest && goes) {
      const height = this.#heightOf(lowest)
      const look = surveyOfWritten(({ written }) => {
        wrote = written > height
      }, this.unit.deliver)
      if (into && this.nest.isShared()) this.unit.send(look)
      this.unit.send(statement(`RELEASE SAVEPOINT ${lowest.savepoint}`, { error: this.unit.deliver }))
    }
    this.complete('RELEASE', finish, transaction => {
      if (goes && transaction === this.views.now) {
        this.nest.layers.remove(inside)
        if (into) into.isBlank &&= !wrote
      }
      if (goes) transaction.layers.length = Math.min(transaction.layers.length, at)
      transaction.savepoints.length = which
    })
  }

  /** How many layers lie below one of this transaction's on top. */
  #heightOf(layer: Layer): number {
    const onTop = this.views.ahead.layers.filter(other => this.nest.layers.isUncovered(other))
    return this.nest.layers.floorOf(this.nest.owner) + onTop.indexOf(layer)
  }

  /** PREPARE TRANSACTION: the savepoint stays, so that ROLLBACK PREPARED can still undo it. */
  prepare(gid: string, finish: Finish): void {
    this.unit.send(this.#asACommitDoes(this.views.ahead))
    this.complete('PREPARE TRANSACTION', finish, transaction => {
      const { layers, prepared } = transaction
      if (transaction === this.views.now) for (const layer of layers) layer.status = 'prepared'
      Object.assign(transaction, idle(), { prepared: [...prepared, { gid, layers }] })
    })
  }

  #preparedAt(at: number): Layer[] {
    return required(this.views.ahead.prepared[at], 'such prepared transaction').layers
  }

  canUndoPrepared(at: number): boolean {
    return this.#preparedAt(at).every(layer => !this.nest.layers.obstacle(layer))
  }

  finishPrepared(words: 'COMMIT PREPARED' | 'ROLLBACK PREPARED', at: number, finish: Finish): void {
    const layers = this.#preparedAt(at)
    const undoes = words === 'ROLLBACK PREPARED'
    if (undoes && layers[0]) this.unit.send(this.#toAndAway(layers[0]))
    this.complete(words, finish, transaction => {
      transaction.prepared.splice(at, 1)
      if (transaction !== this.views.now) return
      if (undoes) this.#undone(layers)
      else for (const layer of layers) layer.status = 'committed'
      if (!undoes) this.nest.ended()
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

  /** Rolls back what is open when its client has gone, prepared transactions too. */
  farewell(): { request: Request; savepoint: string } | undefined {
    const { layers, prepared } = this.views.now
    let lowest: Layer | undefined
    const newestFirst = [...prepared.map(each => each.layers), layers].reverse()
    for (const undone of newestFirst) {
      if (!this.#canUndo(undone)) return undefined
      this.#undone(undone)
      lowest = undone[0] ?? lowest
    }
    return lowest && { request: this.#toAndAway(lowest), savepoint: lowest.savepoint }
  }

  /** A unit has ended: what it was outside of a transaction is committed, or undone, and returned as what is still to do. */
  conclude(failed: boolean): { commit: Request } | { undo: string } | undefined {
    const { now } = this.views
    const { layers, status } = now
    if (failed && (status === 'I' || this.#committing)) {
      // Outside of a transaction, or in its COMMIT, a failure undoes what PostgreSQL would have undone.
      this.#committing = false
      const canUndo = this.#canUndo(layers)
      this.#undone(layers)
      leave(now, false)
      return canUndo && layers[0] ? { undo: layers[0].savepoint } : undefined
    }
    if (failed) now.status = 'E'
    if (now.status !== 'I' || layers.length === 0) return undefined
    // A statement outside of a transaction commits by itself.
    const { request, ended } = this.#commitment(now)
    const committed = () => {
      this.#committing = false
      ended(now.layers)
      leave(now, false)
    }
    return { commit: join(request, afterwards(committed)) }
  }

  /** Undoes the layers; and by hand what is from a time when nothing was written, and a savepoint released for that. */
  #undo(layers: Layer[], back: (lowest: Layer) => Request, cursors: Leaving[], before: Before | undefined): void {
    if (!this.#canUndo(layers)) return
    const [lowest] = layers
    if (lowest) this.unit.send(back(lowest))
    for (const cursor of cursors) this.unit.send(close(cursor))
    if (before?.values) this.unit.send(this.nest.restore(before.values))
  }

  #canUndo(layers: Layer[]): boolean {
    const obstructed = layers.find(layer => this.nest.layers.obstacle(layer))
    if (obstructed) this.nest.cannotUndo(obstructed)
    return obstructed === undefined
  }

  #undone(layers: Layer[]): void {
    this.nest.layers.remove(layers)
    this.nest.ended()
  }

  /** What stands for a COMMIT upstream, and what to do about the layers when it has succeeded. */
  #commitment(transaction: Transaction): { request: Request; ended: (layers: Layer[]) => void } {
    const { owner, layers } = this.nest
    const released = transaction.layers.find(layer => layers.isUncovered(layer))
    const error = this.unit.deliver
    // Whether it has written matters only to who is below.
    const floor = layers.floorOf(owner)
    let wrote = false
    const look = surveyOfWritten(({ written }) => {
      wrote = written > floor
    })
    const request = join(
      this.#asACommitDoes(transaction),
      released && layers.isAboveOthers(owner) ? look : join(),
      released ? statement(`RELEASE SAVEPOINT ${released.savepoint}`, { error }) : join(),
      this.#uncovered(transaction),
    )
    const ended = (committed: Layer[]) => {
      layers.commit(committed, wrote)
      this.nest.ended()
    }
    return { request, ended }
  }

  /** What else a COMMIT does: checks, and what ends with it. */
  #asACommitDoes({ layers, fleeting }: Transaction): Request {
    const { owner, canCheckConstraints } = this.nest
    const checks = layers.length > 0 && canCheckConstraints
    const others = this.nest.layers.othersOpen(owner)
    const changed = others.length > 0 ? new Set(others.flatMap(other => [...other.changed.keys()])) : undefined
    const sql = [
      ...(checks ? [checkDeferredConstraints(changed)] : []),
      ...fleeting.filter(({ kind }) => kind === 'table').map(dropTable),
    ]
    return join(
      afterwards(() => {
        this.#committing = true
      }),
      ...fleeting.filter(isCursor).map(close),
      ...sql.map(text => statement(text, { error: this.unit.deliver })),
    )
  }

  /** Settings that a SET LOCAL has covered are what they were. */
  #uncovered({ covered }: Transaction): Request {
    if (covered.length === 0) return join()
    const values = covered.map(({ name, key }) => `(${literal(name)}, pg_catalog.current_setting('${key}', true))`)
    const restore = `SELECT pg_catalog.set_config(name, pg_catalog.substr(value, 2), false)
      FROM (VALUES ${values.join(', ')}) AS covered (name, value) WHERE pg_catalog.starts_with(value, '=')`
    return statement(restore, { error: this.unit.deliver })
  }

  #toAndAway({ savepoint }: Layer): Request {
    const error = this.unit.deliver
    return join(
      statement(`ROLLBACK TO SAVEPOINT ${savepoint}`, { error }),
      statement(`RELEASE SAVEPOINT ${savepoint}`, { error }),
    )
  }
}

function leave(transaction: Transaction, chain: boolean): void {
  const { prepared, level } = transaction
  Object.assign(transaction, idle(), chain ? { status: 'T', level, prepared } : { prepared })
}
