import type { Socket } from 'node:net'
import type { Effect } from '../../plan/statements'
import {
  afterwards,
  checkDeferredConstraints,
  identifier,
  join,
  literal,
  raise,
  statement,
  statements,
  syncPoint,
} from './request'
import { type ServerError, serverError, type Tape } from './tape'
import { type Understood, understand } from './understand'
import type { Expected, Request } from './upstream'
import * as wire from './wire'

/** What a session needs of the gate that it belongs to. */
export interface Upstream {
  readonly tape: Tape
  send(request: Request): void
  /** Asks for the upstream connection; `session.begin` follows when it is this session's turn. */
  requestTurn(session: Session): void
  endTurn(session: Session): void
  /** A savepoint name that no script can guess. */
  newSavepoint(): string
  /** Whether no other session has a transaction open around this one's. */
  isOutermost(session: Session): boolean
  /** The session's transaction became a savepoint upstream, or stopped being one. */
  opened(session: Session): void
  closed(session: Session): void
  resetSettings(): void
  congested(resume: () => void): boolean
  pauseUntilDrained(socket: Socket): void
  ended(session: Session): void
}

/** A client's transaction, as it stands for the client and as it stands upstream. */
interface Transaction {
  /** What ReadyForQuery says: idle, in a transaction, in a failed one. */
  status: 'I' | 'T' | 'E'
  /** The savepoint upstream that is this transaction, once anything was sent in it. */
  base: string | null
  /** The client's own savepoints, innermost last, with their names upstream. */
  savepoints: { name: string; upstream: string }[]
  /** Whether it may have changed something. */
  wrote: boolean
  /** Settings that a SET LOCAL covered, whose values a real COMMIT would bring back. */
  covered: string[]
  /** The gid of a PREPARE TRANSACTION that waits for its COMMIT PREPARED. */
  prepared: string | null
}

const idle = (): Transaction => ({
  status: 'I',
  base: null,
  savepoints: [],
  wrote: false,
  covered: [],
  prepared: null,
})

const copyOf = (transaction: Transaction): Transaction => ({
  ...transaction,
  savepoints: [...transaction.savepoints],
  covered: [...transaction.covered],
})

/** A statement that may be parsed and bound even in a failed transaction, and is never executed. */
const placeholder = 'ROLLBACK TO SAVEPOINT atomic_upgrade_never'

/**
 * One client connection inside the gate, past its startup.
 *
 * Messages are passed on as they come. A *unit* is what runs up to a Sync (or one Query message); only one session has
 * a unit under way upstream. BEGIN, COMMIT and ROLLBACK become SAVEPOINT, RELEASE and ROLLBACK TO, and a unit outside
 * of a transaction is wrapped in a savepoint of its own. `#ahead` is the transaction as it will be when everything
 * that was sent has succeeded, `transaction` as it is by the answers that have come.
 */
export class Session {
  transaction = idle()
  #ahead = idle()
  #statements = new Map<string, Understood>()
  #portals = new Map<string, { statement: Understood; parameters: () => (string | null)[] }>()
  #reader: wire.MessageReader
  /** A message that waits for the turn. */
  #held: wire.Message | undefined
  #turn: 'none' | 'asked' | 'mine' = 'none'
  /** A Sync is under way: the next unit waits for ReadyForQuery. */
  #synced = false
  #unitFailed = false
  #committing = false
  #copying = false
  /** PostgreSQL ignored a Sync that came ahead of COPY data; its answer is still expected. */
  #ignoredSync = false
  /** The transaction control statement that is being carried out, for the tape. */
  #controlling = ''
  /** Pieces of a Query message that wait until a COPY before them is done. */
  #rest: Understood[][] = []
  #simple = false
  #ended = false
  /** The session's settings while another session has the connection. */
  saved: Record<string, string>

  constructor(
    private readonly socket: Socket,
    private readonly upstream: Upstream,
    readonly id: number,
    reader: wire.MessageReader,
    startupSettings: Record<string, string>,
  ) {
    this.#reader = reader
    this.saved = startupSettings
  }

  /** New bytes are in the reader. */
  work(): void {
    while (!this.#ended) {
      if (this.#turn === 'asked') return
      if (this.#synced && !this.#copying) return
      const message = this.#reader.message()
      if (!message) return
      this.#receive(message)
    }
  }

  /** The turn is this session's; `refusal` says why it cannot be used, if so. */
  begin(refusal?: string): void {
    this.#turn = 'mine'
    if (refusal) {
      // Raised by the server, so that its transaction has failed as well; the words are ours in any case.
      const frame = wire.errorResponse('ERROR', '0A000', `Atomic Upgrade: ${refusal}`)
      const error = () => this.#deliver({ type: 'E', body: frame.subarray(5), frame })
      this.#send(raise('0A000', refusal, { error }))
    }
    const message = this.#held!
    this.#held = undefined
    this.#receive(message)
    this.work()
  }

  /** The transaction upstream is gone because an outer one was rolled back. */
  lose(): void {
    this.transaction = { ...idle(), status: this.transaction.status === 'I' ? 'I' : 'E' }
    this.#ahead = copyOf(this.transaction)
  }

  /** What rolls back the open transaction and forgets the session's prepared statements, when its client has gone. */
  farewell(): Request {
    const { base } = this.transaction
    this.transaction = idle()
    return join(
      ...(base ? [statements(`ROLLBACK TO SAVEPOINT ${base}`, `RELEASE SAVEPOINT ${base}`)] : []),
      ...[...this.#statements.keys()].filter(Boolean).map(name => this.#closeStatement(name)),
    )
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
    const { status, wrote, savepoints } = this.transaction
    return status === 'T' && !wrote && savepoints.length === 0
  }

  get inTurn(): boolean {
    return this.#turn === 'mine'
  }

  write(bytes: Buffer): void {
    if (this.#ended || this.socket.destroyed) return
    if (!this.socket.write(bytes)) this.upstream.pauseUntilDrained(this.socket)
  }

  /** Says a last word and closes the connection. */
  end(fatal?: { code: string; message: string }): void {
    if (this.#ended) return
    if (fatal) this.write(wire.errorResponse('FATAL', fatal.code, fatal.message))
    this.#ended = true
    this.socket.end()
    if (this.#turn !== 'mine') return this.upstream.ended(this)
    // A unit under way is brought to its end first; nobody hears its answers.
    if (this.#copying) this.upstream.send({ bytes: Buffer.concat([copyFail, wire.sync]), expected: [] })
    this.#copying = false
    if (!this.#synced) this.#endUnit()
  }

  #receive(message: wire.Message): void {
    if (message.type === 'X') return this.end()
    if (this.#copying) return this.#passCopyData(message)
    if ('dcf'.includes(message.type)) return // left over from a COPY that failed: PostgreSQL ignores them as well
    if (this.#turn !== 'mine') {
      this.#turn = 'asked'
      this.#held = message
      return this.upstream.requestTurn(this)
    }
    if (message.type === 'Q') return this.#query(message)
    if (message.type === 'S') return this.#endUnit()
    if (message.type === 'F') {
      this.#openTransaction({ kind: 'other' })
      this.#send({ bytes: message.frame, expected: [{ ends: 'V', deliver: this.#deliver }] })
      return this.#endUnit({ sync: false })
    }
    if (this.#unitFailed) return // PostgreSQL, too, skips everything up to the Sync
    switch (message.type) {
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
      case 'H':
        return this.upstream.send({ bytes: message.frame, expected: [] })
      default:
        this.end({ code: '08P01', message: `the gate does not know messages of type ${message.type}` })
    }
  }

  // ── Simple queries ────────────────────────────────────────────────────────────────────────────────────────────────

  #query(message: wire.Message): void {
    const pieces = understand(wire.readCString(message.body).bytes)
    this.#simple = true
    if (pieces.length === 0) this.write(wire.emptyQuery)
    // Nothing may be sent behind a COPY FROM STDIN before its data.
    this.#rest = [[]]
    for (const piece of pieces) {
      this.#rest.at(-1)!.push(piece)
      if (piece.effect.kind === 'copy-in') this.#rest.push([])
    }
    this.#nextBatch()
  }

  #nextBatch(): void {
    for (const piece of this.#rest.shift() ?? []) {
      if (this.#control(piece)) continue
      this.#openTransaction(piece.effect)
      const finish = this.#record(piece.text, () => [])
      const deliver = this.#deliverTo(finish)
      this.#send({
        bytes: Buffer.concat([
          wire.parse('', this.#renamed(piece)),
          wire.bind('', ''),
          wire.describePortal(''),
          wire.execute(''),
        ]),
        expected: [
          { ends: '1', deliver: onlyErrors(deliver) },
          { ends: '2', deliver: onlyErrors(deliver) },
          { ends: 'Tn', deliver: message => message.type !== 'n' && deliver(message) },
          { ends: 'CIs', deliver },
        ],
      })
    }
    this.#endUnit()
  }

  // ── Extended queries ──────────────────────────────────────────────────────────────────────────────────────────────

  #parse(message: wire.Message): void {
    const name = wire.readCString(message.body)
    const sql = wire.readCString(message.body, name.next)
    const pieces = understand(sql.bytes)
    const only = pieces.length === 1 ? pieces[0]! : undefined
    const understood: Understood = only ?? { bytes: sql.bytes, text: sql.text, effect: { kind: 'other' } }
    this.#statements.set(name.text, understood)
    this.#openTransaction({ kind: 'read' })
    if (understood.effect.kind === 'set-local') this.#cover(understood.effect.name)
    const isControl = controls.has(understood.effect.kind)
    const bytes = isControl
      ? wire.parse(this.#upstreamName(name.text), placeholder)
      : wire.parse(this.#upstreamName(name.text), this.#renamed(understood), message.body.subarray(sql.next))
    const finish = this.#record(understood.text, () => [])
    this.#send({ bytes, expected: [{ ends: '1', deliver: this.#deliverTo(finish) }] })
  }

  #bind(message: wire.Message): void {
    const portal = wire.readCString(message.body)
    const name = wire.readCString(message.body, portal.next)
    const rest = message.body.subarray(name.next)
    const statement = this.#statements.get(name.text)
    if (statement) this.#portals.set(portal.text, { statement, parameters: () => readParameters(rest) })
    this.#openTransaction({ kind: 'read' })
    const finish = this.#record(statement?.text ?? '', () => readParameters(rest))
    this.#send({
      bytes: wire.frame('B', wire.cstring(portal.bytes), wire.cstring(this.#upstreamName(name.text)), rest),
      expected: [{ ends: '2', deliver: this.#deliverTo(finish) }],
    })
  }

  #describe(message: wire.Message): void {
    const ofStatement = message.body[0] === 0x53
    const name = wire.readCString(message.body, 1)
    this.#openTransaction({ kind: 'read' })
    this.#send({
      bytes: ofStatement
        ? wire.frame('D', Buffer.from('S'), wire.cstring(this.#upstreamName(name.text)))
        : message.frame,
      expected: [{ ends: 'Tn', deliver: this.#deliver }],
    })
  }

  #execute(message: wire.Message): void {
    const portal = this.#portals.get(wire.readCString(message.body).text)
    const effect = portal?.statement.effect ?? { kind: 'other' }
    if (portal && this.#control(portal.statement)) return
    this.#openTransaction(effect)
    const finish = this.#record(portal?.statement.text ?? '', portal?.parameters ?? (() => []))
    this.#send({ bytes: message.frame, expected: [{ ends: 'CIs', deliver: this.#deliverTo(finish) }] })
  }

  #close(message: wire.Message): void {
    const ofStatement = message.body[0] === 0x53
    const name = wire.readCString(message.body, 1).text
    const deliver = this.#deliver
    if (!ofStatement) return this.#send({ bytes: message.frame, expected: [{ ends: '3', deliver }] })
    const { bytes } = this.#closeStatement(name)
    this.#statements.delete(name)
    this.#send({ bytes, expected: [{ ends: '3', deliver }] })
  }

  #closeStatement(name: string): Request {
    return { bytes: wire.closeStatement(this.#upstreamName(name)), expected: [{ ends: '3' }] }
  }

  /** Two clients' prepared statements may have the same name: psycopg and asyncpg number theirs from one. */
  #upstreamName(name: string): string {
    return name && `${name}_${this.id}`
  }

  /** DEALLOCATE says the name in SQL. */
  #renamed({ bytes, effect }: Understood): Buffer {
    if (effect.kind !== 'deallocate' || effect.name === '' || !this.#statements.has(effect.name)) return bytes
    this.#statements.delete(effect.name)
    return Buffer.from(`DEALLOCATE ${identifier(this.#upstreamName(effect.name))}`)
  }

  // ── COPY ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** PostgreSQL waits for COPY data. It ignores a Sync that was sent before the data's end, so another one follows. */
  copyIn(): void {
    this.#copying = true
    this.work()
  }

  #passCopyData(message: wire.Message): void {
    const { type } = message
    if (type === 'H') return
    if (type === 'S') return // sent before the client knew that this is a COPY: ignored by PostgreSQL as well
    if (!'dcf'.includes(type)) return this.end({ code: '08P01', message: `unexpected ${type} message during COPY` })
    this.upstream.send({ bytes: message.frame, expected: [] })
    if (type === 'd') {
      if (this.upstream.congested(() => this.socket.resume())) this.socket.pause()
      return
    }
    this.#copying = false
    if (this.#simple) this.upstream.send({ bytes: wire.sync, expected: [] })
    // By the extended protocol the client's own Sync comes next; the one that PostgreSQL ignored is not answered.
    else if (this.#synced) {
      this.#synced = false
      this.#ignoredSync = true
    }
  }

  // ── Transactions ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** Makes sure that what comes next is inside this session's savepoint. */
  #openTransaction(effect: Understood['effect']): void {
    if (effect.kind !== 'read')
      this.#change(transaction => {
        transaction.wrote = true
      })
    if (effect.kind === 'set-local') this.#cover(effect.name)
    if (this.#ahead.base || this.#ahead.status === 'E') return
    const base = this.upstream.newSavepoint()
    const open = (transaction: Transaction) => {
      transaction.base = base
    }
    open(this.#ahead)
    const opened = this.#settled(open)
    this.#send(
      statement(`SAVEPOINT ${base}`, {
        error: this.#deliver,
        done: () => {
          opened()
          this.upstream.opened(this)
        },
      }),
    )
  }

  /** A change that holds whether or not what follows succeeds. */
  #change(change: (transaction: Transaction) => void): void {
    change(this.#ahead)
    change(this.transaction)
  }

  #settled(change: (transaction: Transaction) => void): () => void {
    return () => change(this.transaction)
  }

  /** Carries out transaction control in the client's name; false for any other statement. */
  #control({ effect, text }: Understood): boolean {
    const { status } = this.#ahead
    this.#controlling = text
    switch (effect.kind) {
      case 'begin':
        if (status === 'E') this.#refuse('25P02', 'current transaction is aborted, commands ignored until end of block')
        else
          this.#answer('BEGIN', transaction => {
            transaction.status = 'T'
          })
        return true
      case 'commit':
        if (status === 'E') this.#rollBack(effect.chain)
        else this.#commit('COMMIT', effect.chain)
        return true
      case 'rollback':
        this.#rollBack(effect.chain)
        return true
      case 'prepare':
        // Kept open, so that ROLLBACK PREPARED can still undo it.
        if (status === 'E') this.#rollBack(false)
        else
          this.#answer('PREPARE TRANSACTION', transaction => {
            transaction.status = 'I'
            transaction.prepared = effect.gid
          })
        return true
      case 'commit-prepared':
        if (this.#ahead.prepared !== effect.gid) this.#noPrepared(effect.gid)
        else this.#commit('COMMIT PREPARED', false)
        return true
      case 'rollback-prepared':
        if (this.#ahead.prepared !== effect.gid) this.#noPrepared(effect.gid)
        else this.#rollBack(false, 'ROLLBACK PREPARED')
        return true
      case 'savepoint':
        if (status === 'I') this.#refuse('25P01', 'SAVEPOINT can only be used in transaction blocks')
        else this.#savepoint(effect.name)
        return true
      case 'deallocate':
        if (effect.name !== '') return false
        // DEALLOCATE ALL would also drop the statements of other clients.
        for (const name of this.#statements.keys()) if (name) this.#send(this.#closeStatement(name))
        this.#statements.clear()
        this.#answer('DEALLOCATE ALL', () => {})
        return true
      case 'release':
      case 'rollback-to':
        this.#toSavepoint(effect.kind, effect.name)
        return true
      case 'refuse':
        this.#refuse('42601', effect.why)
        return true
      case 'reset':
        // RESET ALL would also drop the timeouts that this step has set.
        this.#openTransaction(effect)
        this.upstream.resetSettings()
        return false
      default:
        return false
    }
  }

  #commit(tag: string, chain: boolean): void {
    const { base, covered } = this.#ahead
    if (!base) return this.#answer(tag, transaction => this.#leave(transaction, chain))
    this.#committing = true
    const restore = covered.map(
      (name, i) =>
        `pg_catalog.set_config(${literal(name)}, pg_catalog.current_setting('atomic_upgrade.covered_${i}'), false)`,
    )
    this.#send(
      join(
        ...(this.upstream.isOutermost(this) ? [statement(checkDeferredConstraints, { error: this.#deliver })] : []),
        statement(`RELEASE SAVEPOINT ${base}`, { error: this.#deliver }),
        ...(restore.length > 0 ? [statement(`SELECT ${restore.join(', ')}`, { error: this.#deliver })] : []),
      ),
    )
    this.#answer(tag, transaction => this.#leave(transaction, chain))
  }

  #rollBack(chain: boolean, tag = 'ROLLBACK'): void {
    const { base } = this.#ahead
    if (base) this.#send(statements(`ROLLBACK TO SAVEPOINT ${base}`, `RELEASE SAVEPOINT ${base}`))
    this.#answer(tag, transaction => this.#leave(transaction, chain))
  }

  #leave(transaction: Transaction, chain: boolean): void {
    const wasOpen = transaction === this.transaction && transaction.base !== null
    Object.assign(transaction, idle(), { status: chain ? 'T' : 'I' })
    if (wasOpen) this.upstream.closed(this)
  }

  #savepoint(name: string): void {
    this.#openTransaction({ kind: 'other' })
    const upstream = this.upstream.newSavepoint()
    this.#send(statement(`SAVEPOINT ${upstream}`, { error: this.#deliver }))
    this.#answer('SAVEPOINT', transaction => void transaction.savepoints.push({ name, upstream }))
  }

  #toSavepoint(kind: 'release' | 'rollback-to', name: string): void {
    const at = this.#ahead.savepoints.findLastIndex(savepoint => savepoint.name === name)
    if (at < 0) return this.#refuse('3B001', `savepoint "${name}" does not exist`)
    const { upstream } = this.#ahead.savepoints[at]!
    const words = kind === 'release' ? 'RELEASE SAVEPOINT' : 'ROLLBACK TO SAVEPOINT'
    this.#send(statement(`${words} ${upstream}`, { error: this.#deliver }))
    this.#answer(kind === 'release' ? 'RELEASE' : 'ROLLBACK', transaction => {
      transaction.savepoints.length = kind === 'release' ? at : at + 1
      transaction.status = 'T'
    })
  }

  /** Remembers the value that a SET LOCAL is about to cover. */
  #cover(name: string): void {
    const { covered } = this.#ahead
    if (covered.includes(name)) return
    const value = `coalesce(pg_catalog.current_setting(${literal(name)}, true), '')`
    const keep = `SELECT pg_catalog.set_config('atomic_upgrade.covered_${covered.length}', ${value}, false)`
    covered.push(name)
    this.#send(statement(keep, { error: this.#deliver, done: () => this.transaction.covered.push(name) }))
  }

  #noPrepared(gid: string): void {
    this.#refuse('42704', `prepared transaction with identifier "${gid}" does not exist`)
  }

  /** Answers in the server's place, in the order of the answers; `change` is what has become of the transaction. */
  #answer(tag: string, change: (transaction: Transaction) => void): void {
    const finish = this.#record(this.#controlling, () => [])
    change(this.#ahead)
    this.#send(
      afterwards(() => {
        this.#committing = false
        change(this.transaction)
        finish(tag)
        this.write(wire.commandComplete(tag))
      }),
    )
  }

  #refuse(code: string, message: string): void {
    this.#openTransaction({ kind: 'read' })
    this.#send(raise(code, message, { error: this.#deliverTo(this.#record(this.#controlling, () => [])) }))
  }

  // ── Units ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  #send(request: Request): void {
    // Behind an error the server skips everything up to the Sync, so nothing more is sent.
    if (!this.#unitFailed) this.upstream.send(request)
  }

  #endUnit({ sync = true } = {}): void {
    this.#synced = true
    if (this.#ignoredSync) {
      // The answer to this Sync is the one that the ignored one still waits for.
      this.#ignoredSync = false
      this.upstream.send({ bytes: wire.sync, expected: [] })
      return
    }
    const request = syncPoint(status => this.#ready(status))
    this.upstream.send(sync ? request : { ...request, bytes: Buffer.alloc(0) })
  }

  #ready(status: string): void {
    const failed = status === 'E'
    this.#unitFailed = false
    if (!failed && this.#rest.length > 0) return this.#nextBatch()
    this.#rest = []
    const { transaction } = this
    if (this.#ended) return this.#finish()
    if (failed && (transaction.status === 'I' || this.#committing)) {
      // Outside of a transaction, or in its COMMIT, a failure undoes what PostgreSQL would have undone.
      this.#committing = false
      const { base } = transaction
      const request = base ? statements(`ROLLBACK TO SAVEPOINT ${base}`, `RELEASE SAVEPOINT ${base}`) : join()
      this.#leave(transaction, false)
      return this.upstream.send(
        join(
          request,
          syncPoint(() => this.#finish()),
        ),
      )
    }
    if (failed) transaction.status = 'E'
    else if (transaction.status === 'E') transaction.status = 'T'
    if (!failed && transaction.status === 'I' && transaction.base && transaction.prepared === null) {
      // A statement outside of a transaction commits by itself.
      const check = this.upstream.isOutermost(this)
        ? [statement(checkDeferredConstraints, { error: this.#deliver })]
        : []
      this.#committing = true
      const closed = () => {
        this.#committing = false
        this.#leave(transaction, false)
      }
      return this.upstream.send(
        join(...check, statements(`RELEASE SAVEPOINT ${transaction.base}`), afterwards(closed), this.#again()),
      )
    }
    this.#finish()
  }

  #again(): Request {
    return syncPoint(status => this.#ready(status))
  }

  #finish(): void {
    this.#ahead = copyOf(this.transaction)
    this.#synced = false
    this.#copying = false
    this.#simple = false
    this.#turn = 'none'
    this.write(wire.readyForQuery(this.transaction.status))
    if (this.#ended) this.upstream.ended(this)
    this.upstream.endTurn(this)
    this.work()
  }

  #deliver = (message: wire.Message): void => {
    if (message.type === 'E') this.#fail()
    this.write(message.frame)
  }

  #fail(): void {
    this.#unitFailed = true
    this.#rest = []
    if (!this.#copying) return
    // PostgreSQL skips to a Sync; by the simple protocol the client will not send one.
    this.#copying = false
    if (this.#simple) this.upstream.send({ bytes: wire.sync, expected: [] })
    else if (this.#synced) {
      this.#synced = false
      this.#ignoredSync = true
    }
  }

  #deliverTo(finish: Finish): (message: wire.Message) => void {
    return message => {
      if (message.type === 'E') finish(null, serverError(wire.readFields(message.body)))
      else if (message.type === 'C') finish(wire.readCString(message.body).text)
      this.#deliver(message)
    }
  }

  #record(sql: string, parameters: () => (string | null)[]): Finish {
    return this.upstream.tape.start(sql, parameters)
  }
}

type Finish = (tag: string | null, error?: ServerError) => void

const controls = new Set<(Effect | { kind: 'refuse' })['kind']>([
  'begin',
  'commit',
  'rollback',
  'prepare',
  'commit-prepared',
  'rollback-prepared',
  'savepoint',
  'release',
  'rollback-to',
  'refuse',
])

const copyFail = wire.frame('f', wire.cstring('the client went away'))

const onlyErrors =
  (deliver: NonNullable<Expected['deliver']>) =>
  (message: wire.Message): void => {
    if (message.type === 'E') deliver(message)
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
