import { randomBytes, timingSafeEqual } from 'node:crypto'
import net, { type AddressInfo, type Socket } from 'node:net'
import type { Client } from 'pg'
import { join, literal, statement, statements, syncPoint } from './request'
import { Session } from './session'
import type { Tape } from './tape'
import { type Request, Upstream } from './upstream'
import * as wire from './wire'

export interface GateOptions {
  /** Connected, inside the transaction that everything shall be part of, and idle until `close()`. */
  client: Client
  tape: Tape
  /** The `SET LOCAL` statements of this step: they are said again whenever a script's settings are cleared. */
  settings: string[]
  /** Cancels the statement that runs upstream. */
  cancel: () => Promise<void>
}

/** Where the scripts find the gate. */
export interface GateAddress {
  host: string
  port: number
  password: string
}

/**
 * A PostgreSQL server on loopback in front of one upstream connection, which is inside a transaction.
 *
 * Any number of clients may connect; they take turns. Their transactions are nested savepoints upstream, last in first
 * out, so that nothing they send can end the transaction. When a client goes, what a session leaves behind goes too.
 */
export class Gate {
  readonly address: GateAddress
  /** Why the upstream connection was lost, if it was. */
  lost: Error | undefined
  /** The check is a DO block, for which some databases have no language. */
  readonly canCheckConstraints: boolean
  readonly #upstream: Upstream
  readonly #options: GateOptions
  readonly #server: net.Server
  readonly #parameters: [string, string][]
  readonly #pid: number
  readonly #sessions = new Map<Session, Buffer>()
  readonly #sockets = new Set<Socket>()
  /** Sessions whose transaction is a savepoint upstream, outermost first. */
  #open: Session[] = []
  #waiting: Session[] = []
  /** Sessions whose client has gone and that are still to be tidied after. */
  #departed: Session[] = []
  #turn: Session | undefined
  /** Whose settings the connection has now; nobody's after a session has gone. */
  #current: Session | undefined
  /** Whether a session has left settings, cursors or temporary tables behind. */
  #littered = false
  /** The names of settings with a dot in them, which pg_settings does not show. */
  readonly #customSettings = new Set<string>()
  /** Cancellations that are on their way: nothing starts that they might hit. */
  #cancelling = 0
  #counter = 0
  readonly #nonce = randomBytes(4).toString('hex')
  #whenQuiet: (() => void) | undefined
  #closed: Promise<void> | undefined

  /** Opens the gate on a free port of 127.0.0.1. Throws what PostgreSQL answers when the connection is not usable. */
  static async open(options: GateOptions): Promise<Gate> {
    const { rows } = await options.client.query<{ name: string; setting: string }>(
      `SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY ($1)
       UNION ALL SELECT 'session_authorization', session_user::text
       UNION ALL SELECT 'is_superuser', pg_catalog.current_setting('is_superuser')
       UNION ALL SELECT 'atomic_upgrade.pid', pg_catalog.pg_backend_pid()::text
       UNION ALL SELECT 'atomic_upgrade.plpgsql', 'usable' FROM pg_catalog.pg_language
         WHERE lanname = 'plpgsql' AND pg_catalog.has_language_privilege(oid, 'USAGE')`,
      [reported],
    )
    const server = net.createServer({ noDelay: true })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    try {
      return new Gate(options, server, new Map(rows.map(row => [row.name, row.setting])))
    } catch (error) {
      server.close()
      throw error
    }
  }

  private constructor(options: GateOptions, server: net.Server, known: Map<string, string>) {
    this.#pid = Number(known.get('atomic_upgrade.pid'))
    this.canCheckConstraints = known.has('atomic_upgrade.plpgsql')
    this.#parameters = [...known].filter(([name]) => !name.startsWith('atomic_upgrade.'))
    this.#options = options
    this.#server = server
    this.address = {
      host: '127.0.0.1',
      port: (server.address() as AddressInfo).port,
      password: randomBytes(24).toString('base64url'),
    }
    this.#upstream = new Upstream(options.client, {
      asynchronous: message => this.#asynchronous(message),
      fatal: message => this.#fatal(new Error(wire.readFields(message.body).M), message.frame),
      lost: error => this.#fatal(error),
    })
    server.on('connection', socket => this.#accept(socket))
  }

  /**
   * Closes the gate: rolls back what clients left open, clears their sessions, and gives the connection back to pg.
   * Resolves also when the connection is lost; `lost` says so.
   */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#server.close()
    const connected = [...this.#sessions.keys()]
    for (const session of connected) session.end({ code: '57P01', message: 'the gate of Atomic Upgrade has closed' })
    for (const socket of this.#sockets) socket.destroySoon()
    if (!this.lost && !this.#isQuiet) {
      await new Promise<void>(resolve => {
        this.#whenQuiet = resolve
      })
    }
    for (const socket of this.#sockets) socket.destroy()
    if (!this.lost) this.#upstream.release()
  }

  get #isQuiet(): boolean {
    const waiting = this.#waiting.length + this.#departed.length + this.#cancelling
    return !this.#turn && waiting === 0 && this.#upstream.idle
  }

  // ── What sessions ask for ─────────────────────────────────────────────────────────────────────────────────────────

  get tape(): Tape {
    return this.#options.tape
  }

  send(request: Request): void {
    this.#upstream.send(request)
  }

  newSavepoint(): string {
    return `atomic_upgrade_${this.#nonce}_${++this.#counter}`
  }

  isOutermost(session: Session): boolean {
    return this.#open.every(other => other === session)
  }

  opened(session: Session): void {
    if (!this.#open.includes(session)) this.#open.push(session)
  }

  closed(session: Session): void {
    this.#open = this.#open.filter(other => other !== session)
  }

  undo(savepoint: string, done: () => void, attempts = 10): void {
    let refused = ''
    const error = (message: wire.Message) => {
      refused = wire.readFields(message.body).M ?? ''
    }
    this.#upstream.send(
      join(
        statement(`ROLLBACK TO SAVEPOINT ${savepoint}`, { error }),
        statement(`RELEASE SAVEPOINT ${savepoint}`, { error }),
        syncPoint(status => {
          if (status === 'T') done()
          // A cancellation or a statement_timeout may have hit it.
          else if (attempts > 1) this.undo(savepoint, done, attempts - 1)
          else this.#upstream.abandon(new Error(`PostgreSQL would not roll back to a savepoint: ${refused}`))
        }),
      ),
    )
  }

  ownSettings(name: string | null): Request {
    const { settings } = this.#options
    if (name === null) return statements(...settings)
    return statements(...settings.filter(sql => sql.toLowerCase().startsWith(`set local ${name.toLowerCase()} `)))
  }

  noteSetting(name: string): void {
    if (name.includes('.')) this.#customSettings.add(name.toLowerCase())
  }

  congested(resume: () => void): boolean {
    if (!this.#upstream.congested) return false
    this.#upstream.drained(resume)
    return true
  }

  pause(): void {
    this.#upstream.pause()
  }

  resume(): void {
    this.#upstream.resume()
  }

  cancel(done?: () => void): void {
    this.#cancelling++
    const settled = () => {
      this.#cancelling--
      done?.()
      this.#next()
    }
    this.#options.cancel().then(settled, settled)
  }

  get isWantedElsewhere(): boolean {
    return this.#waiting.length > 0
  }

  requestTurn(session: Session): void {
    this.#waiting.push(session)
    this.#next()
    if (this.#turn !== session) this.#turn?.offerTurn()
  }

  endTurn(session: Session): void {
    if (this.#turn === session) this.#turn = undefined
    this.#next()
  }

  /** A client has gone: its transaction is rolled back, and whatever it left is cleared before the next one starts. */
  ended(session: Session): void {
    if (!this.#sessions.delete(session)) return
    this.#waiting = this.#waiting.filter(other => other !== session)
    this.#departed.push(session)
    this.#next()
  }

  // ── Turns ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  #next(): void {
    if (this.#turn || this.lost || this.#cancelling > 0) return
    // A statement_timeout of a millisecond or a cancellation may hit even a SAVEPOINT; without one there is no way back.
    if (this.#upstream.status === 'E' && this.#open.length === 0)
      return this.#upstream.abandon(new Error('the transaction failed where no savepoint was set'))
    const departed = this.#departed.shift()
    if (departed) return this.#tidyAfter(departed)
    const session = this.#waiting.shift()
    if (!session) return this.#whenQuiet?.()
    this.#turn = session
    const refusal = this.#makeRoom(session)
    if (refusal || this.#current === session) return session.begin(refusal)
    if (this.#upstream.status === 'T') return this.#switchTo(session)
    // In a failed transaction only its ROLLBACK goes through, and that brings back the settings of its start.
    this.#current = this.#open.includes(session) ? session : undefined
    session.begin()
  }

  #tidyAfter(session: Session): void {
    this.#turn = session
    const failed = this.#upstream.status === 'E'
    const savepoint = session.outermostSavepoint
    const staying = this.#current !== session && this.#sessions.has(this.#current!) ? this.#current : undefined
    this.#current = undefined
    this.#littered = true
    this.#loseAbove(session)
    this.closed(session)
    const reset = ['RESET SESSION AUTHORIZATION', 'RESET ALL', ...this.#options.settings]
    const tables = session.leftTables
    // What DISCARD ALL does, which PostgreSQL does not allow inside a transaction.
    const discard = ['CLOSE ALL', 'DEALLOCATE ALL', 'UNLISTEN *', 'SELECT pg_catalog.pg_advisory_unlock_all()']
    const steps =
      this.#sessions.size === 0 ? [reset, discard, ['DISCARD TEMP']] : tables.length > 0 ? [reset, tables] : []
    const tidy = () => this.#attempt(steps, () => this.endTurn(session))
    this.#upstream.send(
      join(
        staying && !failed ? this.#save(staying) : join(),
        session.farewell(),
        syncPoint(status => {
          if (status === 'T') tidy()
          else if (savepoint) this.undo(savepoint, tidy)
          // The failed transaction is another session's.
          else this.endTurn(session)
        }),
      ),
    )
  }

  /** Carries out each list of statements, or nothing of it. */
  #attempt([sql, ...rest]: string[][], done: () => void): void {
    if (!sql) return done()
    const savepoint = this.newSavepoint()
    const next = () => this.#attempt(rest, done)
    this.#upstream.send(
      join(
        statements(`SAVEPOINT ${savepoint}`, ...sql, `RELEASE SAVEPOINT ${savepoint}`),
        syncPoint(status => (status === 'T' ? next() : this.undo(savepoint, next))),
      ),
    )
  }

  /** Sees to it that the session's transaction is the innermost one; says why it cannot be. */
  #makeRoom(session: Session): string | undefined {
    if (session.transaction.status === 'E') {
      // Only a ROLLBACK is of use now, and it takes the inner ones along.
      this.#loseAbove(session)
      return undefined
    }
    const at = this.#open.indexOf(session)
    const above = at < 0 ? [] : this.#open.slice(at + 1)
    if (this.#upstream.status === 'E') {
      return 'another connection of this migration is in a failed transaction, which has to be rolled back first'
    }
    if (above.length === 0) return undefined
    if (!above.every(inner => inner.canStepAside))
      return 'this connection cannot be used while a newer one is inside a transaction that has written: both are part of the same transaction, and the newer one has to end first'
    for (const inner of above.reverse()) this.#upstream.send(inner.stepAside())
    this.#open = this.#open.filter(other => !above.includes(other))
    return undefined
  }

  /** The transactions inside of the session's go with it. */
  #loseAbove(session: Session): void {
    const at = this.#open.indexOf(session)
    if (at >= 0) for (const lost of this.#open.splice(at + 1)) lost.lose()
  }

  #save(session: Session): Request {
    const row = ([json]: (string | null)[]) => {
      session.saved = JSON.parse(json ?? '{}')
    }
    return statement(sessionSettings([...this.#customSettings]), { row })
  }

  /** Gives the connection the settings of the session whose turn it is. */
  #switchTo(session: Session): void {
    const leaving = this.#current
    this.#current = session
    const wanted = Object.entries(session.saved).map(
      ([name, value]) => `pg_catalog.set_config(${literal(name)}, ${literal(value)}, false)`,
    )
    if (!leaving && !this.#littered && wanted.length === 0) return session.begin()
    this.#littered = false
    const savepoint = this.newSavepoint()
    let refused = 'the connection cannot be set up'
    const error = (message: wire.Message) => {
      refused = wire.readFields(message.body).M ?? refused
    }
    const reset = ['RESET SESSION AUTHORIZATION', 'RESET ALL', ...this.#options.settings]
    const set = wanted.length > 0 ? [`SELECT ${wanted.join(', ')}`] : []
    this.#upstream.send(
      join(
        statements(`SAVEPOINT ${savepoint}`),
        leaving ? this.#save(leaving) : join(),
        ...[...reset, ...set].map(sql => statement(sql, { error })),
        statements(`RELEASE SAVEPOINT ${savepoint}`),
        syncPoint(status => {
          if (status === 'T') return session.begin()
          this.#current = undefined
          this.#littered = true
          this.undo(savepoint, () => session.begin(refused))
        }),
      ),
    )
  }

  // ── Connections ───────────────────────────────────────────────────────────────────────────────────────────────────

  #accept(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    const reader = new wire.MessageReader()
    let settings: Record<string, string> | undefined
    let session: Session | undefined
    const greet = (body: Buffer): void => {
      const code = body.readInt32BE(0)
      if (code === wire.startupCode.ssl || code === wire.startupCode.gss) return void socket.write('N')
      if (code === wire.startupCode.cancel) return this.#cancel(socket, body)
      if (code >> 16 !== 3) throw new Error(`protocol version ${code >> 16}`)
      const parameters = wire.readStartupParameters(body)
      const options = Object.keys(parameters).filter(name => name.startsWith('_pq_.'))
      if ((code & 0xffff) > 0 || options.length > 0) socket.write(wire.negotiateProtocolVersion(options))
      settings = startupSettings(parameters)
      socket.write(wire.authenticationCleartextPassword)
    }
    const authenticate = (message: wire.Message): Session | undefined => {
      const given = message.type === 'p' ? wire.readCString(message.body).bytes : Buffer.alloc(0)
      const wanted = Buffer.from(this.address.password)
      if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) {
        socket.end(
          wire.errorResponse('FATAL', '28P01', 'this is the gate of Atomic Upgrade, and the password is wrong'),
        )
        return undefined
      }
      if (this.lost || this.#closed) {
        const why = this.lost ? `the connection to PostgreSQL was lost: ${this.lost.message}` : 'the gate has closed'
        socket.end(wire.errorResponse('FATAL', '08006', `Atomic Upgrade: ${why}`))
        return undefined
      }
      const secret = randomBytes(4)
      const welcomed = new Session(socket, this, ++this.#counter, reader, settings!)
      this.#sessions.set(welcomed, secret)
      socket.write(
        Buffer.concat([
          wire.authenticationOk,
          ...this.#parameters.map(([name, value]) => wire.parameterStatus(name, value)),
          wire.backendKeyData(this.#pid, secret),
          wire.readyForQuery('I'),
        ]),
      )
      return welcomed
    }
    const read = (): void => {
      if (session) return session.work()
      if (!settings) {
        const body = reader.startup()
        if (!body) return
        greet(body)
      } else {
        const message = reader.message(10_000)
        if (!message) return
        session = authenticate(message)
        if (!session) return void socket.off('data', receive)
      }
      read()
    }
    const receive = (chunk: Buffer): void => {
      reader.push(chunk)
      try {
        read()
      } catch (error) {
        if (session) return session.refuse(error)
        socket.off('data', receive)
        const message = `the gate cannot read this: ${error instanceof Error ? error.message : error}`
        socket.end(wire.errorResponse('FATAL', '08P01', message))
      }
    }
    socket.on('data', receive)
    socket.on('end', () => session?.end())
    socket.on('close', () => session?.end())
  }

  #cancel(socket: Socket, body: Buffer): void {
    const pid = body.readInt32BE(4)
    const secret = body.subarray(8)
    const known = this.#turn && this.#sessions.get(this.#turn)
    if (pid === this.#pid && known?.equals(secret)) this.cancel(() => socket.end())
    else socket.end()
  }

  #asynchronous(message: wire.Message): void {
    if (message.type === 'N') {
      const { V: severity = '', M: text = '' } = wire.readFields(message.body)
      this.tape.notices.push({ revision: this.tape.revision, severity, message: text })
    }
    this.#turn?.write(message.frame)
  }

  #fatal(error: Error, frame?: Buffer): void {
    if (this.lost) return
    this.lost = error
    for (const session of this.#sessions.keys()) {
      if (frame) session.write(frame)
      else
        session.write(wire.errorResponse('FATAL', '08006', `the connection to PostgreSQL was lost: ${error.message}`))
    }
    for (const socket of this.#sockets) socket.destroySoon()
    this.#whenQuiet?.()
  }
}

/** The settings that a server reports to its clients (protocol-flow.html, PostgreSQL 18), but for those asked apart. */
const reported = [
  'application_name',
  'client_encoding',
  'DateStyle',
  'default_transaction_read_only',
  'in_hot_standby',
  'integer_datetimes',
  'IntervalStyle',
  'scram_iterations',
  'search_path',
  'server_encoding',
  'server_version',
  'standard_conforming_strings',
  'TimeZone',
]

/** What the session has set, as JSON, in the order in which it can be set again; not all of it is in pg_settings. */
const sessionSettings = (
  custom: string[],
) => `SELECT pg_catalog.json_object_agg(name, setting ORDER BY rank)::text FROM (
  SELECT 1 AS rank, name, setting FROM pg_catalog.pg_settings WHERE source = 'session' AND context IN ('user', 'superuser')
  UNION ALL SELECT 2, name, pg_catalog.current_setting(name, true)
    FROM pg_catalog.unnest(ARRAY[${custom.map(literal).join(', ')}]::text[]) AS custom (name)
    WHERE pg_catalog.current_setting(name, true) <> ''
  UNION ALL SELECT 3, 'session_authorization', pg_catalog.current_setting('session_authorization')
  UNION ALL SELECT 4, 'role', pg_catalog.current_setting('role')) AS settings`

/** The settings that a client asks for as it connects; the rest of a StartupMessage is the gate's own business. */
function startupSettings({ options = '', ...parameters }: Record<string, string>): Record<string, string> {
  if (parameters.replication) throw new Error('replication connections are not possible')
  const settings: Record<string, string> = {}
  for (const [, name, value] of options.matchAll(/(?:-c\s*|--)([\w.-]+)=((?:\\.|[^\s\\])*)/g))
    settings[name!.replaceAll('-', '_')] = value!.replace(/\\(.)/g, '$1')
  for (const [name, value] of Object.entries(parameters))
    if (
      !['user', 'database', 'application_name', 'client_encoding', 'replication'].includes(name) &&
      !name.startsWith('_pq_')
    )
      settings[name] = value
  return settings
}
