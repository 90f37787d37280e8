import { randomBytes } from 'node:crypto'
import net, { type AddressInfo, type Socket } from 'node:net'
import type { Client } from 'pg'
import { Boundary, type Segmenting } from './boundary'
import { greet, type Reception } from './greeting'
import { Handover } from './handover'
import { Nesting } from './nesting'
import { Savepoints } from './savepoints'
import { Session, type Shared } from './session'
import { reported, Settings, sessionSettings, type Values } from './settings'
import type { Tape } from './tape'
import { Turns } from './turns'
import { Upstream } from './upstream'
import * as wire from './wire'

export interface GateOptions {
  /** Connected, inside the transaction that everything shall be part of, and idle until `close()`. */
  client: Client
  tape: Tape
  /** The `SET LOCAL` statements of this step: they are said again whenever a script's settings are cleared. */
  settings: string[]
  /** Cancels the statement that runs upstream. */
  cancel: () => Promise<void>
  /** Where the batch may be several transactions: who ends and begins them. */
  segmenting?: Segmenting | undefined
}

/** How many may be connected that have not said the password. */
const strangersAllowed = 50

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
  readonly #upstream: Upstream
  readonly #turns: Turns
  readonly #boundary: Boundary
  readonly #shared: Shared
  readonly #server: net.Server
  /** What clients are told of the server as they connect. */
  readonly #parameters: [string, string][]
  readonly #pid: number
  readonly #sockets = new Set<Socket>()
  /** Those that have not said the password, the oldest first. */
  readonly #strangers = new Set<Socket>()
  #counter = 0
  #closed: Promise<void> | undefined

  /** Opens the gate on a free port of 127.0.0.1. Throws what PostgreSQL answers when the connection is not usable. */
  static async open(options: GateOptions): Promise<Gate> {
    const { rows } = await options.client.query<{ name: string; setting: string }>(
      `SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY ($1)
       UNION ALL SELECT 'session_authorization', session_user::text
       UNION ALL SELECT 'is_superuser', pg_catalog.current_setting('is_superuser')
       UNION ALL SELECT 'atomic_upgrade.pid', pg_catalog.pg_backend_pid()::text
       UNION ALL SELECT 'atomic_upgrade.settings', (${sessionSettings()})
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

  private constructor(
    { client, tape, settings: own, cancel, segmenting }: GateOptions,
    server: net.Server,
    known: Map<string, string>,
  ) {
    this.#pid = Number(known.get('atomic_upgrade.pid'))
    this.#parameters = [...known].filter(([name]) => !name.startsWith('atomic_upgrade.'))
    this.#server = server
    this.address = {
      host: '127.0.0.1',
      port: (server.address() as AddressInfo).port,
      password: randomBytes(24).toString('base64url'),
    }
    const upstream = new Upstream(client, {
      asynchronous: message => this.#asynchronous(message),
      lost: (error, frame) => this.#lose(error, frame),
    })
    const savepoints = new Savepoints(upstream)
    const settings = new Settings(own, JSON.parse(known.get('atomic_upgrade.settings') ?? '{}'))
    const nesting = new Nesting(upstream)
    const handover = new Handover(upstream, savepoints, settings, nesting)
    this.#boundary = new Boundary(upstream, handover, nesting, settings, segmenting)
    this.#turns = new Turns(upstream, nesting, handover, this.#boundary, cancel)
    this.#upstream = upstream
    this.#shared = {
      upstream,
      tape,
      turns: this.#turns,
      nesting,
      savepoints,
      settings,
      canCheckConstraints: known.has('atomic_upgrade.plpgsql'),
    }
    server.on('connection', socket => this.#accept(socket))
    // An accept that fails is the client's loss.
    server.on('error', () => {})
  }

  /** Why the upstream connection was lost, if it was. */
  get lost(): Error | undefined {
    return this.#upstream.lost
  }

  /** Why one transaction could not be ended or the next one not begun, if so. */
  get failure(): unknown {
    return this.#boundary.failure
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
    for (const session of [...this.#turns.sessions])
      session.end({ code: '57P01', message: 'the gate of Atomic Upgrade has closed' })
    for (const socket of this.#sockets) socket.destroySoon()
    await this.#turns.quiet()
    for (const socket of this.#sockets) socket.destroy()
    if (!this.lost) this.#upstream.release()
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket)
    this.#strangers.add(socket)
    socket.on('close', () => {
      this.#sockets.delete(socket)
      this.#strangers.delete(socket)
    })
    socket.on('error', () => socket.destroy())
    // Any process of this machine may connect and say nothing; it cannot use up our file descriptors.
    if (this.#strangers.size > strangersAllowed) for (const oldest of [...this.#strangers].slice(0, 1)) oldest.destroy()
    greet(socket, this.#reception)
  }

  get #reception(): Reception {
    const gate = this
    return {
      password: this.address.password,
      get refusal() {
        if (gate.lost) return `the connection to PostgreSQL was lost: ${gate.lost.message}`
        return gate.#closed && 'the gate has closed'
      },
      welcome: (socket, reader, settings) => this.#welcome(socket, reader, settings),
      cancel: (pid, secret, done) => {
        if (pid === this.#pid && this.#turns.holder?.secret.equals(secret)) this.#turns.cancel(done)
        else done()
      },
    }
  }

  #welcome(socket: Socket, reader: wire.MessageReader, settings: Values): Session {
    const session = new Session(socket, reader, ++this.#counter, settings, this.#shared)
    this.#turns.sessions.add(session)
    this.#strangers.delete(socket)
    socket.write(
      Buffer.concat([
        wire.authenticationOk,
        ...this.#parameters.map(([name, value]) => wire.parameterStatus(name, value)),
        wire.backendKeyData(this.#pid, session.secret),
        wire.readyForQuery('I'),
      ]),
    )
    return session
  }

  #asynchronous(message: wire.Message): void {
    const { tape } = this.#shared
    if (message.type === 'N') {
      const { V: severity = '', M: text = '' } = wire.readFields(message.body)
      tape.notice(severity, text)
    }
    this.#turns.holder?.write(message.frame)
  }

  #lose(error: Error, frame?: Buffer): void {
    const words = `the connection to PostgreSQL was lost: ${error.message}`
    const lastWord = frame ?? wire.errorResponse('FATAL', '08006', words)
    for (const session of this.#turns.sessions) session.write(lastWord)
    for (const socket of this.#sockets) socket.destroySoon()
    this.#turns.lose()
  }
}
