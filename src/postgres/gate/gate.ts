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
  #counter = 0
  readonly #nonce = randomBytes(4).toString('hex')
  #whenQuiet: (() => void) | undefined

  /** Opens the gate on a free port of 127.0.0.1. Throws what PostgreSQL answers when the connection is not usable. */
  static async open(options: GateOptions): Promise<Gate> {
    const { rows } = await options.client.query<{ name: string; setting: string }>(
      `SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY ($1)
       UNION ALL SELECT 'session_authorization', session_user::text
       UNION ALL SELECT 'is_superuser', pg_catalog.current_setting('is_superuser')
       UNION ALL SELECT 'atomic_upgrade.pid', pg_catalog.pg_backend_pid()::text`,
      [reported],
    )
    const server = net.createServer({ noDelay: true })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    return new Gate(
      options,
      server,
      rows.map(row => [row.name, row.setting] as const),
    )
  }

  private constructor(options: GateOptions, server: net.Server, parameters: (readonly [string, string])[]) {
    const settings = new Map(parameters)
    this.#pid = Number(settings.get('atomic_upgrade.pid'))
    settings.delete('atomic_upgrade.pid')
    this.#parameters = [...settings]
    this.#options = options
    this.#server = server
    this.address = {
      host: '127.0.0.1',
      port: (server.address() as AddressInfo).port,
      password: randomBytes(24).toString('base64url'),
    }
    this.#upstream = new Upstream(options.client, {
      asynchronous: message => this.#asynchronous(message),
      copyIn: () => this.#turn?.copyIn(),
      fatal: message => this.#fatal(new Error(wire.readFields(message.body).M), message.frame),
      lost: error => this.#fatal(error),
    })
    server.on('connection', socket => this.#accept(socket))
  }

  /**
   * Closes the gate: rolls back what clients left open, clears their sessions, and gives the connection back to pg.
   * Resolves also when the connection is lost; `lost` says so.
   */
  async close(): Promise<void> {
    this.#server.close()
    const connected = [...this.#sessions.keys()]
    for (const session of connected) session.end({ code: '57P01', message: 'the gate of Atomic Upgrade has closed' })
    for (const socket of this.#sockets) socket.destroySoon()
    if (!this.lost && (this.#turn || this.#waiting.length > 0 || !this.#upstream.idle)) {
      await new Promise<void>(resolve => {
        this.#whenQuiet = resolve
      })
    }
    for (const socket of this.#sockets) socket.destroy()
    if (!this.lost) this.#upstream.release()
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

  resetSettings(): void {
    this.#current = undefined
  }

  congested(resume: () => void): boolean {
    if (!this.#upstream.congested) return false
    this.#upstream.drained(resume)
    return true
  }

  pauseUntilDrained(socket: Socket): void {
    this.#upstream.pause()
    const resume = () => {
      socket.off('drain', resume)
      socket.off('close', resume)
      this.#upstream.resume()
    }
    socket.once('drain', resume)
    socket.once('close', resume)
  }

  requestTurn(session: Session): void {
    this.#waiting.push(session)
    this.#next()
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
    if (this.#turn || this.lost) return
    const departed = this.#departed.shift()
    if (departed) return this.#tidyAfter(departed)
    const session = this.#waiting.shift()
    if (!session) return this.#whenQuiet?.()
    this.#turn = session
    const refusal = this.#makeRoom(session)
    if (refusal || this.#current === session) return session.begin(refusal)
    this.#switchTo(session)
  }

  #tidyAfter(session: Session): void {
    this.#turn = session
    this.#littered = true
    if (this.#current === session) this.#current = undefined
    const at = this.#open.indexOf(session)
    if (at >= 0) for (const lost of this.#open.splice(at).slice(1)) lost.lose()
    const clear = this.#sessions.size === 0 ? this.#clear() : join()
    this.#upstream.send(
      join(
        session.farewell(),
        clear,
        syncPoint(() => this.endTurn(session)),
      ),
    )
  }

  /** Sees to it that the session's transaction is the innermost one; says why it cannot be. */
  #makeRoom(session: Session): string | undefined {
    const at = this.#open.indexOf(session)
    const above = at < 0 ? [] : this.#open.slice(at + 1)
    if (session.transaction.status === 'E') {
      // Only a ROLLBACK is of use now, and it takes the inner ones along.
      for (const lost of above) lost.lose()
      this.#open = this.#open.filter(other => !above.includes(other))
      return undefined
    }
    if (at < 0 && this.#open.at(-1)?.transaction.status === 'E')
      return 'another connection of this migration is in a failed transaction, which this one would be part of'
    if (above.length === 0) return undefined
    if (!above.every(inner => inner.canStepAside))
      return 'this connection cannot be used while a newer one is inside a transaction that has written: both are part of the same transaction, and the newer one has to end first'
    for (const inner of above.reverse()) this.#upstream.send(inner.stepAside())
    this.#open = this.#open.filter(other => !above.includes(other))
    return undefined
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
    const row = ([json]: (string | null)[]) => {
      if (leaving) leaving.saved = JSON.parse(json ?? '{}')
    }
    let refused: string | undefined
    const error = (message: wire.Message) => {
      refused = wire.readFields(message.body).M
    }
    this.#upstream.send(
      join(
        statement(`SAVEPOINT ${savepoint}`, { error }),
        leaving ? statement(sessionSettings, { row, error }) : join(),
        this.#resetSettings(error),
        wanted.length > 0 ? statement(`SELECT ${wanted.join(', ')}`, { error }) : join(),
        statements(`RELEASE SAVEPOINT ${savepoint}`),
        syncPoint(status => {
          if (status === 'T') return session.begin()
          const undo = statements(`ROLLBACK TO SAVEPOINT ${savepoint}`, `RELEASE SAVEPOINT ${savepoint}`)
          this.#current = undefined
          this.#upstream.send(
            join(
              undo,
              syncPoint(() => session.begin(refused ?? 'the connection cannot be set up')),
            ),
          )
        }),
      ),
    )
  }

  /** What `DISCARD ALL` does, which PostgreSQL does not allow inside a transaction. */
  #clear(): Request {
    this.#littered = false
    return join(
      statements(
        'CLOSE ALL',
        'DEALLOCATE ALL',
        'UNLISTEN *',
        'SELECT pg_catalog.pg_advisory_unlock_all()',
        'DISCARD TEMP',
      ),
      this.#resetSettings(),
    )
  }

  #resetSettings(error?: (message: wire.Message) => void): Request {
    const sql = ['RESET SESSION AUTHORIZATION', 'RESET ALL', ...this.#options.settings]
    return join(...sql.map(text => statement(text, error ? { error } : {})))
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
      if ((code & 0xffff) > 0) socket.write(wire.negotiateProtocolVersion)
      settings = startupSettings(wire.readStartupParameters(body))
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
        const message = reader.message()
        if (!message) return
        session = authenticate(message)
        if (!session) return
      }
      read()
    }
    socket.on('data', chunk => {
      reader.push(chunk)
      try {
        read()
      } catch (error) {
        const message = `the gate cannot read this: ${error instanceof Error ? error.message : error}`
        if (session) session.end({ code: '08P01', message })
        else socket.end(wire.errorResponse('FATAL', '08P01', message))
      }
    })
    socket.on('close', () => session?.end())
  }

  #cancel(socket: Socket, body: Buffer): void {
    const pid = body.readInt32BE(4)
    const secret = body.subarray(8)
    const known = this.#turn && this.#sessions.get(this.#turn)
    if (pid === this.#pid && known?.equals(secret)) this.#options.cancel().finally(() => socket.end())
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

/** What the session has set, as JSON; `role` is not in pg_settings. */
const sessionSettings = `SELECT pg_catalog.json_object_agg(name, setting)::text FROM (
  SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session' AND context IN ('user', 'superuser')
  UNION ALL SELECT 'role', pg_catalog.current_setting('role')) AS settings`

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
