import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Place } from '../../failure'
import { ClientSocket } from './client'
import { cannotUndo } from './conflict'
import { CopyIn, isCopyData } from './copy'
import { CoveredSettings } from './covered'
import { Execution } from './execution'
import { ExtendedProtocol } from './extended'
import type { Deed, Layer } from './layers'
import { asksForTransactionLock, bareName, locksRows, looksLikeDefinition, looksLikeRead } from './looks'
import { statementOf, withSql } from './messages'
import { NestedTransaction } from './nested'
import type { Participant, Start } from './participant'
import { PreparedStatements } from './prepared'
import { join, syncPoint } from './request'
import type { Savepoints } from './savepoints'
import type { Settings, Values } from './settings'
import { Sight, type View } from './sight'
import { SimpleProtocol } from './simple'
import type { Speakers } from './speakers'
import { ask, type Survey, survey, surveyOfLocks } from './survey'
import type { TransactionViews } from './transaction'
import type { Turns } from './turns'
import type { Understood } from './understand'
import { Unit } from './unit'
import * as wire from './wire'

/** What the sessions of a gate share. */
export interface Shared extends View {
  readonly turns: Turns
  /** All that are connected. */
  readonly sessions: ReadonlySet<Participant>
  readonly speakers: Speakers
  readonly savepoints: Savepoints
  readonly settings: Settings
  /** What default_transaction_isolation says where a client has not set it. */
  readonly usualLevel: string
  /** The check is a DO block, for which some databases have no language. */
  readonly canCheckConstraints: boolean
}

/**
 * What a session is doing.
 *
 * | state | what it is | what ends it |
 * | --- | --- | --- |
 * | `idle` | between two units | a message: `waiting` |
 * | `waiting` | has a message, and no turn | `begin()`: `running` |
 * | `running` | has the turn, and a unit that is carried out | a Sync, the end of a Query: `ending`; another session between a Flush and its Sync: `yielding` |
 * | `ending` | the Sync is under way, and the next unit waits for ReadyForQuery | that: `idle` |
 * | `yielding` | gives the turn up in the middle of the unit | a Sync of ours: `paused`, or `skipping` where the unit has failed |
 * | `paused` | in the middle of a unit, without the turn | a message: `waiting` |
 * | `skipping` | the unit has failed, and the turn is given up | the client's Sync: `idle` |
 */
type State =
  | { name: 'idle' | 'yielding' | 'paused' | 'skipping' }
  /** `resumes`: in the middle of a unit. */
  | { name: 'waiting'; message: wire.Message; resumes: boolean }
  | Running
  | { name: 'ending'; unit: Running['unit'] }

interface Running {
  name: 'running'
  /** By which protocol it has begun, if it has. By `simple` the client awaits ReadyForQuery without a Sync of its own. */
  unit: 'none' | 'simple' | 'extended'
  /** The client has asked for the answers so far, and has them. */
  flushed: 'no' | 'asked' | 'yes'
  /** What is carried out runs outside of any transaction. */
  isOutside: boolean
}

/** How many statements of a transaction are remembered, to say which one is in the way. */
const mostDeeds = 200

/**
 * One client connection inside the gate, past its startup.
 *
 * Messages are passed on as they come. A *unit* is what runs up to a Sync (or one Query message); only one session has
 * a unit under way upstream, and a unit outside of a transaction is wrapped in a savepoint of its own.
 */
export class Session implements Participant {
  readonly changed = new Map<string, string>()
  definition = ''
  hasWritten = false
  /** The first words of each. */
  deeds: string[] = []
  /** Its open transaction has taken a snapshot, were it one of its own. */
  #hasSpoken = false
  transactionLocks: string[] = []
  quietSince = performance.now()
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
  readonly #sight: Sight
  #state: State = { name: 'idle' }

  constructor(
    socket: Socket,
    reader: wire.MessageReader,
    id: number,
    startup: Values,
    readonly number: number | undefined,
    private readonly shared: Shared,
  ) {
    const { upstream, tape, layers, isolation, advisory, savepoints, canCheckConstraints } = shared
    const nest = {
      owner: this,
      layers,
      canCheckConstraints,
      isShared: () => shared.sessions.size > 1,
      isOutside: () => this.#state.name === 'running' && this.#state.isOutside,
      begins: (before: Survey) => isolation.begins(before),
      ended: () => {
        this.deeds = []
        this.definition = ''
        this.#hasSpoken = false
        this.transactionLocks = []
        isolation.ended(this)
        advisory.ended(this)
        layers.ended(this)
      },
      restore: (values: Values) => shared.settings.restore(values, this.#unit.deliver),
      closed: (cursor: string) => this.#sight.forget(cursor),
      cannotUndo: (layer: Layer) => {
        const undone = layers.deedOf(this)
        upstream.doom ??= cannotUndo(undone, layers.obstacle(layer) ?? undone, tape.revision)
      },
    }
    this.saved = startup
    this.#sight = new Sight(this, shared)
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
    const watch = (statement: Understood, portal?: string) => this.#watch(statement, portal)
    const execution = new Execution(this.#unit, upstream, this.nested, this.statements, settings, this.#copy, watch)
    this.#simple = new SimpleProtocol(this.#unit, execution, this.#copy, options => this.#endUnit(options))
    const forget = (portal: string) => this.#sight.forget(portal)
    this.#extended = new ExtendedProtocol(this.#unit, execution, this.nested, this.statements, forget)
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

  deedOn(table: string): Deed {
    const { who, place } = this
    const sql = this.deeds.find(each => each.includes(bareName(table)))
    return sql === undefined ? this.shared.layers.deedOf(this) : { who, place, sql }
  }

  get keepsSnapshot(): boolean {
    const { status, level } = this.transaction.now
    const wanted = level ?? this.saved.default_transaction_isolation ?? this.shared.usualLevel
    return status !== 'I' && this.#hasSpoken && /^(repeatable read|serializable)$/i.test(wanted)
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
    return ['waiting', 'ending', 'yielding'].includes(this.#state.name) || this.#copy.state === 'asked'
  }

  receive(message: wire.Message): void {
    const { type } = message
    if (type === 'X') return this.end()
    if (this.#copy.state === 'data') {
      this.quietSince = performance.now()
      return this.#copy.pass(message)
    }
    if (isCopyData(type)) return // left over from a COPY that failed: PostgreSQL ignores them as well
    const state = this.#state
    if (state.name === 'running') return this.#carryOut(message, state)
    if (state.name === 'skipping') return type === 'S' ? this.#endSkipping() : undefined
    this.#state = { name: 'waiting', message, resumes: state.name === 'paused' }
    this.shared.turns.request(this)
  }

  #endSkipping(): void {
    this.#state = { name: 'idle' }
    this.write(wire.readyForQuery(this.transaction.now.status))
  }

  #carryOut(message: wire.Message, state: Running): void {
    const { type } = message
    state.flushed = 'no'
    if (type === 'S') return this.#endUnit()
    if (type === 'H') return this.#flush(state)
    // PostgreSQL, too, skips everything up to the Sync; a message that is a unit by itself is refused and ended.
    if (this.#unit.failed && state.unit === 'extended') return
    if (state.isOutside && 'PBDEF'.includes(type) && !statementOf(message, this.statements)?.alone) {
      state.unit = 'extended'
      return this.#unit.refuse('0A000', 'Atomic Upgrade: this statement comes too soon behind one that runs alone')
    }
    state.unit = type === 'Q' || type === 'F' ? 'simple' : 'extended'
    if (type === 'Q') return this.#simple.query(message)
    if (type === 'F') return this.#simple.call(message)
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
    const { name } = this.#state
    if (name !== 'running' && name !== 'ending' && name !== 'yielding') return this.shared.turns.ended(this)
    // A unit under way is brought to its end first; nobody hears its answers.
    if (this.#copy.state === 'data') this.#copy.giveUp()
    else if (name === 'running' && this.#copy.state === 'no') this.#endUnit()
    this.shared.turns.cancel()
  }

  // ── The turn ──────────────────────────────────────────────────────────────────────────────────────────────────────

  begin({ refusal, alone }: Start): void {
    // The client may have gone while its settings were being set.
    const state = this.#state
    if (this.#client.ended || state.name !== 'waiting') return this.shared.turns.end(this)
    const { message, resumes } = state
    this.#state = {
      name: 'running',
      unit: resumes ? 'extended' : 'none',
      flushed: 'no',
      isOutside: alone !== undefined,
    }
    this.#sight.begin()
    if (this.#sight.isClouded) this.#client.hold()
    if (refusal) this.#unit.refuse('0A000', `Atomic Upgrade: ${refusal}`)
    this.#client.work(alone === undefined ? message : withSql(message, alone))
  }

  get #held(): Understood | undefined {
    if (this.#state.name !== 'waiting') return undefined
    try {
      return statementOf(this.#state.message, this.statements)
    } catch {
      // A message that is broken is refused when it is carried out.
      return undefined
    }
  }

  get standsAlone(): string | undefined {
    const statement = this.transaction.now.status === 'I' ? this.#held : undefined
    return statement?.alone ? statement.text : undefined
  }

  get isHarmless(): boolean {
    const { effect, fetches, closes } = this.#held ?? {}
    const { kind } = effect ?? {}
    return kind === 'begin' || kind === 'commit' || kind === 'rollback' || (fetches ?? closes) !== undefined
  }

  get temporaryTables(): string[] {
    const untilCommit = this.transaction.now.fleeting.filter(({ kind }) => kind === 'table')
    return [...this.statements.leftTables, ...untilCommit].map(({ name }) => name)
  }

  get heldStatement(): string {
    return this.#held?.text ?? ''
  }

  get owesData(): boolean {
    return this.#copy.state === 'data'
  }

  /** Between a Flush and its Sync; and an answer that the client does not read, since it waits for the other one, is taken in. */
  offerTurn(): void {
    const { turns, upstream } = this.shared
    this.#client.takeIn()
    const state = this.#state
    if (state.name !== 'running' || state.flushed !== 'yes' || !turns.areWanted) return
    this.#state = { name: 'yielding' }
    upstream.send(syncPoint(status => this.#answered(status)))
  }

  #flush(state: Running): void {
    state.unit = 'extended'
    state.flushed = 'asked'
    if (this.#sight.isClouded) this.#unit.send(survey(found => void this.#isClean(found), this.#unit.deliver))
    this.shared.upstream.send({ bytes: wire.flush, expected: [] })
    if (this.#unit.failed) return this.#hasFlushed()
    this.#unit.inOrder(() => this.#hasFlushed())
  }

  #hasFlushed(): void {
    const state = this.#state
    if (state.name !== 'running' || state.flushed === 'no') return
    state.flushed = 'yes'
    this.#client.release()
    if (this.#sight.isClouded) this.#client.hold()
    this.offerTurn()
  }

  // ── The unit ──────────────────────────────────────────────────────────────────────────────────────────────────────

  #watch(statement: Understood, portal: string | undefined): () => void {
    const { upstream } = this.shared
    if (upstream.doom) {
      upstream.abandon(upstream.doom)
      return () => {}
    }
    const { text } = statement
    const isRead = looksLikeRead(text)
    this.hasWritten ||= !isRead
    if ((!isRead || locksRows(text)) && this.deeds.length < mostDeeds) this.deeds.push(text.slice(0, 500))
    this.definition ||= looksLikeDefinition(text) ? text : ''
    this.#hasSpoken ||= this.transaction.ahead.status === 'T'
    if (statement.advisory) this.#asksForLock(statement, portal)
    return this.#sight.watch(statement, portal)
  }

  #asksForLock(statement: Understood, portal = ''): void {
    if (asksForTransactionLock(statement.text)) this.transactionLocks.push(statement.text)
    const parameters = this.statements.portals.get(portal)?.parameters() ?? []
    const held = this.#sight.asksForLock([statement.text, ...parameters].join(' '))
    this.#client.hold()
    this.#unit.send(surveyOfLocks(({ advisory }) => held(advisory), this.#unit.deliver))
  }

  #failed(): void {
    this.#copy.end()
    if (this.#state.name === 'running' && this.#state.flushed === 'asked') this.#hasFlushed()
  }

  #copyData(): void {
    this.quietSince = performance.now()
    if (this.#client.ended) this.#copy.giveUp()
    else this.#client.work()
  }

  /** The Sync behind a COPY is the client's by the extended protocol, else ours. */
  #copyEnded(): void {
    const isOurs = this.#state.name === 'running' && this.#state.unit === 'simple'
    if (isOurs || this.#client.ended) this.#endUnit()
    else this.#client.work()
  }

  #endUnit({ sync = true } = {}): void {
    const state = this.#state
    this.#state = { name: 'ending', unit: state.name === 'running' ? state.unit : 'none' }
    const request = syncPoint(status => this.#answered(status))
    this.shared.upstream.send(sync ? request : { ...request, bytes: Buffer.alloc(0) })
  }

  /** The unit is answered; what it has read is looked at before the client gets to know. */
  #answered(status: string): void {
    const failed = status === 'E' || this.#unit.failed
    const goOn = () => {
      this.#client.release()
      this.#ended(failed)
    }
    if (!this.#sight.isClouded) return goOn()
    ask(this.shared, this, status, found => {
      if (!this.#isClean(found)) return
      this.#sight.clear()
      goOn()
    })
  }

  #isClean(found: Survey): boolean {
    return this.#sight.isClean(found, this.#unit.refusal)
  }

  #ended(failed: boolean): void {
    const yields = this.#state.name === 'yielding'
    if (yields && !failed) return this.#finish({ name: 'paused' })
    this.#unit.failed = false
    this.#unit.refusal = undefined
    if (failed) {
      this.statements.fallBack()
      this.#simple.drop()
    } else if (this.#simple.hasMore) {
      this.#state = { name: 'running', unit: 'simple', flushed: 'no', isOutside: false }
      return this.#simple.goOn()
    }
    const next: State = { name: yields ? 'skipping' : 'idle' }
    if (this.#client.ended) return this.#finish(next)
    const rest = this.nested.conclude(failed)
    if (!rest) this.#finish(next)
    else if ('undo' in rest) this.shared.savepoints.undo(rest.undo, () => this.#finish(next))
    else
      this.shared.upstream.send(
        join(
          rest.commit,
          syncPoint(status => this.#answered(status)),
        ),
      )
  }

  #finish(next: State): void {
    const { layers, turns } = this.shared
    this.transaction.settle()
    const { status } = this.transaction.now
    if (status === 'I' && this.transaction.now.layers.length === 0) {
      this.statements.portals.clear()
      this.#sight.forget()
    }
    // What is another's was looked at before this one got the turn.
    layers.isSurveyed = layers.top?.owner !== this
    this.quietSince = performance.now()
    this.#state = next
    this.#client.takenIn()
    if (next.name === 'idle') this.write(wire.readyForQuery(status))
    if (this.#client.ended) turns.ended(this)
    turns.end(this)
    this.#client.work()
  }
}
