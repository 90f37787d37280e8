import type { Layers, Owner } from './layers'
import { changedBetween, nothing, readBetween, type Survey } from './survey'

/** A table whose rows are not what a client would see on a connection of its own. */
export interface Dirty {
  table: string
  /** Whose open transaction has changed rows of it; undefined where they were changed since the client's snapshot. */
  changedBy: Owner | undefined
}

/** What a client with a snapshot would not see. */
interface Snapshot {
  /** As it was when another one got the turn. */
  left: Survey
  /** What was changed in the turns of others, by oid. */
  since: Map<string, Dirty>
}

/**
 * Which tables each client's open transaction has changed, and who reads of them. One transaction cannot keep a client
 * from seeing what another has not committed; but PostgreSQL counts what is read, functions and triggers included.
 */
export class Isolation {
  #changes = nothing
  #reads = nothing
  readonly #snapshots = new Map<Owner, Snapshot>()
  /** Those whose open transactions nothing was counted of. */
  readonly #uncounted = new Set<Owner>()

  constructor(private readonly layers: Layers) {}

  /** What was changed until now is nobody's any more: it is committed, or undone. */
  begins(before: Survey): void {
    this.#changes = before
  }

  /** What has been changed since the survey before is the owner's. */
  attribute(owner: Owner, survey: Survey): void {
    if (!survey.counts) this.uncounted(owner)
    for (const [oid, name] of changedBetween(this.#changes, survey)) owner.changed.set(oid, name)
    this.#changes = this.#reads = survey
  }

  /** What has been changed since the survey before was undone. */
  forget(survey: Survey): void {
    this.#changes = this.#reads = survey
  }

  /** What the owner's open transaction has done is not counted, or not all of it. */
  uncounted(owner: Owner): void {
    this.#uncounted.add(owner)
  }

  /** Another one whose open transaction has written, and of which nobody can say what. */
  uncountedFor(owner: Owner): Owner | undefined {
    return this.layers.othersOpen(owner).find(other => this.#uncounted.has(other))
  }

  /** The owner's transaction has ended. */
  ended(owner: Owner): void {
    owner.changed.clear()
    this.#uncounted.delete(owner)
    this.#snapshots.delete(owner)
  }

  /** Another one gets the turn, or the owner has gone. */
  leaves(owner: Owner, survey: Survey): void {
    if (owner.keepsSnapshot)
      this.#snapshots.set(owner, { since: new Map(), ...this.#snapshots.get(owner), left: survey })
  }

  /** The owner gets the turn again; the survey is a whole one where it keeps a snapshot. */
  returns(owner: Owner, survey: Survey): void {
    const snapshot = this.#snapshots.get(owner)
    if (!snapshot) return
    this.#reads = survey
    for (const [oid, table] of changedBetween(snapshot.left, survey)) {
      snapshot.since.set(oid, { table, changedBy: undefined })
    }
  }

  /** What has been read since the survey before, and is `dirty`. */
  firstOf(dirty: Map<string, Dirty>, survey: Survey): Dirty | undefined {
    const read = readBetween(this.#reads, survey)
    return [...dirty].find(([oid]) => read.has(oid))?.[1]
  }

  /** What the owner must not read now, by oid. */
  dirtyFor(owner: Owner): Map<string, Dirty> {
    const dirty = new Map(this.#snapshots.get(owner)?.since)
    for (const changedBy of this.layers.othersOpen(owner)) {
      for (const [oid, table] of changedBy.changed) dirty.set(oid, { table, changedBy })
    }
    return dirty
  }
}
