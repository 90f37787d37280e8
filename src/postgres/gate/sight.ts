import { meetsTemporaryTable, readsUncommitted, seesUncommitted, sharesSequence } from './conflict'
import { bareName, type Dirty, type Isolation } from './isolation'
import type { Deed, Layers, Owner } from './layers'
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
  /** All that are connected. */
  readonly sessions: ReadonlySet<Participant>
  /** Told when a client sees the catalog as another has changed it and not committed. */
  onCatalogRead(words: string): void
}

/** As SQLAlchemy's has_table() and get_columns() do, and what people write by hand; not what drivers ask for types. */
const looksIntoCatalog = /\b(pg_class|pg_attribute|information_schema|to_regclass|pg_tables)\b/i

/** Where SQL has the name of a table, without a schema. */
const namesTable = (name: string): RegExp =>
  new RegExp(
    `\\b(from|join|into|update|table|only|using|copy|truncate|exists)\\s+"?${escaped(name)}\\b(?!\\s*\\.)`,
    'i',
  )

const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')

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

  constructor(
    private readonly owner: Owner,
    private readonly view: View,
  ) {}

  /** Whether there is anything that must not be seen, so that answers have to be looked at before they are handed on. */
  get isClouded(): boolean {
    return this.#dirty.size > 0
  }

  /** A unit begins. */
  begin(): void {
    this.#dirty = this.view.isolation.dirtyFor(this.owner)
    this.#visible.clear()
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
    if (looksIntoCatalog.test(text)) this.#tellOfCatalog()
    // Of two temporary tables of one name PostgreSQL refuses the second.
    if (!/^\s*create\b/i.test(text)) this.#refuseWhatIsOneSessions(text)
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

  /** Whether nothing was seen that another has not committed; otherwise the batch has failed. `refusal`: the unit's error. */
  isClean(found: Survey, refusal: ServerError | undefined): boolean {
    const { isolation, tape, upstream } = this.view
    const seen = isolation.firstOf(this.#visible, found) ?? this.#stumbledOver(refusal)
    isolation.attribute(this.owner, found)
    if (!seen) return true
    const { table, changedBy } = seen
    upstream.abandon(readsUncommitted(this.#deed, changedBy.deedOn(table), table, tape.revision))
    return false
  }

  /** A row that is not committed was in the way of one to be inserted: no counter tells, and PostgreSQL would have waited. */
  #stumbledOver({ code, table }: Partial<ServerError> = {}): Dirty | undefined {
    const isDuplicate = code === '23505' || code === '23P01'
    const resolves = /\bon\s+conflict\b/i.test(this.#statement)
    return [...this.#visible.values()].find(dirty => {
      const name = bareName(dirty.table)
      return (isDuplicate && table === name) || (resolves && this.#statement.includes(name))
    })
  }

  /** Temporary tables and the last value of a sequence are one session's; here all of them are one. */
  #refuseWhatIsOneSessions(text: string): void {
    const { sessions, tape, upstream } = this.view
    if (sessions.size < 2) return
    for (const other of sessions) {
      if (other === this.owner) continue
      const table = other.temporaryTables.find(name => namesTable(name).test(text))
      if (table) return upstream.abandon(meetsTemporaryTable(this.#deed, other.deedOn(table), table, tape.revision))
      if (other.hasWritten && /\b(currval|lastval)\s*\(/i.test(text)) {
        return upstream.abandon(
          sharesSequence(this.#deed, { who: other.who, place: other.place, sql: '' }, tape.revision),
        )
      }
    }
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
