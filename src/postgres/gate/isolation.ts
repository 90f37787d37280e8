import type { Layers, Owner } from './layers'
import { difference, nothing, type Survey } from './survey'

/** A table of which another's open transaction has changed rows. */
export interface Dirty {
  table: string
  changedBy: Owner
}

/** A table's name as regclass writes it, without its schema and quotes. */
export const bareName = (table: string): string => table.replace(/^.*\./, '').replaceAll('"', '')

/**
 * Which tables each client's open transaction has changed, and who reads of them. One transaction cannot keep a client
 * from seeing what another has not committed; but PostgreSQL counts what is read, functions and triggers included.
 */
export class Isolation {
  #changes = nothing
  #reads = nothing

  constructor(private readonly layers: Layers) {}

  /** What was changed until now is nobody's any more: it is committed, or undone. */
  begins(before: Survey): void {
    this.#changes = before
  }

  /** What has been changed since the survey before is the owner's. */
  attribute(owner: Owner, survey: Survey): void {
    for (const [oid, name] of difference(this.#changes, survey, 'changes')) owner.changed.set(oid, name)
    this.#changes = this.#reads = survey
  }

  /** What has been changed since the survey before was undone. */
  forget(survey: Survey): void {
    this.#changes = this.#reads = survey
  }

  /** What has been read since the survey before, and is `dirty`. */
  firstOf(dirty: Map<string, Dirty>, survey: Survey): Dirty | undefined {
    const read = difference(this.#reads, survey, 'reads')
    return [...dirty].find(([oid]) => read.has(oid))?.[1]
  }

  /** What the owner must not read now, by oid. */
  dirtyFor(owner: Owner): Map<string, Dirty> {
    const dirty = new Map<string, Dirty>()
    for (const changedBy of this.layers.othersOpen(owner)) {
      for (const [oid, table] of changedBy.changed) dirty.set(oid, { table, changedBy })
    }
    return dirty
  }
}
