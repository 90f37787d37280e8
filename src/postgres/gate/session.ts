import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Start } from './boundary'
import { ClientSocket } from './client'
import { CopyIn, isCopyData } from './copy'
import { CoveredSettings } from './covered'
import { Execution } from './execution'
import { ExtendedProtocol } from './extended'
import { statementOf, withSql } from './messages'
import { type Nest, NestedTransaction } from './nested'
import type { Nesting } from './nesting'
import { PreparedStatements } from './prepared'
import { join, syncPoint } from './request'
import type { Savepoints } from './savepoints'
import type { Settings, Values } from './settings'
import { SimpleProtocol } from './simple'
import type { Tape } from './tape'
import type { TransactionViews } from './transaction'
import type { Turns } from './turns'
import { Unit } from './unit'
import type { Upstream } from './upstream'
import * as wire from './wire'

/** What the sessions of a gate share. */
export interface Shared {
  readonly upstream: Upstream
  readonly tape: Tape
  readonly turns: Turns
  readonly nesting: Nesting
  readonly savepoints: Savepoints
  readonly settings: Settings
  /** The check is a DO block, for which some databases have no language. */
  readonly canCheckConstraints: boolean
}

/**
 * One client connection inside the gate, past its startup.
 *
 * Messages are passed on as they come. A *unit* is what runs up to a Sync (or one Query message); only one session has
 * a unit under way upstream, and a unit outside of a transaction is wrapped in a savepoint of its own.
 */
export class Session {
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

  constructor(
    socket: Socket,
    reader: wire.MessageReader,
    id: number,
    startup: Values,
    private readonly shared: Shared,
  ) {
    const { upstream, tape, nesting, savepoints, canCheckConstraints } = shared
    const nest: Nest = {
      opened: () => nesting.opened(this),
      closed: () => nesting.closed(this),
      checksConstraints: () => canCheckConstraints && nesting.isOutermost(this),
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
    const execution = new Execution(this.#unit, upstream, this.nested, this.statements, settings, this.#copy)
    this.#simple = new SimpleProtocol(this.#unit, execution, this.#copy, options => this.#endUnit(options))
    this.#extended = new ExtendedProtocol(this.#unit, execution, this.nested, this.statements)
  }

  get transaction(): TransactionViews {
    return this.nested.views
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

  /** Says a last word and closes the connection. */
  end(fatal?: { code: string; message: string }): void {
    if (this.#client.ended) return
    if (fatal) this.write(wire.errorResponse('FATAL', fatal.code, fatal.message))
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

  /** Another session waits: the turn is given up where the client waits as well, between a Flush and its Sync. */
  offerTurn(): void {
    const { turns, upstream } = this.shared
    if (this.#turn !== 'mine' || this.#flushed !== 'yes' || this.#synced || !turns.areWanted) return
    this.#turn = 'yielding'
    upstream.send(syncPoint(status => this.#ready(status)))
  }

  #flush(): void {
    this.#underWay = true
    this.shared.upstream.send({ bytes: wire.flush, expected: [] })
    this.#flushed = 'asked'
    if (this.#unit.failed) return this.#hasFlushed()
    this.#unit.inOrder(() => this.#hasFlushed())
  }

  #hasFlushed(): void {
    if (this.#flushed === 'no') return
    this.#flushed = 'yes'
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

  #ready(status: string): void {
    const failed = status === 'E' || this.#unit.failed
    if (this.#turn === 'yielding' && !failed) return this.#finish()
    this.#skipping = this.#turn === 'yielding'
    this.#unit.failed = false
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
    const { status, base } = this.transaction.now
    if (status === 'I' && !base) this.statements.portals.clear()
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

  /** The transaction upstream is gone because an outer one was rolled back. */
  lose(): void {
    if (this.#underWay && !this.#skipping) {
      const words = 'Atomic Upgrade: the transaction around this one was rolled back'
      this.write(wire.errorResponse('ERROR', '40000', words))
      this.#skipping = true
    }
    this.transaction.lose()
  }
}
