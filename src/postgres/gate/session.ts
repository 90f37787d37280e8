import type { Socket } from 'node:net'
import {
  afterwards,
  checkDeferredConstraints,
  identifier,
  join,
  literal,
  statement,
  statements,
  syncPoint,
} from './request'
import { type ServerError, serverError, type Tape } from './tape'
import { type GateEffect, isControl, type Leaving, type Understood, understand } from './understand'
import type { Expected, Request } from './upstream'
import * as wire from './wire'

/** What a session needs of the gate that it belongs to. */
export interface Upstream {
  readonly tape: Tape
  send(request: Request): void
  /** Rolls a savepoint back and away, whatever it takes. */
  undo(savepoint: string, done: () => void): void
  /** Asks for the upstream connection; `session.begin` follows when it is this session's turn. */
  requestTurn(session: Session): void
  endTurn(session: Session): void
  /** Whether another session waits for the turn. */
  readonly isWantedElsewhere: boolean
  /** A savepoint name that no other has. */
  newSavepoint(): string
  /** Whether no other session has a transaction open around this one's. */
  isOutermost(session: Session): boolean
  readonly canCheckConstraints: boolean
  /** The session's transaction became a savepoint upstream, or stopped being one. */
  opened(session: Session): void
  closed(session: Session): void
  /** Says this step's own settings again, or only the one of that name. */
  ownSettings(name: string | null): Request
  /** A setting that pg_settings does not show is in use. */
  noteSetting(name: string): void
  congested(resume: () => void): boolean
  pause(): void
  resume(): void
  /** Cancels the statement that runs: nobody hears its answer any more. */
  cancel(): void
  ended(session: Session): void
}

/** A client's transaction, as it stands for the client and as it stands upstream. */
interface Transaction {
  /** What ReadyForQuery says: idle, in a transaction, in a failed one. */
  status: 'I' | 'T' | 'E'
  /** The savepoint upstream that is this transaction, once anything was sent in it. */
  base: string | null
  /** The client's own savepoints, innermost last, with their names upstream and what there was before them. */
  savepoints: { name: string; upstream: string; covered: Covered[]; fleeting: Leaving[] }[]
  /** Whether it may have changed something. */
  wrote: boolean
  /** Settings that a SET LOCAL covered, whose values a real COMMIT would bring back. */
  covered: Covered[]
  /** Cursors and tables that a real COMMIT would close and drop. */
  fleeting: Leaving[]
  /** What PREPARE TRANSACTION has left, for its COMMIT PREPARED or ROLLBACK PREPARED. */
  prepared: Prepared[]
}

/** The setting's old value is kept upstream, in a setting named `key`. */
interface Covered {
  name: string
  key: string
}

interface Prepared {
  gid: string
  base: string | null
  /** Whether something was written after it, which undoing it would undo as well. */
  followed: boolean
}

const idle = (): Transaction => ({
  status: 'I',
  base: null,
  savepoints: [],
  wrote: false,
  covered: [],
  fleeting: [],
  prepared: [],
})

const copyOf = (transaction: Transaction): Transaction => ({
  ...transaction,
  savepoints: [...transaction.savepoints],
  covered: [...transaction.covered],
  fleeting: [...transaction.fleeting],
  prepared: [...transaction.prepared],
})

/** Bytes of a client that are taken in while it has to wait. */
const patience = 1_000_000

/**
 * One client connection inside the gate, past its startup.
 *
 * Messages are passed on as they come. A *unit* is what runs up to a Sync (or one Query message); only one session has
 * a unit under way upstream. BEGIN, COMMIT and ROLLBACK become SAVEPOINT, RELEASE and ROLLBACK TO, and a unit outside
 * of a transaction is wrapped in a savepoint of its own. `#ahead` is the transaction as it will be when everything
 * that was sent has succeeded, `transaction` as it is by the answers that have come; `#statements` and `#known` are the
 * same two views of the client's prepared statements.
 */
export class Session {
  transaction = idle()
  #ahead = idle()
  #statements = new Map<string, Understood>()
  #known = new Map<string, Understood>()
  #portals = new Map<string, { statement: Understood | undefined; parameters: () => (string | null)[] }>()
  /** What SQL has left in the session: cursors WITH HOLD, prepared statements, temporary tables. */
  #left: Leaving[] = []
  /** A message that waits for the turn. */
  #held: wire.Message | undefined
  #turn: 'none' | 'asked' | 'mine' | 'yielding' = 'none'
  /** The unit has begun, by a message of the extended protocol. */
  #underWay = false
  /** A Sync is under way: the next unit waits for ReadyForQuery. */
  #synced = false
  #unitFailed = false
  /** The unit has failed and its turn was given up: what comes is skipped up to the Sync. */
  #skipping = false
  /** The client asked for the answers so far, and has them. */
  #flushed: 'no' | 'asked' | 'yes' = 'no'
  #committing = false
  /** A COPY FROM STDIN is under way: PostgreSQL has not answered yet, or waits for data. */
  #copying: 'no' | 'asked' | 'data' = 'no'
  /** Pieces of a Query message that wait until a COPY before them is done. */
  #rest: Understood[][] = []
  #simple = false
  #ended = false
  /** The client does not read, or PostgreSQL does not. */
  #clogged = false
  #congested = false
  /** The session's settings while another session has the connection. */
  saved: Record<string, string>

  constructor(
    private readonly socket: Socket,
    private readonly upstream: Upstream,
    readonly id: number,
    private readonly reader: wire.MessageReader,
    private readonly startupSettings: Record<string, string>,
  ) {
    this.saved = startupSettings
    for (const name of Object.keys(startupSettings)) upstream.noteSetting(name)
  }

  /** New bytes are in the reader. */
  work(): void {
    while (!this.#ended) {
      if (this.#turn === 'asked' || this.#turn === 'yielding' || this.#synced || this.#copying === 'asked') {
        if (this.reader.size > patience) this.socket.pause()
        return
      }
      if (this.#congested) return
      if (this.upstream.congested(this.#decongest)) {
        this.#congested = true
        this.socket.pause()
        return
      }
      const message = this.reader.message()
      if (!message) break
      this.#receive(message)
    }
    if (this.socket.isPaused()) this.socket.resume()
  }

  #decongest = (): void => {
    this.#congested = false
    this.#guarded(() => this.work())
  }

  /** The turn is this session's; `refusal` says why it cannot be used, if so. */
  begin(refusal?: string): void {
    // The client may have gone while its settings were being set.
    if (this.#ended) return this.upstream.endTurn(this)
    this.#turn = 'mine'
    if (refusal) this.#failHere('0A000', `Atomic Upgrade: ${refusal}`)
    const message = this.#held!
    this.#held = undefined
    this.#guarded(() => {
      this.#receive(message)
      this.work()
    })
  }

  /** What a client sends may be broken; that ends this client and no other. */
  #guarded(action: () => void): void {
    try {
      action()
    } catch (error) {
      this.refuse(error)
    }
  }

  refuse(error: unknown): void {
    const message = `the gate cannot read this: ${error instanceof Error ? error.message : error}`
    this.end({ code: '08P01', message })
  }

  /** The transaction upstream is gone because an outer one was rolled back. */
  lose(): void {
    if (this.#underWay && !this.#skipping) {
      this.write(
        wire.errorResponse('ERROR', '40000', 'Atomic Upgrade: the transaction around this one was rolled back'),
      )
      this.#skipping = true
    }
    this.transaction = { ...idle(), status: this.transaction.status === 'I' ? 'I' : 'E' }
    this.#ahead = copyOf(this.transaction)
  }

  /** What rolls back the open transaction and forgets the session's prepared statements, when its client has gone. */
  farewell(): Request {
    const base = this.outermostSavepoint
    this.transaction = idle()
    return join(
      ...(base ? [statements(`ROLLBACK TO SAVEPOINT ${base}`, `RELEASE SAVEPOINT ${base}`)] : []),
      ...[...this.#statements.keys()].filter(Boolean).map(name => this.#closeStatement(name)),
      ...this.#left.map(close),
    )
  }

  /** SQL that drops the temporary tables that the session has left. */
  get leftTables(): string[] {
    return this.#left.filter(left => left.kind === 'table').map(({ name }) => dropTable(name))
  }

  get outermostSavepoint(): string | null {
    return this.transaction.prepared.find(({ base }) => base)?.base ?? this.transaction.base
  }

  /** Ends an open transaction that only read, so that an outer session can go on; it opens anew when it is used again. */
  stepAside(): Request {
    const { base } = this.transaction
    this.#change(transaction => {
      transaction.base = null
    })
    return statements(`RELEASE SAVEPOINT ${base}`)
  }

  get canStepAside(): boolean {
    const { status, base, wrote, savepoints, prepared } = this.transaction
    return status !== 'E' && base !== null && !wrote && savepoints.length === 0 && prepared.length === 0
  }

  /** Another session waits: the turn is given up where the client waits as well, between a Flush and its Sync. */
  offerTurn(): void {
    if (this.#turn !== 'mine' || this.#flushed !== 'yes' || this.#synced || !this.upstream.isWantedElsewhere) return
    this.#turn = 'yielding'
    this.upstream.send(syncPoint(status => this.#ready(status)))
  }

  write(bytes: Buffer): void {
    if (this.#ended || this.socket.destroyed) return
    if (this.socket.write(bytes) || this.#clogged) return
    this.#clogged = true
    this.upstream.pause()
    this.socket.once('drain', this.#unclog)
  }

  #unclog = (): void => {
    if (!this.#clogged) return
    this.#clogged = false
    this.socket.off('drain', this.#unclog)
    this.upstream.resume()
  }

  /** Says a last word and closes the connection. */
  end(fatal?: { code: string; message: string }): void {
    if (this.#ended) return
    if (fatal) this.write(wire.errorResponse('FATAL', fatal.code, fatal.message))
    this.#ended = true
    this.#rest = []
    this.#unclog()
    this.socket.end()
    if (this.#turn !== 'mine' && this.#turn !== 'yielding') return this.upstream.ended(this)
    // A unit under way is brought to its end first; nobody hears its answers.
    if (this.#copying === 'data') this.#giveUpCopy()
    else if (this.#turn === 'mine' && !this.#synced && this.#copying === 'no') this.#endUnit()
    this.upstream.cancel()
  }

  #receive(message: wire.Message): void {
    const { type } = message
    if (type === 'X') return this.end()
    if (this.#copying === 'data') return this.#passCopyData(message)
    if ('dcf'.includes(type)) return // left over from a COPY that failed: PostgreSQL ignores them as well
    if (this.#skipping) {
      if (type !== 'S') return
      this.#skipping = false
      this.#underWay = false
      return this.write(wire.readyForQuery(this.transaction.status))
    }
    if (this.#turn !== 'mine') {
      this.#turn = 'asked'
      this.#held = message
      return this.upstream.requestTurn(this)
    }
    this.#flushed = 'no'
    if (type === 'S') return this.#endUnit()
    if (type === 'H') return this.#flush(message)
    // PostgreSQL, too, skips everything up to the Sync; a message that is a unit by itself is refused and ended.
    if (this.#unitFailed && this.#underWay) return
    if (type === 'Q') return this.#query(message)
    if (type === 'F') return this.#call(message)
    this.#underWay = true
    if (this.#unitFailed) return
    switch (type) {
      case 'P':
        return this.#parse(message)
      case 'B':
        return this.#bind(message)
      case 'D':
        return this.#describe(message)
      case 'E':
        return this.#execute(message)
      case 'C':
        return this.#close(message)
      default:
        this.end({ code: '08P01', message: `the gate does not know messages of type ${type}` })
    }
  }

  // ── Simple queries ────────────────────────────────────────────────────────────────────────────────────────────────

  #query(message: wire.Message): void {
    const pieces = understand(wire.readCString(message.body).bytes)
    this.#simple = true
    if (pieces.length === 0) this.#inOrder(() => this.write(wire.emptyQuery))
    // Nothing may be sent behind a COPY FROM STDIN before its data.
    this.#rest = [[]]
    for (const piece of pieces) {
      this.#rest.at(-1)!.push(piece)
      if (piece.effect.kind === 'copy-in') this.#rest.push([])
    }
    this.#nextBatch()
  }

  #nextBatch(): void {
    this.#synced = false
    for (const piece of this.#rest.shift() ?? []) {
      if (this.#unitFailed) break
      const finish = this.#record(piece.text)
      if (this.#control(piece, finish)) continue
      this.#enter(piece, finish)
      const deliver = this.#deliverTo(finish)
      this.#send({
        bytes: Buffer.concat([wire.parse('', piece.bytes), wire.bind('', ''), wire.describePortal('')]),
        expected: [
          { ends: '1', deliver: onlyErrors(deliver) },
          { ends: '2', deliver: onlyErrors(deliver) },
          { ends: 'Tn', deliver: message => message.type !== 'n' && deliver(message) },
        ],
      })
      this.#run(piece, wire.execute(''), finish)
    }
    if (this.#copying === 'no') this.#endUnit()
  }

  /** A FunctionCall, with which libpq reads large objects: a unit of its own. */
  #call(message: wire.Message): void {
    this.#enter(unknown)
    // The function is called only when everything before it has been answered: its ReadyForQuery must be its own.
    this.#send(syncPoint(() => {}))
    const skipped = this.#unitFailed
    this.#send({ bytes: message.frame, expected: [{ ends: 'V', deliver: this.#deliver }] })
    this.#endUnit({ sync: skipped })
  }

  // ── Extended queries ──────────────────────────────────────────────────────────────────────────────────────────────

  #parse(message: wire.Message): void {
    const name = wire.readCString(message.body)
    const sql = wire.readCString(message.body, name.next)
    const pieces = understand(sql.bytes)
    // Several in one Parse are for the server to refuse, unless it might read them as one.
    const understood: Understood = pieces.length === 1 ? pieces[0]! : { ...unknown, bytes: sql.bytes, text: sql.text }
    const finish = this.#record(understood.text)
    if (pieces.length > 1 && isControl(pieces[0]!))
      return this.#failHere('42601', 'cannot insert multiple commands into a prepared statement', finish)
    if (understood.effect.kind === 'refuse') return this.#failHere('42601', understood.effect.why, finish)
    const taken = name.text ? this.#statements.get(name.text) : undefined
    if (taken && (isControl(taken) || isControl(understood)))
      return this.#failHere('42P05', `prepared statement "${name.text}" already exists`, finish)
    const done = () => {
      this.#known.set(name.text, understood)
    }
    if (isControl(understood)) {
      if (this.#ahead.status === 'E' && !wayOut.has(understood.effect.kind))
        return this.#failHere('25P02', aborted, finish)
      this.#statements.set(name.text, understood)
      return this.#answer(wire.parseComplete, done)
    }
    this.#enterReading(finish)
    // A name that is taken is for the server to refuse.
    if (!taken) this.#statements.set(name.text, understood)
    this.#send({
      bytes: wire.parse(this.#upstreamName(name.text), understood.bytes, message.body.subarray(sql.next)),
      expected: [{ ends: '1', deliver: this.#deliverTo(finish), done }],
    })
  }

  #bind(message: wire.Message): void {
    const portal = wire.readCString(message.body)
    const name = wire.readCString(message.body, portal.next)
    const rest = message.body.subarray(name.next)
    const statement = this.#statements.get(name.text)
    const parameters = () => parametersOf(rest)
    if (statement && isControl(statement)) {
      this.#portals.set(portal.text, { statement, parameters })
      return this.#answer(wire.bindComplete)
    }
    const finish = this.#record(statement?.text ?? '', parameters)
    this.#enterReading(finish)
    this.#portals.set(portal.text, { statement, parameters })
    const upstreamName = this.#upstreamPortal(portal.text)
    if (portal.text) {
      const cursor: Leaving = { kind: 'cursor', name: upstreamName, hold: false }
      this.#change(transaction => void transaction.fleeting.push(cursor))
    }
    this.#send({
      bytes: wire.frame('B', wire.cstring(upstreamName), wire.cstring(this.#upstreamName(name.text)), rest),
      expected: [{ ends: '2', deliver: this.#deliverTo(finish) }],
    })
  }

  #describe(message: wire.Message): void {
    const ofStatement = message.body[0] === 0x53
    const { text: name } = wire.readCString(message.body, 1)
    const statement = ofStatement ? this.#statements.get(name) : this.#portals.get(name)?.statement
    if (statement && isControl(statement))
      return this.#answer(ofStatement ? Buffer.concat([wire.noParameters, wire.noData]) : wire.noData)
    this.#openSavepoint()
    this.#send({
      bytes: ofStatement
        ? wire.describeStatement(this.#upstreamName(name))
        : wire.describePortal(this.#upstreamPortal(name)),
      expected: [{ ends: 'Tn', deliver: this.#deliver }],
    })
  }

  #execute(message: wire.Message): void {
    const name = wire.readCString(message.body)
    const { statement = unknown, parameters = () => [] } = this.#portals.get(name.text) ?? {}
    const finish = this.#record(statement.text, parameters)
    if (this.#control(statement, finish)) return
    this.#enter(statement, finish)
    const execute = wire.frame('E', wire.cstring(this.#upstreamPortal(name.text)), message.body.subarray(name.next))
    this.#run(statement, execute, finish)
  }

  #run(statement: Understood, execute: Buffer, finish: Finish): void {
    const done = () => this.#leaveBehind(statement)
    if (statement.effect.kind === 'copy-in') return this.#copyIn(execute, finish, done)
    this.#send({ bytes: execute, expected: [{ ends: 'CIs', deliver: this.#deliverTo(finish), done }] })
    this.#afterReset(statement.effect)
  }

  #close(message: wire.Message): void {
    const { text: name } = wire.readCString(message.body, 1)
    const deliver = this.#deliver
    if (message.body[0] !== 0x53) {
      const bytes = wire.closePortal(this.#upstreamPortal(name))
      this.#portals.delete(name)
      return this.#send({ bytes, expected: [{ ends: '3', deliver }] })
    }
    this.#send({
      bytes: this.#closeStatement(name).bytes,
      expected: [{ ends: '3', deliver, done: this.#forget(name) }],
    })
  }

  #flush(message: wire.Message): void {
    this.#underWay = true
    this.upstream.send({ bytes: message.frame, expected: [] })
    this.#flushed = 'asked'
    if (this.#unitFailed) return this.#hasFlushed()
    this.#inOrder(() => this.#hasFlushed())
  }

  #hasFlushed(): void {
    if (this.#flushed === 'no') return
    this.#flushed = 'yes'
    this.offerTurn()
  }

  /** Forgets a prepared statement ahead; call the returned function when it is closed. */
  #forget(name: string): () => void {
    this.#statements.delete(name)
    return () => {
      this.#known.delete(name)
      this.#left = this.#left.filter(left => left.kind !== 'prepared' || left.name !== name)
    }
  }

  #closeStatement(name: string): Request {
    return { bytes: wire.closeStatement(this.#upstreamName(name)), expected: [{ ends: '3' }] }
  }

  /** Two clients' prepared statements may have the same name: psycopg and asyncpg number theirs from one. */
  #upstreamName(name: string): string {
    const ofSql = () => this.#left.some(left => left.kind === 'prepared' && left.name === name)
    return !name || (!this.#statements.has(name) && ofSql()) ? name : `${name}_${this.id}`
  }

  /** Likewise portals, but not those that are cursors of SQL. */
  #upstreamPortal(name: string): string {
    return name && this.#portals.has(name) ? `${name}_${this.id}` : name
  }

  // ── COPY ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Nothing more is sent, no Sync above all, until PostgreSQL has answered: it ignores a Sync that it reads while it
   * waits for data, and heeds one behind an error.
   */
  #copyIn(execute: Buffer, finish: Finish, done: () => void): void {
    if (this.#unitFailed) return
    this.#copying = 'asked'
    this.#send({
      bytes: Buffer.concat([execute, wire.flush]),
      expected: [
        {
          ends: 'CIs',
          deliver: this.#deliverTo(finish),
          copyIn: () => this.#beginCopy(),
          done: () => {
            done()
            if (this.#copying !== 'no') this.#endCopy()
          },
        },
      ],
    })
  }

  #beginCopy(): void {
    this.#copying = 'data'
    if (this.#ended) this.#giveUpCopy()
    else this.#guarded(() => this.work())
  }

  #passCopyData(message: wire.Message): void {
    const { type } = message
    if (type === 'H' || type === 'S') return // PostgreSQL ignores them as well
    if (!'dcf'.includes(type)) return this.end({ code: '08P01', message: `unexpected ${type} message during COPY` })
    this.upstream.send({ bytes: message.frame, expected: [] })
    if (type !== 'd') this.#endCopy()
  }

  #giveUpCopy(): void {
    this.upstream.send({ bytes: copyFail, expected: [] })
    this.#endCopy()
  }

  /** Behind a COPY, or an error in its place, a Sync is due: the client's by the extended protocol, else ours. */
  #endCopy(): void {
    this.#copying = 'no'
    if (this.#simple || this.#ended) this.#endUnit()
    else this.#guarded(() => this.work())
  }

  // ── Transactions ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** Makes sure that a statement is inside this session's savepoint, and notes what it will have done. */
  #enter({ effect, configured, leaves }: Understood, finish?: Finish): void {
    this.#enterReading(finish)
    if (this.#unitFailed) return
    if (effect.kind !== 'read') this.#willWrite()
    if (effect.kind === 'set-local') this.#cover(effect.name)
    else if (effect.kind === 'set') this.#uncover(effect.name)
    for (const { name, local } of configured) {
      if (local) this.#cover(name)
      else this.#uncover(name)
    }
    if (leaves && isFleeting(leaves)) this.#ahead.fleeting.push(leaves)
  }

  #enterReading(finish?: Finish): void {
    if (this.#ahead.status === 'E') this.#failHere('25P02', aborted, finish)
    else this.#openSavepoint()
  }

  #openSavepoint(): void {
    if (this.#ahead.base || this.#unitFailed) return
    const base = this.upstream.newSavepoint()
    this.#ahead.base = base
    const done = () => {
      this.transaction.base = base
      this.upstream.opened(this)
    }
    this.#send(statement(`SAVEPOINT ${base}`, { error: this.#deliver, done }))
  }

  #willWrite(): void {
    this.#change(transaction => {
      transaction.wrote = true
      for (const prepared of transaction.prepared) prepared.followed = true
    })
  }

  /** A change that holds whether or not what follows succeeds. */
  #change(change: (transaction: Transaction) => void): void {
    change(this.#ahead)
    change(this.transaction)
  }

  /** Carries out transaction control in the client's name; false for any other statement. */
  #control({ effect }: Understood, finish: Finish): boolean {
    const { status, prepared } = this.#ahead
    const refuse = (code: string, message: string) => this.#failHere(code, message, finish)
    switch (effect.kind) {
      case 'begin':
        if (status === 'E') refuse('25P02', aborted)
        else
          this.#complete(effect.tag, finish, transaction => {
            transaction.status = 'T'
          })
        return true
      case 'commit':
        if (effect.chain && status === 'I') refuse('25P01', 'COMMIT AND CHAIN can only be used in transaction blocks')
        else if (status === 'E') this.#rollBack(effect.chain, finish)
        else this.#commit(effect.chain, finish)
        return true
      case 'rollback':
        if (effect.chain && status === 'I') refuse('25P01', 'ROLLBACK AND CHAIN can only be used in transaction blocks')
        else this.#rollBack(effect.chain, finish)
        return true
      case 'prepare':
        // Outside of a transaction, and in a failed one, PostgreSQL answers ROLLBACK.
        if (status !== 'T') this.#rollBack(false, finish)
        else if (prepared.some(({ gid }) => gid === effect.gid))
          refuse('42710', `transaction identifier "${effect.gid}" is already in use`)
        else this.#prepare(effect.gid, finish)
        return true
      case 'commit-prepared':
      case 'rollback-prepared': {
        const words = effect.kind === 'commit-prepared' ? 'COMMIT PREPARED' : 'ROLLBACK PREPARED'
        const at = prepared.findIndex(({ gid }) => gid === effect.gid)
        if (status === 'E') refuse('25P02', aborted)
        else if (status === 'T' || this.#ahead.base) refuse('25001', `${words} cannot run inside a transaction block`)
        else if (at < 0) refuse('42704', `prepared transaction with identifier "${effect.gid}" does not exist`)
        else if (words === 'ROLLBACK PREPARED' && (at < prepared.length - 1 || prepared[at]!.followed))
          refuse(
            '0A000',
            'Atomic Upgrade: this prepared transaction cannot be undone without what was written after it',
          )
        else this.#finishPrepared(words, at, finish)
        return true
      }
      case 'savepoint':
        if (status === 'I') refuse('25P01', 'SAVEPOINT can only be used in transaction blocks')
        else this.#savepoint(effect.name, finish)
        return true
      case 'release':
      case 'rollback-to':
        this.#toSavepoint(effect.kind, effect.name, finish)
        return true
      case 'deallocate':
        this.#deallocate(effect.name, finish)
        return true
      case 'refuse':
        refuse('42601', effect.why)
        return true
      default:
        return false
    }
  }

  #commit(chain: boolean, finish: Finish): void {
    this.#send(this.#commitment(this.#ahead))
    this.#complete('COMMIT', finish, transaction => this.#leave(transaction, chain))
  }

  /** What stands for a COMMIT upstream; a failure in it undoes the transaction. */
  #commitment({ base, covered, fleeting }: Transaction): Request {
    if (!base) return join()
    const values = covered.map(({ name, key }) => `(${literal(name)}, pg_catalog.current_setting('${key}', true))`)
    const restore = `SELECT pg_catalog.set_config(name, pg_catalog.substr(value, 2), false)
      FROM (VALUES ${values.join(', ')}) AS covered (name, value) WHERE pg_catalog.starts_with(value, '=')`
    const tables = fleeting.filter(({ kind }) => kind === 'table')
    const sql = [
      ...(this.upstream.canCheckConstraints && this.upstream.isOutermost(this) ? [checkDeferredConstraints] : []),
      ...tables.map(({ name }) => dropTable(name)),
      `RELEASE SAVEPOINT ${base}`,
      ...(covered.length > 0 ? [restore] : []),
    ]
    return join(
      afterwards(() => {
        this.#committing = true
      }),
      ...fleeting.filter(({ kind }) => kind === 'cursor').map(close),
      ...sql.map(text => statement(text, { error: this.#deliver })),
    )
  }

  #rollBack(chain: boolean, finish: Finish): void {
    const { base } = this.#ahead
    if (base) this.#send(this.#toAndAway(base))
    this.#complete('ROLLBACK', finish, transaction => this.#leave(transaction, chain))
  }

  #toAndAway(savepoint: string): Request {
    const error = this.#deliver
    return join(
      statement(`ROLLBACK TO SAVEPOINT ${savepoint}`, { error }),
      statement(`RELEASE SAVEPOINT ${savepoint}`, { error }),
    )
  }

  #leave(transaction: Transaction, chain: boolean): void {
    const { base, prepared } = transaction
    Object.assign(transaction, idle(), { status: chain ? 'T' : 'I', prepared })
    if (transaction === this.transaction && base) this.#wasClosed()
  }

  #wasClosed(): void {
    if (!this.outermostSavepoint) this.upstream.closed(this)
  }

  /** The transaction's savepoint stays, so that ROLLBACK PREPARED can still undo it. */
  #prepare(gid: string, finish: Finish): void {
    const { base, covered, fleeting } = this.#ahead
    // Only what a COMMIT does beside the RELEASE: the savepoint that it releases is one inside.
    if (base) {
      const inner = this.upstream.newSavepoint()
      this.#send(statement(`SAVEPOINT ${inner}`, { error: this.#deliver }))
      this.#send(this.#commitment({ ...this.#ahead, base: inner, covered, fleeting }))
    }
    const prepared = { gid, base, followed: false }
    this.#complete('PREPARE TRANSACTION', finish, transaction => {
      Object.assign(transaction, idle(), { prepared: [...transaction.prepared, prepared] })
    })
  }

  #finishPrepared(words: 'COMMIT PREPARED' | 'ROLLBACK PREPARED', at: number, finish: Finish): void {
    const { prepared } = this.#ahead
    const { base } = prepared[at]!
    // What is committed stays as a savepoint that nobody will go back to.
    if (base && words === 'ROLLBACK PREPARED') this.#send(this.#toAndAway(base))
    this.#complete(words, finish, transaction => {
      transaction.prepared.splice(at, 1)
      if (transaction === this.transaction) this.#wasClosed()
    })
  }

  #savepoint(name: string, finish: Finish): void {
    this.#enterReading(finish)
    if (this.#unitFailed) return
    this.#willWrite()
    const upstream = this.upstream.newSavepoint()
    this.#send(statement(`SAVEPOINT ${upstream}`, { error: this.#deliver }))
    this.#complete('SAVEPOINT', finish, transaction => {
      const { covered, fleeting } = copyOf(transaction)
      transaction.savepoints.push({ name, upstream, covered, fleeting })
    })
  }

  #toSavepoint(kind: 'release' | 'rollback-to', name: string, finish: Finish): void {
    const { status, savepoints } = this.#ahead
    const words = kind === 'release' ? 'RELEASE SAVEPOINT' : 'ROLLBACK TO SAVEPOINT'
    if (status === 'I') return this.#failHere('25P01', `${words} can only be used in transaction blocks`, finish)
    if (status === 'E' && kind === 'release') return this.#failHere('25P02', aborted, finish)
    const at = savepoints.findLastIndex(savepoint => savepoint.name === name)
    if (at < 0) return this.#failHere('3B001', `savepoint "${name}" does not exist`, finish)
    this.#send(statement(`${words} ${savepoints[at]!.upstream}`, { error: this.#deliver }))
    this.#complete(kind === 'release' ? 'RELEASE' : 'ROLLBACK', finish, transaction => {
      const { covered, fleeting } = transaction.savepoints[at]!
      if (kind === 'rollback-to') Object.assign(transaction, { covered: [...covered], fleeting: [...fleeting] })
      transaction.savepoints.length = kind === 'release' ? at : at + 1
      transaction.status = 'T'
    })
  }

  /** DEALLOCATE says the name in SQL, and ALL would also drop the statements of other clients. */
  #deallocate(name: string, finish: Finish): void {
    this.#enterReading(finish)
    const known = (name ? [name] : [...this.#statements.keys()]).filter(other => other && this.#statements.has(other))
    for (const other of known) {
      const request = this.#closeStatement(other)
      this.#send(join(request, afterwards(this.#forget(other))))
    }
    const left = this.#left.filter(left => left.kind === 'prepared')
    if (!name)
      for (const { name: other } of left)
        this.#send(join(close({ kind: 'prepared', name: other }), afterwards(this.#forget(other))))
    else if (known.length === 0)
      this.#send(
        statement(`DEALLOCATE ${identifier(name)}`, { error: this.#deliverTo(finish), done: this.#forget(name) }),
      )
    this.#complete(name ? 'DEALLOCATE' : 'DEALLOCATE ALL', finish, () => {})
  }

  /** Remembers the value that a SET LOCAL is about to cover. */
  #cover(name: string): void {
    const { covered } = this.#ahead
    if (covered.some(other => other.name.toLowerCase() === name.toLowerCase())) return
    const key = `atomic_upgrade.covered_${this.upstream.newSavepoint()}`
    this.upstream.noteSetting(key)
    this.upstream.noteSetting(name)
    const value = `'=' OPERATOR(pg_catalog.||) coalesce(pg_catalog.current_setting(${literal(name)}, true), '')`
    const keep = `SELECT pg_catalog.set_config('${key}', ${value}, false)`
    covered.push({ name, key })
    const done = () => void this.transaction.covered.push({ name, key })
    this.#send(statement(keep, { error: this.#deliver, done }))
  }

  /** A SET for the session holds past the COMMIT, also of what a SET LOCAL has covered. */
  #uncover(name: string | null): void {
    if (name) this.upstream.noteSetting(name)
    const change = (transaction: Transaction) => {
      transaction.covered = transaction.covered.filter(
        other => name !== null && other.name.toLowerCase() !== name.toLowerCase(),
      )
    }
    change(this.#ahead)
    this.#inOrder(() => change(this.transaction))
  }

  /** A RESET goes back to what the client asked for as it connected, and keeps the timeouts that this step has set. */
  #afterReset(effect: GateEffect): void {
    if (effect.kind !== 'reset') return
    const { name } = effect
    this.#uncover(name)
    const wanted = Object.entries(this.startupSettings).filter(
      ([other]) => name === null || other.toLowerCase() === name.toLowerCase(),
    )
    const error = this.#deliver
    this.#send(
      join(
        this.upstream.ownSettings(name),
        ...wanted.map(([other, value]) =>
          statement(`SELECT pg_catalog.set_config(${literal(other)}, ${literal(value)}, false)`, { error }),
        ),
      ),
    )
  }

  /** Notes what a statement has left behind that was just carried out. */
  #leaveBehind({ leaves }: Understood): void {
    if (leaves) (isFleeting(leaves) ? this.transaction.fleeting : this.#left).push(leaves)
  }

  // ── Answers in the server's place, in the order of its answers ────────────────────────────────────────────────────

  #inOrder(action: () => void): void {
    this.#send(afterwards(action))
  }

  #answer(bytes: Buffer, done?: () => void): void {
    this.#inOrder(() => {
      done?.()
      this.write(bytes)
    })
  }

  /** `change` is what has become of the transaction. */
  #complete(tag: string, finish: Finish, change: (transaction: Transaction) => void): void {
    if (this.#unitFailed) return
    change(this.#ahead)
    this.#answer(wire.commandComplete(tag), () => {
      this.#committing = false
      change(this.transaction)
      finish(tag)
    })
  }

  /** The unit fails without the server's having refused anything. */
  #failHere(code: string, message: string, finish?: Finish): void {
    if (this.#unitFailed) return
    this.#inOrder(() => {
      this.#fail()
      finish?.(null, { code, message })
      this.write(wire.errorResponse('ERROR', code, message))
    })
    this.#unitFailed = true
    this.#rest = []
  }

  // ── Units ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  #send(request: Request): void {
    // Behind an error the server skips everything up to the Sync, so nothing more is sent.
    if (!this.#unitFailed) this.upstream.send(request)
  }

  #endUnit({ sync = true } = {}): void {
    this.#synced = true
    const request = syncPoint(status => this.#ready(status))
    this.upstream.send(sync ? request : { ...request, bytes: Buffer.alloc(0) })
  }

  #ready(status: string): void {
    const failed = status === 'E' || this.#unitFailed
    if (this.#turn === 'yielding' && !failed) return this.#finish()
    this.#skipping = this.#turn === 'yielding'
    this.#unitFailed = false
    if (failed) this.#statements = new Map(this.#known)
    else if (this.#rest.length > 0) return this.#nextBatch()
    this.#rest = []
    if (this.#ended) return this.#finish()
    const { transaction } = this
    const { base } = transaction
    if (failed && (transaction.status === 'I' || this.#committing)) {
      // Outside of a transaction, or in its COMMIT, a failure undoes what PostgreSQL would have undone.
      this.#committing = false
      this.#leave(transaction, false)
      return base ? this.upstream.undo(base, () => this.#finish()) : this.#finish()
    }
    if (failed) transaction.status = 'E'
    if (transaction.status !== 'I' || !base) return this.#finish()
    // A statement outside of a transaction commits by itself.
    const committed = () => {
      this.#committing = false
      this.#leave(transaction, false)
    }
    this.upstream.send(
      join(
        this.#commitment(transaction),
        afterwards(committed),
        syncPoint(after => this.#ready(after)),
      ),
    )
  }

  #finish(): void {
    const yielding = this.#turn === 'yielding'
    this.#ahead = copyOf(this.transaction)
    if (this.transaction.status === 'I' && !this.transaction.base) this.#portals.clear()
    this.#turn = 'none'
    if (!yielding) {
      this.#synced = false
      this.#simple = false
      this.#underWay = false
      this.write(wire.readyForQuery(this.transaction.status))
    }
    this.#flushed = 'no'
    if (this.#ended) this.upstream.ended(this)
    this.upstream.endTurn(this)
    this.#guarded(() => this.work())
  }

  #deliver = (message: wire.Message): void => {
    this.write(message.frame)
    if (message.type === 'E') this.#fail()
  }

  #fail(): void {
    this.#unitFailed = true
    this.#rest = []
    if (this.#copying !== 'no') this.#endCopy()
    if (this.#flushed === 'asked') this.#hasFlushed()
  }

  #deliverTo(finish: Finish): (message: wire.Message) => void {
    return message => {
      if (message.type === 'E') finish(null, serverError(wire.readFields(message.body)))
      else if (message.type === 'C') finish(wire.readCString(message.body).text)
      this.#deliver(message)
    }
  }

  #record(sql: string, parameters: () => (string | null)[] = () => []): Finish {
    return this.upstream.tape.start(sql, parameters)
  }
}

type Finish = (tag: string | null, error?: ServerError) => void

const aborted = 'current transaction is aborted, commands ignored until end of transaction block'

/** What PostgreSQL still takes in a failed transaction. */
const wayOut = new Set<GateEffect['kind']>(['commit', 'rollback', 'rollback-to', 'prepare'])

/** What may be anything. */
const unknown: Understood = {
  bytes: Buffer.alloc(0),
  text: '',
  effect: { kind: 'other' },
  leaves: undefined,
  configured: [],
}

const copyFail = wire.frame('f', wire.cstring('the client went away'))

const isFleeting = (leaves: Leaving): boolean =>
  leaves.kind === 'table' ? leaves.untilCommit : leaves.kind === 'cursor' && !leaves.hold

/** Closing what does not exist is not an error. */
const close = ({ kind, name }: Leaving): Request =>
  kind === 'table'
    ? join()
    : { bytes: kind === 'cursor' ? wire.closePortal(name) : wire.closeStatement(name), expected: [{ ends: '3' }] }

const dropTable = (name: string) => `DROP TABLE IF EXISTS pg_temp.${identifier(name)} CASCADE`

const onlyErrors =
  (deliver: NonNullable<Expected['deliver']>) =>
  (message: wire.Message): void => {
    if (message.type === 'E') deliver(message)
  }

/** The parameters of a Bind message, as far as it is well-formed: the server has the say about that. */
function parametersOf(rest: Buffer): (string | null)[] {
  try {
    return readParameters(rest)
  } catch {
    return []
  }
}

/** The parameters of a Bind message, behind its two names. */
function readParameters(rest: Buffer): (string | null)[] {
  const formats = Array.from({ length: rest.readInt16BE(0) }, (_, i) => rest.readInt16BE(2 + 2 * i))
  const values: (string | null)[] = []
  let offset = 2 + 2 * formats.length
  const count = rest.readInt16BE(offset)
  offset += 2
  for (let i = 0; i < count; i++) {
    const size = rest.readInt32BE(offset)
    offset += 4
    const binary = (formats.length === 1 ? formats[0] : formats[i]) === 1
    const bytes = rest.subarray(offset, offset + Math.max(size, 0))
    values.push(size < 0 ? null : binary ? `\\x${bytes.toString('hex')}` : bytes.toString('utf8'))
    offset += bytes.length
  }
  return values
}
