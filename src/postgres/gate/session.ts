import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Place } from '../../failure'
import type { Start } from './boundary'
import { ClientSocket } from './client'
import { cannotUndo, readsUncommitted, seesUncommitted } from './conflict'
import { CopyIn, isCopyData } from './copy'
import { CoveredSettings } from './covered'
import { Execution } from './execution'
import { ExtendedProtocol } from './extended'
import type { Dirty, Isolation } from './isolation'
import type { Deed, Layer, Layers, Owner } from './layers'
import { statementOf, withSql } from './messages'
import { NestedTransaction } from './nested'
import { PreparedStatements } from './prepared'
import { join, syncPoint } from './request'
import type { Savepoints } from './savepoints'
import type { Settings, Values } from './settings'
import { SimpleProtocol } from './simple'
import type { Speakers } from './speakers'
import { type Survey, survey } from './survey'
import type { Tape } from './tape'
import type { TransactionViews } from './transaction'
import type { Turns } from './turns'
import type { Understood } from './understand'
import { Unit } from './unit'
import type { Upstream } from './upstream'
import * as wire from './wire'

/** What the sessions of a gate share. */
export interface Shared {
  readonly upstream: Upstream
  readonly tape: Tape
  readonly turns: Turns
  readonly layers: Layers
  readonly isolation: Isolation
  readonly speakers: Speakers
  readonly savepoints: Savepoints
  readonly settings: Settings
  /** The check is a DO block, for which some databases have no language. */
  readonly canCheckConstraints: boolean
  /** Told when a client sees the catalog as another has changed it and not committed. */
  onCatalogRead(words: string): void
}

/** As SQLAlchemy's has_table() and get_columns() do, and what people write by hand; not what drivers ask for types. */
const looksIntoCatalog = /\b(pg_class|pg_attribute|information_schema|to_regclass|pg_tables)\b/i

/**
 * One client connection inside the gate, past its startup.
 *
 * Messages are passed on as they come. A *unit* is what runs up to a Sync (or one Query message); only one session has
 * a unit under way upstream, and a unit outside of a transaction is wrapped in a savepoint of its own.
 */
export class Session implements Owner {
  /** The tables that its open transaction has changed. */
  readonly changed = new Map<string, string>()
  /** What it has told the catalog there. */
  definition = ''
  /** When its last unit has ended, as `performance.now()` counts. */
  quietSince = performance.now()
  /** The session's settings while another session has the connection. */
  saved: Values
  /** Who knows it may cancel the session's statement. */
  readonly secret = randomBytes(4)
  readonly #client: ClientSocket
  readonly #unit: Unit
  readonly nested: NestedTransaction
  readonly statements: PreparedStatements
  readonly #copy: CopyIn
  readonly #simple: SimpleProtocol
  readonly #extended: ExtendedProtocol
  /** A message that waits for the turn. */
  #held: wire.Message | undefined
  #turn: 'none' | 'asked' | 'mine' | 'yielding' = 'none'
  /** The unit has begun, by a message of the extended protocol. */
  #underWay = false
  /** A Sync is under way: the next unit waits for ReadyForQuery. */
  #synced = false
  /** The unit has failed and its turn was given up: what comes is skipped up to the Sync. */
  #skipping = false
  /** The client asked for the answers so far, and has them. */
  #flushed: 'no' | 'asked' | 'yes' = 'no'
  /** What others have changed and not committed, by oid: of that nothing may be read. */
  #dirty = new Map<string, Dirty>()
  /** What of it the unit's statements would see; one that has looked for it knows. */
  #visible = new Map<string, Dirty>()
  /** The same for a cursor or portal, as of the time when it was declared. */
  readonly #cursors = new Map<string, Map<string, Dirty>>()
  /** The last statement, for people. */
  #statement = ''

  constructor(
    socket: Socket,
    reader: wire.MessageReader,
    id: number,
    startup: Values,
    /** The number that the driver has given the connection. */
    readonly number: number | undefined,
    private readonly shared: Shared,
  ) {
    const { upstream, tape, layers, isolation, savepoints, canCheckConstraints } = shared
    const nest = {
      owner: this,
      layers,
      canCheckConstraints,
      begins: (before: Survey) => isolation.begins(before),
      ended: () => {
        this.changed.clear()
        this.definition = ''
      },
      cannotUndo: (layer: Layer) => {
        const undone = layers.deedOf(this)
        upstream.doom ??= cannotUndo(undone, layers.obstacle(layer) ?? undone, tape.revision)
      },
    }
    this.saved = startup
    this.#client = new ClientSocket(socket, reader, upstream, this)
    this.#unit = new Unit(upstream, tape, this.#client, () => this.#failed())
    this.nested = new NestedTransaction(this.#unit, savepoints, nest)
    this.statements = new PreparedStatements(id, this.transaction)
    this.#copy = new CopyIn(
      this.#unit,
      upstream,
      () => this.#copyData(),
      () => this.#copyEnded(),
    )
    const settings = new CoveredSettings(this.#unit, this.transaction, savepoints, shared.settings, startup)
    const execution = new Execution(
      this.#unit,
      upstream,
      this.nested,
      this.statements,
      settings,
      this.#copy,
      (statement, portal) => this.#watch(statement, portal),
    )
    this.#simple = new SimpleProtocol(this.#unit, execution, this.#copy, options => this.#endUnit(options))
    this.#extended = new ExtendedProtocol(this.#unit, execution, this.nested, this.statements)
  }

  get transaction(): TransactionViews {
    return this.nested.views
  }

  get who(): string {
    return this.shared.speakers.nameOf(this)
  }

  get place(): Place | undefined {
    return this.shared.speakers.placeOf(this)
  }

  get #deed(): Deed {
    return { who: this.who, place: this.place, sql: this.#statement }
  }

  dropped(layers: Layer[]): void {
    this.transaction.dropped(layers)
  }

  // ── What comes from the client ────────────────────────────────────────────────────────────────────────────────────

  /** New bytes are in the reader. */
  work(): void {
    this.#client.work()
  }

  get waits(): boolean {
    return this.#turn === 'asked' || this.#turn === 'yielding' || this.#synced || this.#copy.state === 'asked'
  }

  receive(message: wire.Message): void {
    const { type } = message
    if (type === 'X') return this.end()
    if (this.#copy.state === 'data') return this.#copy.pass(message)
    if (isCopyData(type)) return // left over from a COPY that failed: PostgreSQL ignores them as well
    if (this.#skipping) {
      if (type !== 'S') return
      this.#skipping = false
      this.#underWay = false
      return this.write(wire.readyForQuery(this.transaction.now.status))
    }
    if (this.#turn !== 'mine') {
      this.#turn = 'asked'
      this.#held = message
      return this.shared.turns.request(this)
    }
    this.#flushed = 'no'
    if (type === 'S') return this.#endUnit()
    if (type === 'H') return this.#flush()
    // PostgreSQL, too, skips everything up to the Sync; a message that is a unit by itself is refused and ended.
    if (this.#unit.failed && this.#underWay) return
    if (this.nested.isOutside && 'PBDEF'.includes(type) && !statementOf(message, this.statements)?.alone) {
      this.#underWay = true
      return this.#unit.refuse('0A000', 'Atomic Upgrade: this statement comes too soon behind one that runs alone')
    }
    if (type === 'Q') return this.#simple.query(message)
    if (type === 'F') return this.#simple.call(message)
    this.#underWay = true
    if (!this.#unit.failed) this.#extended.receive(message)
  }

  refuse(error: unknown): void {
    const message = `the gate cannot read this: ${error instanceof Error ? error.message : error}`
    this.end({ code: '08P01', message })
  }

  write(bytes: Buffer): void {
    this.#client.write(bytes)
  }

  /** Says a last word, in place of what was kept back. */
  lastWord(bytes: Buffer): void {
    this.#client.forget()
    this.write(bytes)
  }

  /** Says a last word and closes the connection. */
  end(fatal?: { code: string; message: string }): void {
    if (this.#client.ended) return
    if (fatal) this.lastWord(wire.errorResponse('FATAL', fatal.code, fatal.message))
    this.#client.end()
    this.#simple.drop()
    if (this.#turn !== 'mine' && this.#turn !== 'yielding') return this.shared.turns.ended(this)
    // A unit under way is brought to its end first; nobody hears its answers.
    if (this.#copy.state === 'data') this.#copy.giveUp()
    else if (this.#turn === 'mine' && !this.#synced && this.#copy.state === 'no') this.#endUnit()
    this.shared.turns.cancel()
  }

  // ── The turn ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The turn is this session's. */
  begin({ refusal, alone }: Start): void {
    // The client may have gone while its settings were being set.
    if (this.#client.ended) return this.shared.turns.end(this)
    this.#turn = 'mine'
    this.#dirty = this.shared.isolation.dirtyFor(this)
    this.#visible.clear()
    if (this.#dirty.size > 0) this.#client.hold()
    if (refusal) this.#unit.refuse('0A000', `Atomic Upgrade: ${refusal}`)
    this.nested.isOutside = alone !== undefined
    const message = this.#held
    this.#held = undefined
    this.#client.work(message && alone !== undefined ? withSql(message, alone) : message)
  }

  /** The statement of the message that waits for the turn, if it is one that runs outside of a transaction only. */
  get standsAlone(): string | undefined {
    const held = this.#held
    const statement = held && this.transaction.now.status === 'I' ? statementOf(held, this.statements) : undefined
    return statement?.alone ? statement.text : undefined
  }

  /** Whether the message that waits for the turn needs nothing of PostgreSQL. */
  get onlyBeginsOrEnds(): boolean {
    const held = this.#held && statementOf(this.#held, this.statements)
    return held !== undefined && ['begin', 'commit', 'rollback'].includes(held.effect.kind)
  }

  /** What waits for the turn, for people. */
  get heldStatement(): string {
    return (this.#held && statementOf(this.#held, this.statements)?.text) ?? 'a statement'
  }

  /** Another session waits: the turn is given up where the client waits as well, between a Flush and its Sync. */
  offerTurn(): void {
    const { turns, upstream } = this.shared
    if (this.#turn !== 'mine' || this.#flushed !== 'yes' || this.#synced || !turns.areWanted) return
    this.#turn = 'yielding'
    upstream.send(syncPoint(status => this.#ready(status)))
  }

  #flush(): void {
    this.#underWay = true
    this.#flushed = 'asked'
    const { upstream } = this.shared
    if (this.#dirty.size > 0 && !this.#unit.failed) {
      const look = survey(found => this.#isClean(found) && this.#client.release(), this.#unit.deliver)
      this.#unit.send(look)
    }
    upstream.send({ bytes: wire.flush, expected: [] })
    if (this.#unit.failed) return this.#hasFlushed()
    this.#unit.inOrder(() => this.#hasFlushed())
  }

  #hasFlushed(): void {
    if (this.#flushed === 'no') return
    this.#client.release()
    this.#flushed = 'yes'
    if (this.#dirty.size > 0) this.#client.hold()
    this.offerTurn()
  }

  // ── The unit ──────────────────────────────────────────────────────────────────────────────────────────────────────

  #failed(): void {
    this.#copy.end()
    if (this.#flushed === 'asked') this.#hasFlushed()
  }

  #copyData(): void {
    if (this.#client.ended) this.#copy.giveUp()
    else this.#client.work()
  }

  /** The Sync behind a COPY is the client's by the extended protocol, else ours. */
  #copyEnded(): void {
    if (this.#simple.isUnderWay || this.#client.ended) this.#endUnit()
    else this.#client.work()
  }

  #endUnit({ sync = true } = {}): void {
    this.#synced = true
    const request = syncPoint(status => this.#ready(status))
    this.shared.upstream.send(sync ? request : { ...request, bytes: Buffer.alloc(0) })
  }

  /** The unit is answered; what it has read is looked at before the client gets to know. */
  #ready(status: string): void {
    const failed = status === 'E' || this.#unit.failed
    if (this.#dirty.size === 0) return this.#ended(failed)
    const { upstream, layers, savepoints } = this.shared
    let found: Survey | undefined
    const look = () =>
      upstream.send(
        join(
          survey(seen => {
            found = seen
          }),
          syncPoint(() => {
            // A cancellation or a statement_timeout may have hit it.
            if (!found) return upstream.status === 'E' ? back() : look()
            if (!this.#isClean(found)) return
            this.#dirty.clear()
            this.#client.release()
            this.#ended(failed)
          }),
        ),
      )
    const back = () => {
      const { top } = layers
      if (top?.owner === this) savepoints.backTo(top.savepoint, look)
      else upstream.abandon(new Error('the transaction failed where no savepoint was set'))
    }
    if (status === 'E') back()
    else look()
  }

  /** Whether the unit has seen nothing that another has not committed; otherwise the batch has failed. */
  #isClean(found: Survey): boolean {
    const { isolation, layers, tape, upstream } = this.shared
    const seen = isolation.firstOf(this.#visible, found) ?? this.#stumbledOver()
    isolation.attribute(this, found)
    if (!seen) return true
    const { table, changedBy } = seen
    upstream.abandon(readsUncommitted(this.#deed, layers.deedOf(changedBy), table, tape.revision))
    return false
  }

  /** A row that is not committed was in the way of one to be inserted: no counter tells, and PostgreSQL would have waited. */
  #stumbledOver(): Dirty | undefined {
    const { code, table } = this.#unit.refusal ?? {}
    const isDuplicate = code === '23505' || code === '23P01'
    const resolves = /\bon\s+conflict\b/i.test(this.#statement)
    return [...this.#visible.values()].find(dirty => {
      const name = dirty.table.replace(/^.*\./, '').replaceAll('"', '')
      return (isDuplicate && table === name) || (resolves && this.#statement.includes(name))
    })
  }

  #watch({ text, leaves, fetches }: Understood, portal: string | undefined): void {
    const { upstream } = this.shared
    if (upstream.doom) return upstream.abandon(upstream.doom)
    this.#statement = text
    this.definition ||= /^\s*(create|alter|drop)\b/i.test(text) ? text : ''
    if (looksIntoCatalog.test(text)) this.#looksIntoCatalog()
    const cursor = fetches ?? portal
    const seen = (cursor && this.#cursors.get(cursor)) || this.#dirty
    for (const [oid, dirty] of seen) this.#visible.set(oid, dirty)
    if (leaves?.kind === 'cursor') this.#cursors.set(leaves.name, new Map(this.#dirty))
    else if (portal) this.#cursors.set(portal, seen)
  }

  #looksIntoCatalog(): void {
    const { layers, onCatalogRead } = this.shared
    for (const { who, place, definition } of layers.othersOpen(this)) {
      if (definition) onCatalogRead(seesUncommitted(this.#deed, { who, place, sql: definition }))
    }
  }

  #ended(failed: boolean): void {
    if (this.#turn === 'yielding' && !failed) return this.#finish()
    this.#skipping = this.#turn === 'yielding'
    this.#unit.failed = false
    this.#unit.refusal = undefined
    if (failed) {
      this.statements.fallBack()
      this.#simple.drop()
    } else if (this.#simple.hasMore) {
      this.#synced = false
      return this.#simple.goOn()
    }
    if (this.#client.ended) return this.#finish()
    const rest = this.nested.conclude(failed)
    if (!rest) this.#finish()
    else if ('undo' in rest) this.shared.savepoints.undo(rest.undo, () => this.#finish())
    else
      this.shared.upstream.send(
        join(
          rest.commit,
          syncPoint(after => this.#ready(after)),
        ),
      )
  }

  #finish(): void {
    const yielding = this.#turn === 'yielding'
    this.transaction.settle()
    const { layers } = this.shared
    const { status } = this.transaction.now
    if (status === 'I' && this.transaction.now.layers.length === 0) this.#forgetPortals()
    if (layers.top?.owner === this) layers.isSurveyed = false
    this.quietSince = performance.now()
    this.#turn = 'none'
    this.#flushed = 'no'
    this.nested.isOutside = false
    if (!yielding) {
      this.#synced = false
      this.#simple.isUnderWay = false
      this.#underWay = false
      this.write(wire.readyForQuery(status))
    }
    if (this.#client.ended) this.shared.turns.ended(this)
    this.shared.turns.end(this)
    this.#client.work()
  }

  #forgetPortals(): void {
    this.statements.portals.clear()
    this.#cursors.clear()
  }
}
