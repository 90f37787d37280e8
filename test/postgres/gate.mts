import { spawn } from 'node:child_process'
import net, { type Socket } from 'node:net'
import pg, { type Client } from 'pg'
import { onTestFinished } from 'vitest'
import { loadParser } from '../../src/plan/statements'
import { Gate } from '../../src/postgres/gate/gate'
import { Tape } from '../../src/postgres/gate/tape'
import * as wire from '../../src/postgres/gate/wire'
import { createDatabase } from '../support/action.mts'
import { query } from '../support/postgres.mts'
import { python } from '../support/project.mts'

/** A gate on a database of its own, whose upstream connection is inside a transaction. */
export interface OpenGate {
  gate: Gate
  tape: Tape
  /** The upstream client, to be used when the gate is closed. */
  upstream: Client
  /** The database, not through the gate. */
  url: string
  /** The transaction's id at its start. */
  id: string
  /** For the clients of the gate. */
  user: string
  database: string
  /** Connects a client through the gate. */
  connect(options?: pg.ClientConfig): Promise<Client>
  raw(options?: Record<string, string>): Promise<Raw>
  /** Closes the gate, checks that the transaction is still the one of the start, and ends it. */
  finish(how: 'COMMIT' | 'ROLLBACK'): Promise<void>
  /** Waits until pg_sleep runs upstream, or something else is waited for, and returns the server process's id. */
  sleeping(event?: string): Promise<number>
  /** Sends a CancelRequest with the client's key, or any other, and waits until the gate has dealt with it. */
  cancel(client: Raw, secret?: Buffer): Promise<void>
  /** One row's first column, read past the gate. */
  read(sql: string): Promise<unknown>
  /** One row's first column, read in the transaction after the gate was closed. */
  readInside(sql: string): Promise<unknown>
}

export const settings = ["SET LOCAL lock_timeout = '7s'", "SET LOCAL statement_timeout = '50s'"]

const currentId = 'SELECT pg_catalog.pg_current_xact_id()::text AS id'

export async function openGate(
  prepare = '',
  {
    before,
    begin = 'BEGIN ISOLATION LEVEL READ COMMITTED',
    role,
  }: { before?: string; begin?: string; role?: string } = {},
): Promise<OpenGate> {
  await loadParser()
  const url = await createDatabase()
  if (prepare) await query(url, prepare)
  const address = new URL(url)
  // Its password is its name.
  if (role) Object.assign(address, { username: role, password: role })
  const upstream = new pg.Client({ connectionString: address.href })
  upstream.on('error', () => {})
  await upstream.connect()
  onTestFinished(() => upstream.end().catch(() => {}))
  if (before) await upstream.query(before)
  await upstream.query(begin)
  for (const sql of settings) await upstream.query(sql)
  const { id } = (await upstream.query(currentId)).rows[0]
  const pid = (await upstream.query('SELECT pg_backend_pid() AS pid')).rows[0].pid
  const tape = new Tape('alembic_version')
  const cancel = async () => {
    await query(url, `SELECT pg_cancel_backend(${pid})`)
  }
  const gate = await Gate.open({ client: upstream, tape, settings, cancel })
  onTestFinished(() => gate.close())
  const { user = '', database = '' } = upstream
  const entry = { host: gate.address.host, port: gate.address.port, password: gate.address.password, user, database }
  return {
    gate,
    tape,
    upstream,
    url,
    id,
    user,
    database,
    async connect(options = {}) {
      const client = new pg.Client({ ...entry, ...options })
      client.on('error', () => {})
      await client.connect()
      onTestFinished(() => client.end().catch(() => {}))
      return client
    },
    async raw(options = {}) {
      const raw = new Raw(gate.address.port)
      await raw.start({ user, database, ...options }, gate.address.password)
      return raw
    },
    async finish(how) {
      await gate.close()
      const now = (await upstream.query(currentId)).rows[0].id
      if (now !== id) throw new Error(`the transaction ${id} has become ${now}`)
      const { command } = await upstream.query(how)
      if (command !== how) throw new Error(`${how} was answered with ${command}`)
    },
    async sleeping(event = 'PgSleep') {
      const asleep = `SELECT 1 FROM pg_stat_activity WHERE pid = ${pid} AND wait_event = '${event}'`
      while ((await query(url, asleep)).rows.length === 0);
      return pid
    },
    async cancel({ key }, secret = key.subarray(4)) {
      const raw = new Raw(gate.address.port)
      raw.listen()
      raw.send(wire.int32(12 + secret.length), wire.int32(wire.startupCode.cancel), key.subarray(0, 4), secret)
      await raw.until('Z')
    },
    async read(sql) {
      return Object.values((await query(url, sql)).rows[0] ?? {})[0]
    },
    async readInside(sql) {
      return Object.values((await upstream.query(sql)).rows[0] ?? {})[0]
    },
  }
}

/** A client that says exactly what it is told to, and notes what it hears. */
export class Raw {
  readonly socket: Socket
  /** The process id and the secret of BackendKeyData. */
  key: Buffer = Buffer.alloc(0)
  readonly #reader = new wire.MessageReader()
  readonly #heard: wire.Message[] = []
  #closed = false
  #notify: (() => void) | undefined

  constructor(at: number | Socket) {
    this.socket = typeof at === 'number' ? net.connect({ host: '127.0.0.1', port: at, noDelay: true }) : at
    this.socket.on('error', () => {})
    this.socket.on('close', () => {
      this.#closed = true
      this.#notify?.()
    })
    onTestFinished(() => void this.socket.destroy())
  }

  /** Speaks on the connection of a client that is not used for anything else. */
  static adopt(client: Client): Raw {
    const { stream } = (client as unknown as { connection: { stream: Socket } }).connection
    stream.removeAllListeners('data')
    const raw = new Raw(stream)
    raw.listen()
    return raw
  }

  /** The bytes come as they are until the startup is done. */
  byte(): Promise<string> {
    return new Promise(resolve => {
      this.socket.once('data', chunk => resolve(chunk.toString('latin1')))
    })
  }

  async start(parameters: Record<string, string>, password: string, version = 3 << 16): Promise<string[]> {
    this.listen()
    this.send(startup(parameters, version))
    const greeting = await this.until('R')
    this.send(wire.frame('p', wire.cstring(password)))
    return [...greeting, ...(await this.until('Z'))]
  }

  listen(): void {
    this.socket.on('data', chunk => this.hear(chunk))
  }

  hear(chunk: Buffer): void {
    this.#reader.push(chunk)
    for (let message = this.#reader.message(); message; message = this.#reader.message()) {
      if (message.type === 'K') this.key = message.body
      this.#heard.push(message)
    }
    this.#notify?.()
  }

  send(...frames: Buffer[]): void {
    this.socket.write(Buffer.concat(frames))
  }

  /** What was heard up to a message of that type (or the end of the connection), in short words. */
  async until(...types: string[]): Promise<string[]> {
    for (;;) {
      const at = this.#heard.findIndex(({ type }) => types.includes(type))
      if (at >= 0) return this.#heard.splice(0, at + 1).map(inWords)
      if (this.#closed) return [...this.#heard.splice(0).map(inWords), 'closed']
      await new Promise<void>(resolve => {
        this.#notify = resolve
      })
    }
  }

  /** Sends and returns what is heard up to ReadyForQuery. */
  ask(...frames: Buffer[]): Promise<string[]> {
    this.send(...frames)
    return this.until('Z')
  }

  query(sql: string | Buffer): Promise<string[]> {
    return this.ask(q(sql))
  }
}

export const q = (sql: string | Buffer) => wire.frame('Q', wire.cstring(sql))

export function startup(parameters: Record<string, string>, version = 3 << 16): Buffer {
  const words = Object.entries(parameters).flatMap(([name, value]) => [wire.cstring(name), wire.cstring(value)])
  const body = Buffer.concat([wire.int32(version), ...words, Buffer.from([0])])
  return Buffer.concat([wire.int32(body.length + 4), body])
}

/** `C INSERT 0 1`, `E 42601`, `Z T`, `D 1|x`, `S TimeZone=UTC`, or the type alone. */
function inWords({ type, body }: wire.Message): string {
  if (type === 'C') return `C ${wire.readCString(body).text}`
  if (type === 'E') return `E ${wire.readFields(body).C}`
  if (type === 'N') return `N ${wire.readFields(body).M}`
  if (type === 'Z') return `Z ${String.fromCharCode(body[0]!)}`
  if (type === 'D') return `D ${wire.readRow(body).join('|')}`
  if (type === 'S')
    return `S ${wire.readCString(body).text}=${wire.readCString(body, wire.readCString(body).next).text}`
  if (type === 'd') return `d ${body.toString().trimEnd()}`
  return type
}

/** Runs Python against the gate; `dsn` is libpq's, `address` keyword arguments. What it prints is returned. */
export function runPython({ gate, user, database }: OpenGate, script: string): Promise<string> {
  const { host, port, password } = gate.address
  const address = { host, port, user, password, database }
  const prelude = `
import json, os, sys
address = json.loads(os.environ["ADDRESS"])
dsn = " ".join(f"{'dbname' if k == 'database' else k}={v}" for k, v in address.items()) + " sslmode=disable"
`
  return new Promise((resolve, reject) => {
    const child = spawn(python, ['-c', prelude + script], {
      env: { PATH: process.env.PATH, ADDRESS: JSON.stringify(address), PYTHONWARNINGS: 'ignore' },
    })
    let out = ''
    child.stdout.on('data', chunk => {
      out += chunk
    })
    child.stderr.on('data', chunk => {
      out += chunk
    })
    child.on('error', reject)
    child.on('close', code => (code === 0 ? resolve(out.trim()) : reject(new Error(`exit ${code}:\n${out}`))))
  })
}
