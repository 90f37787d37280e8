import { randomBytes } from 'node:crypto'
import net, { type AddressInfo, type Socket } from 'node:net'
import type { Client } from 'pg'
import { Failure } from '../../failure'
import { AdvisoryLocks } from './advisory'
import { Boundary, type Segmenting } from './boundary'
import { greet, type Reception } from './greeting'
import { Handover } from './handover'
import { Isolation } from './isolation'
import { Layers } from './layers'
import { Savepoints } from './savepoints'
import { Session, type Shared } from './session'
import { reported, Settings, sessionSettings, type Values } from './settings'
import { type Speaker, Speakers } from './speakers'
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
  /** How long a thread waits for another one that has written and sends nothing, in milliseconds; 0 is no limit. */
  patience?: number
  /** Told when the connection to PostgreSQL is lost, or given up. */
  onLost?: () => void
  /** Told when a client sees the catalog as another has changed it and not committed. */
  onCatalogRead?: (words: string) => void
}

/** How many may be connected that have not said the password. */
const strangersAllowed = 50

/** Without the counters, nothing tells what a connection reads of another's; a superuser may set them on. */
const counting = 'SET LOCAL track_counts = on'

const mayCount = (known: Map<string, string>): boolean =>
  known.get('atomic_upgrade.counts') === 'off' && known.get('is_superuser') === 'on'

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
  readonly #sessions = new Set<Session>()
  readonly #onLost: () => void
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
       UNION ALL SELECT 'atomic_upgrade.level', pg_catalog.current_setting('default_transaction_isolation')
       UNION ALL SELECT 'atomic_upgrade.counts', pg_catalog.current_setting('track_counts')
       UNION ALL SELECT 'atomic_upgrade.plpgsql', 'usable' FROM pg_catalog.pg_language
         WHERE lanname = 'plpgsql' AND pg_catalog.has_language_privilege(oid, 'USAGE')`,
      [reported],
    )
    const known = new Map(rows.map(row => [row.name, row.setting]))
    const ours = [...options.settings, ...(mayCount(known) ? [counting] : [])]
    if (ours.includes(counting)) await options.client.query(counting)
    const server = net.createServer({ noDelay: true })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    try {
      return new Gate({ ...options, settings: ours }, server, known)
    } catch (error) {
      server.close()
      throw error
    }
  }

  private constructor(
    {
      client,
      tape,
      settings: own,
      cancel,
      segmenting,
      patience = 0,
      onCatalogRead = () => {},
      onLost = () => {},
    }: GateOptions,
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
    const layers = new Layers()
    const isolation = new Isolation(layers)
    const speakers = new Speakers()
    const advisory = new AdvisoryLocks()
    const handover = new Handover(upstream, savepoints, settings, layers, isolation, advisory)
    const boundary = new Boundary(upstream, handover, layers, this.#sessions, settings, segmenting)
    const shared = { upstream, tape, layers, isolation, advisory, savepoints, speakers, sessions: this.#sessions }
    this.#turns = new Turns({
      ...shared,
      handover,
      boundary,
      sessions: this.#sessions,
      patience,
      cancelStatement: cancel,
    })
    this.#boundary = boundary
    this.#onLost = onLost
    this.#upstream = upstream
    this.#shared = {
      ...shared,
      turns: this.#turns,
      settings,
      onCatalogRead,
      usualLevel: known.get('atomic_upgrade.level') ?? '',
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

  /** Why the batch cannot go on, if so: what several connections do, or a transaction that could not be ended or begun. */
  get failure(): unknown {
    return this.#boundary.failure ?? (this.lost instanceof Failure ? this.lost : undefined)
  }

  /** Why nothing of the batch may be committed, though no statement met it: where Python fails by itself, that is the cause. */
  get doom(): unknown {
    return this.#upstream.doom
  }

  /** The driver tells who uses the connection of that number from now on. */
  tell(number: number, speaker: Speaker): void {
    this.#shared.speakers.tell(number, speaker)
  }

  /** The driver tells which connection is the one that Alembic runs the scripts on. */
  tellOwn(number: number): void {
    this.#shared.speakers.tellOwn(number)
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
    for (const session of [...this.#sessions])
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

  get #holder(): Session | undefined {
    return [...this.#sessions].find(session => session === this.#turns.holder)
  }

  get #reception(): Reception {
    const gate = this
    return {
      password: this.address.password,
      get refusal() {
        if (gate.lost) return `the connection to PostgreSQL was lost: ${gate.lost.message}`
        return gate.#closed && 'the gate has closed'
      },
      welcome: (socket, reader, settings, number) => this.#welcome(socket, reader, settings, number),
      cancel: (pid, secret, done) => {
        if (pid === this.#pid && this.#holder?.secret.equals(secret)) this.#turns.cancel(done)
        else done()
      },
    }
  }

  #welcome(socket: Socket, reader: wire.MessageReader, settings: Values, number: number | undefined): Session {
    const session = new Session(socket, reader, ++this.#counter, settings, number, this.#shared)
    this.#sessions.add(session)
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
    this.#holder?.write(message.frame)
  }

  #lose(error: Error, frame?: Buffer): void {
    const words = error instanceof Failure ? error.message : `the connection to PostgreSQL was lost: ${error.message}`
    const lastWord = frame ?? wire.errorResponse('FATAL', '08006', words)
    for (const session of this.#sessions) session.lastWord(lastWord)
    for (const socket of this.#sockets) socket.destroySoon()
    this.#turns.lose()
    this.#onLost()
  }
}
