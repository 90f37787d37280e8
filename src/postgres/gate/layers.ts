import type { Place } from '../../failure'
import { join, statement } from './request'
import type { Request } from './upstream'

/** Whose a layer is. */
export interface Owner {
  /** In words, such as `the connection opened at versions/a1.py:12`. */
  readonly who: string
  /** Where in the user's code the connection was taken; undefined where that is nobody's script. */
  readonly place: Place | undefined
  /** These layers are gone upstream, since nothing was written in them. */
  dropped(layers: Layer[]): void
  /** The tables of which the owner's open transaction has changed rows, by oid, with their names. */
  readonly changed: Map<string, string>
  /** Whether its transaction sees the rows of its first statement's time only (REPEATABLE READ, SERIALIZABLE), and that was. */
  readonly keepsSnapshot: boolean
  /** What of its open transaction has to do with that table, for people. */
  deedOn(table: string): Deed
  /** The statements of its open transaction that look as if they wrote or locked something, the first of them. */
  readonly deeds: readonly string[]
  /** The first statement of its open transaction that changes the catalog; empty where there is none. */
  readonly definition: string
}

/**
 * A savepoint upstream: a turn of a client in its transaction, or a savepoint of the client's own. One that has others
 * on top of it has written: what only read is released when another client gets the turn.
 */
export interface Layer {
  readonly savepoint: string
  readonly owner: Owner
  /** `prepared`: by PREPARE TRANSACTION. `committed`: nobody goes back to it, and it is released once it is on top. */
  status: 'open' | 'prepared' | 'committed'
  /** What it is there for, to tell people: the first statement that looks as if it wrote, else the first one. */
  deed: { sql: string; writes: boolean } | undefined
  /** What another transaction has committed on top of it: to roll back would undo that as well. */
  carries: Deed | undefined
  /** How many layers had written when it was set, if that was asked. */
  writtenBefore: number | undefined
  /** What was written in it was inside of a savepoint and is undone, though PostgreSQL still counts it as written. */
  isBlank: boolean
  /** Rows were locked in it. PostgreSQL counts that as written, but not where an earlier transaction of the batch had locked the row as well. */
  locks: boolean
}

/** Who has written what. */
export interface Deed extends Pick<Owner, 'who' | 'place'> {
  sql: string
}

/** What was done in layers of one owner. */
function deedOf([first, ...more]: [Layer, ...Layer[]]): Deed {
  const { deed } = [first, ...more].find(layer => layer.deed?.writes) ?? first
  return { who: first.owner.who, place: first.owner.place, sql: deed?.sql ?? '' }
}

/** A cursor that is open: it goes with the savepoints that were there when it was declared. */
interface Cursor {
  owner: Owner
  name: string
  sql: string
  /** Whether it outlives its transaction. */
  hold: boolean
  below: Layer[]
}

/** The transactions of all clients as they lie on top of one another upstream, by the answers that have come. */
export class Layers {
  /** The lowest first. */
  #stack: Layer[] = []
  readonly #cursors: Cursor[] = []
  /** Whether PostgreSQL was asked what was written since the owner of the top layer had the turn. */
  isSurveyed = true

  get top(): Layer | undefined {
    return this.#stack.at(-1)
  }

  get height(): number {
    return this.#stack.length
  }

  get isEmpty(): boolean {
    return this.#stack.length === 0
  }

  /** Whose transactions are open, the one that lies lowest first. */
  get owners(): Owner[] {
    return [...new Set(this.#stack.filter(({ status }) => status !== 'committed').map(({ owner }) => owner))]
  }

  push(layer: Layer): void {
    this.#stack.push(layer)
  }

  /** Whether nothing of another's lies on top of it; so it is also for one that is only about to be there. */
  isUncovered(layer: Layer): boolean {
    const at = this.#stack.indexOf(layer)
    return (
      at < 0 || this.#stack.slice(at).every(({ owner, status }) => owner === layer.owner && status === layer.status)
    )
  }

  /** Whether nothing lies between the two, of which the upper one may be only about to be there. */
  areAdjacent(lower: Layer, upper: Layer): boolean {
    const at = this.#stack.indexOf(upper)
    const below = at < 0 ? this.top : this.#stack[at - 1]
    return below === lower || (at < 0 && !this.#stack.includes(lower))
  }

  /** What keeps it from being rolled back: what another transaction has written since; undefined where nothing does. */
  obstacle(layer: Layer): Deed | undefined {
    const at = this.#stack.indexOf(layer)
    if (at < 0) return undefined
    for (const other of this.#stack.slice(at)) {
      if (other.carries) return other.carries
      if (other.owner !== layer.owner || other.status !== layer.status) return deedOf([other])
    }
    const cursor = this.#cursorOn(layer)
    return cursor && { who: cursor.owner.who, place: cursor.owner.place, sql: cursor.sql }
  }

  /** Whether another's cursor or portal would go with it. */
  bearsCursor(layer: Layer): boolean {
    return this.#cursorOn(layer) !== undefined
  }

  #cursorOn(layer: Layer): Cursor | undefined {
    return this.#cursors.find(({ owner, below }) => owner !== layer.owner && below.includes(layer))
  }

  /** A cursor, or a portal, is there until it is closed or its transaction ends. */
  opened(owner: Owner, name: string, sql: string, hold: boolean): void {
    this.closed(owner, name)
    this.#cursors.push({ owner, name, sql, hold, below: [...this.#stack] })
  }

  closed(owner: Owner, name: string): void {
    this.#removeCursors(cursor => cursor.owner === owner && cursor.name === name)
  }

  /** The owner's transaction has ended; or it has gone, and `all` of its cursors with it. */
  ended(owner: Owner, { all = false } = {}): void {
    this.#removeCursors(cursor => cursor.owner === owner && (all || !cursor.hold))
  }

  #removeCursors(isGone: (cursor: Cursor) => boolean): void {
    this.#cursors.splice(0, Number.POSITIVE_INFINITY, ...this.#cursors.filter(cursor => !isGone(cursor)))
  }

  /** How many layers lie below the owner's open ones on top. */
  floorOf(owner: Owner): number {
    return this.#stack.findLastIndex(layer => layer.owner !== owner || layer.status !== 'open') + 1
  }

  /** Whether what the owner releases becomes part of what another can still roll back. */
  isAboveOthers(owner: Owner): boolean {
    const below = this.#stack[this.floorOf(owner) - 1]
    return below !== undefined && below.status !== 'committed'
  }

  /** The open transactions of others, which have written. */
  othersOpen(owner: Owner): Owner[] {
    return this.owners.filter(other => other !== owner)
  }

  /** What the owner has done in its open transaction, for people. */
  deedOf(owner: Owner): Deed {
    const [first, ...more] = this.#stack.filter(layer => layer.owner === owner && layer.status !== 'committed')
    return first ? deedOf([first, ...more]) : { who: owner.who, place: owner.place, sql: '' }
  }

  /** The layers were rolled back, or released without having written. */
  remove(layers: Layer[]): void {
    this.#stack = this.#stack.filter(layer => !layers.includes(layer))
  }

  /** They were committed, and those that are uncovered were released; `wrote`: something was written in those. */
  commit(layers: Layer[], wrote: boolean): void {
    const released = layers.filter(layer => this.isUncovered(layer))
    for (const layer of layers) layer.status = 'committed'
    this.remove(released)
    if (wrote) this.#load(released)
  }

  /** Everything behind the setting of that layer is undone, cursors too: its owner's layers that had not written before are blank again. */
  rolledBackTo(layer: Layer): void {
    const { owner, writtenBefore = Number.POSITIVE_INFINITY } = layer
    this.#removeCursors(({ below }) => below.includes(layer))
    for (const [at, below] of this.#stack.slice(0, Math.max(0, this.#stack.indexOf(layer))).entries()) {
      if (below.owner === owner && (at >= writtenBefore || !below.deed)) below.isBlank = true
    }
  }

  /** Everything was committed upstream. */
  clear(): void {
    this.#stack = []
  }

  /** Releases what is committed, as far as it is on top. */
  settle(): Request {
    const open = this.#stack.findLastIndex(({ status }) => status !== 'committed')
    const released = this.#stack.splice(open + 1)
    const [lowest] = released
    if (!lowest) return join()
    this.#load(released)
    return statement(`RELEASE SAVEPOINT ${lowest.savepoint}`)
  }

  /** What was found at a survey: only so many layers of the stack have an id, and with it anything written. */
  keep(written: number): Request {
    this.isSurveyed = true
    const isOurs = (layer: Layer) => layer.owner === this.top?.owner && layer.isBlank && !layer.carries && !layer.locks
    const locked = this.#stack.findLastIndex(({ locks }) => locks) + 1
    let height = Math.max(Math.min(written, this.height), locked)
    for (let top = this.#stack[height - 1]; top && isOurs(top); top = this.#stack[height - 1]) height--
    const dropped = this.#stack.splice(height)
    const [lowest] = dropped
    if (!lowest) return join()
    lowest.owner.dropped(dropped)
    return statement(`RELEASE SAVEPOINT ${lowest.savepoint}`)
  }

  /** What is released is part of the layer below from then on. */
  #load([lowest, ...more]: Layer[]): void {
    const { top } = this
    if (lowest && top && top.status !== 'committed') top.carries ??= deedOf([lowest, ...more])
  }
}
