import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import pg from 'pg'
import { loadParser } from '../../src/plan/statements'
import { Gate } from '../../src/postgres/gate/gate'
import { Tape } from '../../src/postgres/gate/tape'
import { python } from '../support/project.mts'
import { root } from '../support/runner.mts'
import { type Program, type Reason, reasonsToRefuse } from './programs.mts'

const tables = `CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (LIKE a INCLUDING ALL); CREATE TABLE d (LIKE a INCLUDING ALL);
  CREATE FUNCTION writes(k int) RETURNS int LANGUAGE sql AS $$ INSERT INTO b VALUES (k, 0) RETURNING id $$`
const fresh = `TRUNCATE a, b, d;
  INSERT INTO a SELECT i, 0 FROM generate_series(1, 6) i; INSERT INTO b SELECT * FROM a; INSERT INTO d SELECT * FROM a`
const contents = `SELECT json_build_object('a', (SELECT json_agg(a ORDER BY id) FROM a), 'b', (SELECT json_agg(b ORDER BY id) FROM b),
  'd', (SELECT json_agg(d ORDER BY id) FROM d)) AS all`

/** The driver's modules that make and number connections, and what plays programs in the place of its main one. */
const modules = ['failures', 'channel', 'asked', 'connections']
const bootstrap = `import json, os, sys, types
size, sources = int(os.read(0, 10)), b""
while len(sources) < size:
    sources += os.read(0, size - len(sources))
sys.modules["atomic_upgrade"] = types.ModuleType("atomic_upgrade")
for name, source in json.loads(sources).items():
    module = sys.modules["atomic_upgrade." + name] = types.ModuleType("atomic_upgrade." + name)
    exec(compile(source, name + ".py", "exec"), module.__dict__)
module.main()`

interface Told {
  played?: unknown[][]
  own?: number
  speaker?: { connection: number; thread: string; task: string | null; place: null }
}

/** A Python that plays programs, one after another. */
class Player {
  readonly #child = spawn(python, ['-c', bootstrap], { stdio: ['pipe', 'pipe', 'inherit'] })
  readonly #nonce = randomBytes(12).toString('hex')
  #hear: (told: Told) => void = () => {}
  #fail: (error: Error) => void = () => {}

  constructor(gate: boolean) {
    const source = (name: string) => readFileSync(join(root, 'src/alembic/atomic_upgrade', `${name}.py`), 'utf8')
    const player = readFileSync(join(import.meta.dirname, 'play.py'), 'utf8')
    const sources = JSON.stringify({ ...Object.fromEntries(modules.map(name => [name, source(name)])), main: player })
    const bytes = Buffer.from(sources)
    this.#child.stdin.write(Buffer.concat([Buffer.from(String(bytes.length).padStart(10, '0')), bytes]))
    this.#send({ nonce: this.#nonce, gate })
    createInterface({ input: this.#child.stdout }).on('line', line => {
      if (line.startsWith(this.#nonce)) this.#hear(JSON.parse(line.slice(this.#nonce.length)))
    })
    this.#child.on('exit', code => this.#fail(new Error(`the player has ended with ${code}`)))
  }

  #send(message: object): void {
    this.#child.stdin.write(`${JSON.stringify(message)}\n`)
  }

  play(program: Program, where: object, gate?: Gate): Promise<unknown[][]> {
    return new Promise((resolve, reject) => {
      this.#fail = reject
      this.#hear = ({ played, own, speaker }) => {
        if (played) return resolve(played)
        if (own !== undefined) gate?.tellOwn(own)
        if (speaker) gate?.tell(speaker.connection, speaker)
        this.#send({})
      }
      this.#send({ ...program, ...where })
    })
  }

  end(): void {
    this.#child.stdin.end()
    this.#child.kill('SIGKILL')
  }
}

/** What became of a program. */
export type Verdict =
  | { kind: 'same' }
  /** The raw run met a lock that it would have waited for, perhaps for ever. */
  | { kind: 'waits' }
  | { kind: 'refused'; reason: Reason; words: string }
  | { kind: 'wrong'; told: string }

/** Plays programs twice: on a server itself, and through a gate whose transaction is then committed. */
export class Stage {
  private constructor(
    private readonly urls: { raw: string; gate: string },
    private readonly raw: pg.Client,
    private readonly upstream: pg.Client,
    private readonly players = { raw: new Player(false), gate: new Player(true) },
  ) {}

  /** `raw` and `gate`: the URLs of two empty databases. */
  static async open(urls: { raw: string; gate: string }): Promise<Stage> {
    await loadParser()
    const raw = new pg.Client({ connectionString: urls.raw })
    const upstream = new pg.Client({ connectionString: urls.gate })
    for (const client of [raw, upstream]) {
      client.on('error', () => {})
      await client.connect()
      await client.query(tables)
    }
    await raw.query(`ALTER DATABASE ${raw.database} SET lock_timeout = '1s'`)
    return new Stage(urls, raw, upstream)
  }

  async play(program: Program): Promise<Verdict> {
    await this.raw.query(fresh)
    await this.upstream.query(fresh)
    const expected = await this.players.raw.play(program, { url: this.urls.raw })
    const { all: wanted } = (await this.raw.query(contents)).rows[0]
    const waits = JSON.stringify(expected).includes('error 55P03')
    const { outcomes, failure } = await this.#throughGate(program, patienceFor(program))
    const { all: found } = (await this.upstream.query(contents)).rows[0]
    if (failure) return waits ? { kind: 'waits' } : judge(program, expected, String(failure))
    if (waits) return { kind: 'waits' }
    const [a, b] = [
      { outcomes: expected, rows: wanted },
      { outcomes, rows: found },
    ].map(each => JSON.stringify(each))
    return a === b ? { kind: 'same' } : { kind: 'wrong', told: `a server itself: ${a}\nthrough the gate: ${b}` }
  }

  async #throughGate(program: Program, patience: number) {
    const { upstream } = this
    await upstream.query('BEGIN')
    await upstream.query('SELECT pg_current_xact_id()')
    const { pid } = (await upstream.query('SELECT pg_backend_pid() AS pid')).rows[0]
    const cancel = async () => void (await this.raw.query(`SELECT pg_cancel_backend(${pid})`))
    const gate = await Gate.open({
      client: upstream,
      tape: new Tape('alembic_version'),
      settings: [],
      cancel,
      patience,
    })
    const { user, database } = upstream
    const address = { ...gate.address, user, database }
    const outcomes = await this.players.gate.play(program, { url: this.urls.gate, gate: address }, gate)
    await gate.close()
    const failure = gate.failure ?? gate.lost ?? gate.doom
    if (gate.lost) await this.#reconnect()
    else await upstream.query(failure ? 'ROLLBACK' : 'COMMIT')
    return { outcomes, failure }
  }

  async #reconnect(): Promise<void> {
    const upstream = new pg.Client({ connectionString: this.urls.gate })
    upstream.on('error', () => {})
    await upstream.connect()
    Object.assign(this, { upstream })
  }

  async close(): Promise<void> {
    this.players.raw.end()
    this.players.gate.end()
    await Promise.all([this.raw.end(), this.upstream.end()])
  }
}

const patienceFor = ({ lanes }: Program): number => (lanes.length > 1 ? 10_000 : 0)

const told: [RegExp, Reason][] = [
  [/was rolled back after/, 'rolled back behind another'],
  [/has changed and not committed/, 'read what is not committed'],
  [/by its snapshot/, 'read what is newer than its snapshot'],
  [/asks for an advisory lock/, 'asked for a lock of another'],
  [/passes rows by/, 'passed by what another has locked'],
]

/** A refusal is right where the program gives a reason for it. */
function judge({ lanes, before, after }: Program, expected: unknown[][], words: string): Verdict {
  const end = [0, 1, 2].map(c => ({ c, do: 'close' }))
  const reasons = reasonsToRefuse([...before, ...lanes.flat(), ...after, ...end], expected.flat())
  const reason = told.find(([pattern]) => pattern.test(words))?.[1]
  const isRight = lanes.length === 1 && reason !== undefined && reasons.has(reason)
  return isRight
    ? { kind: 'refused', reason, words }
    : { kind: 'wrong', told: `refused without a reason: ${words}\na server itself: ${JSON.stringify(expected)}` }
}
