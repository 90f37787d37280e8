import type { AdvisoryLocks } from './advisory'
import {
  meetsLockedRows,
  meetsTemporaryTable,
  readsSinceSnapshot,
  readsUncommitted,
  readsUncounted,
  seesUncommitted,
  sharesAdvisoryLock,
  sharesSequence,
} from './conflict'
import type { Dirty, Isolation } from './isolation'
import type { Deed, Layers, Owner } from './layers'
import {
  asksForLastValue,
  bareName,
  locksRows,
  looksIntoCatalog,
  looksLikeCreation,
  namesTable,
  passesLocks,
  resolvesConflicts,
  setsCounting,
  tablesRead,
} from './looks'
import type { Participant } from './participant'
import type { Survey } from './survey'
import type { ServerError, Tape } from './tape'
import type { Understood } from './understand'
import type { Upstream } from './upstream'

/** What of the gate it needs to know what a session may see. */
export interface View {
  readonly upstream: Upstream
  readonly tape: Tape
  readonly layers: Layers
  readonly isolation: Isolation
  readonly advisory: AdvisoryLocks
  /** All that are connected. */
  readonly sessions: ReadonlySet<Participant>
  /** Told when a client sees the catalog as another has changed it and not committed. */
  onCatalogRead(words: string): void
}

const silent = ({ who, place }: Pick<Owner, 'who' | 'place'>): Deed => ({ who, place, sql: '' })

const portalNamed = (name: string) => ({ name, hold: false })

/** What a session sees of what others have changed and not committed. */
export class Sight {
  /** By oid: of that nothing may be read. */
  #dirty = new Map<string, Dirty>()
  /** What of it the unit's statements would see; one that has looked for it knows. */
  #visible = new Map<string, Dirty>()
  /** The same for a cursor or portal, as of the time when it was declared. */
  readonly #cursors = new Map<string, Map<string, Dirty>>()
  /** The last statement, for people. */
  #statement = ''
  /** Statements about advisory locks, and which ones were held before the first of them. */
  #asked: { sql: string; before: string[] | undefined } | undefined

  constructor(
    private readonly owner: Participant,
    private readonly view: View,
  ) {}

  /** Whether there is anything that must not be seen, so that answers have to be looked at before they are handed on. */
  get isClouded(): boolean {
    return this.#dirty.size > 0 || this.#asked !== undefined
  }

  /** A unit begins. */
  begin(): void {
    this.#dirty = this.view.isolation.dirtyFor(this.owner)
    this.#visible.clear()
    this.#asked = undefined
  }

  /** Its answers were looked at. */
  clear(): void {
    this.#dirty.clear()
  }

  /** The cursors and portals have gone, or that one. */
  forget(name?: string): void {
    if (name === undefined) this.#cursors.clear()
    else this.#cursors.delete(name)
    if (name !== undefined) this.view.layers.closed(this.owner, name)
  }

  /** A statement is about to be carried out; what it returns is called when that has succeeded. */
  watch({ text, leaves, fetches, closes }: Understood, portal: string | undefined): () => void {
    const { layers } = this.view
    this.#statement = text
    if (closes !== undefined) layers.closed(this.owner, closes)
    if (looksIntoCatalog(text)) this.#tellOfCatalog()
    this.#refuseWhatIsOneSessions(text)
    if (setsCounting(text)) this.view.isolation.uncounted(this.owner)
    const cursor = fetches ?? portal
    const seen = (cursor && this.#cursors.get(cursor)) || this.#dirty
    for (const [oid, dirty] of seen) this.#visible.set(oid, dirty)
    const opened =
      leaves?.kind === 'cursor' ? leaves : portal && !this.#cursors.has(portal) ? portalNamed(portal) : undefined
    const before = new Map(this.#dirty)
    return () => {
      if (!opened) return
      this.#cursors.set(opened.name, before)
      layers.opened(this.owner, opened.name, text, opened.hold)
    }
  }

  /** A statement about advisory locks is about to be carried out; what it returns is told which ones are held before. */
  asksForLock(sql: string): (before: string[]) => void {
    const asked = { sql: `${this.#asked?.sql ?? ''} ${sql}`, before: this.#asked?.before }
    this.#asked = asked
    return before => {
      asked.before ??= before
    }
  }

  /** Whether nothing was seen that another has not committed; otherwise the batch has failed. `refusal`: the unit's error. */
  isClean(found: Survey, refusal: ServerError | undefined): boolean {
    const { isolation, layers, tape, upstream } = this.view
    const seen = isolation.firstOf(this.#visible, found) ?? this.#stumbledOver(refusal)
    isolation.attribute(this.owner, found)
    const [uncounted] = found.counts ? [] : layers.othersOpen(this.owner)
    const { sql = '', before } = this.#asked ?? {}
    this.#asked = undefined
    const holder = before && this.view.advisory.note(this.owner, sql, before, found.advisory)
    if (holder) upstream.abandon(sharesAdvisoryLock(this.#deed, silent(holder), tape.revision))
    else if (uncounted) upstream.abandon(readsUncounted(this.#deed, layers.deedOf(uncounted), tape.revision))
    else if (seen?.changedBy) {
      upstream.abandon(readsUncommitted(this.#deed, seen.changedBy.deedOn(seen.table), seen.table, tape.revision))
    } else if (seen) upstream.abandon(readsSinceSnapshot(this.#deed, seen.table, tape.revision))
    return !holder && !uncounted && !seen
  }

  /** A row that is not committed was in the way of one to be inserted: no counter tells, and PostgreSQL would have waited. */
  #stumbledOver({ code, table }: Partial<ServerError> = {}): Dirty | undefined {
    const isDuplicate = code === '23505' || code === '23P01'
    const resolves = resolvesConflicts(this.#statement)
    return [...this.#visible.values()].find(dirty => {
      const name = bareName(dirty.table)
      return (isDuplicate && dirty.changedBy && table === name) || (resolves && this.#statement.includes(name))
    })
  }

  /** Temporary tables, the last value of a sequence, and locks are one session's; here all of them are one. */
  #refuseWhatIsOneSessions(text: string): void {
    const { sessions, layers, isolation, tape, upstream } = this.view
    if (sessions.size < 2) return
    const { revision } = tape
    const uncounted = isolation.uncountedFor(this.owner)
    if (uncounted) return upstream.abandon(readsUncounted(this.#deed, layers.deedOf(uncounted), revision))
    const locked = passesLocks(text) ? this.#lockedBefore(text) : undefined
    if (locked) return upstream.abandon(meetsLockedRows(this.#deed, locked, revision))
    for (const other of sessions) {
      if (other === this.owner) continue
      // Of two temporary tables of one name PostgreSQL refuses the second.
      const table = !looksLikeCreation(text) && other.temporaryTables.find(name => namesTable(text, name))
      if (table) return upstream.abandon(meetsTemporaryTable(this.#deed, other.deedOn(table), table, revision))
      if (other.hasWritten && asksForLastValue(text)) {
        return upstream.abandon(sharesSequence(this.#deed, silent(other), revision))
      }
    }
  }

  /** What another one has locked in a table that the statement wants rows of, where they are not in its way. */
  #lockedBefore(text: string): Deed | undefined {
    const tables = tablesRead(text)
    const isCommon = (sql: string) => locksRows(sql) && tablesRead(sql).some(table => tables.includes(table))
    const found = this.view.layers.othersOpen(this.owner).flatMap(({ who, place, deeds }) => {
      const sql = deeds.find(isCommon)
      return sql === undefined ? [] : [{ who, place, sql }]
    })
    return found[0]
  }

  #tellOfCatalog(): void {
    const { layers, onCatalogRead } = this.view
    for (const { who, place, definition } of layers.othersOpen(this.owner)) {
      if (definition) onCatalogRead(seesUncommitted(this.#deed, { who, place, sql: definition }))
    }
  }

  get #deed(): Deed {
    const { who, place } = this.owner
    return { who, place, sql: this.#statement }
  }
}
