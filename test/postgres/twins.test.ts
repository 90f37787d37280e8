import pg from 'pg'
import { describe, expect, test } from 'vitest'
import * as wire from '../../src/postgres/gate/wire'
import { createDatabase } from '../support/action.mts'
import { query } from '../support/postgres.mts'
import { openGate, q, Raw } from './gate.mts'

/** Random conversations, each held with the gate and with a server itself: both must answer alike and end up alike. */

const tables = `CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (0, 'zero');
  CREATE TABLE parent (id int PRIMARY KEY);
  CREATE TABLE child (id serial, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
  CREATE TABLE uni (id int UNIQUE DEFERRABLE INITIALLY IMMEDIATE)`
const contents = `SELECT (SELECT string_agg(id::text, ',' ORDER BY id) FROM t) || ' '
  || (SELECT coalesce(string_agg(parent::text, ',' ORDER BY parent), '') FROM child) || ' ' || (SELECT count(*) FROM uni) AS all`

class Dice {
  constructor(private seed: number) {
    for (let i = 0; i < 5; i++) this.roll()
  }

  /** A number from 0 to below 1. */
  roll(): number {
    this.seed = (this.seed * 1_664_525 + 1_013_904_223) >>> 0
    return this.seed / 2 ** 32
  }

  below(limit: number): number {
    return Math.floor(this.roll() * limit)
  }

  pick<T>(choices: T[]): T {
    return choices[this.below(choices.length)]!
  }

  #count = 0

  sql(): string {
    const n = ++this.#count
    return this.pick([
      ...['BEGIN', 'BEGIN', 'START TRANSACTION', 'COMMIT', 'COMMIT', 'ROLLBACK', 'END', 'ABORT'],
      ...['COMMIT AND CHAIN', 'ROLLBACK AND CHAIN', 'SAVEPOINT a', 'SAVEPOINT b', 'SAVEPOINT "A"'],
      ...['RELEASE a', 'RELEASE b', 'ROLLBACK TO a', 'ROLLBACK TO b', 'ROLLBACK TO SAVEPOINT "A"'],
      ...[`INSERT INTO t VALUES (${n})`, `INSERT INTO t VALUES (${n}) RETURNING id`, 'INSERT INTO t VALUES (0)'],
      ...['SELECT nothing', 'SELECT 1/count(*) FROM t WHERE false', 'no syntax', 'SELECT count(*), max(id) FROM t', ''],
      ...['SHOW work_mem', 'SHOW search_path', `SET work_mem = '${n + 64}kB'`, `SET LOCAL work_mem = '${n + 64}kB'`],
      ...['RESET work_mem', 'SET work_mem TO DEFAULT', 'RESET ALL', `SET LOCAL search_path = x${n}, public`],
      ...[`SELECT set_config('work_mem', '${n + 64}kB', true)`, `SET app.x = '${n}'`],
      `INSERT INTO child (parent) VALUES (${n})`,
      `INSERT INTO parent VALUES (${n}); INSERT INTO child (parent) VALUES (${n})`,
      `INSERT INTO child (parent) VALUES (${n}); INSERT INTO parent VALUES (${n})`,
      ...['SET CONSTRAINTS ALL DEFERRED', 'SET CONSTRAINTS ALL IMMEDIATE', 'INSERT INTO uni VALUES (1)'],
      ...['BEGIN; DECLARE c CURSOR FOR SELECT id FROM t WHERE id = 0', 'FETCH c', 'CLOSE c'],
      ...['DECLARE h CURSOR WITH HOLD FOR SELECT 7', 'FETCH ALL FROM h', 'CLOSE h'],
      ...['PREPARE p AS SELECT 5', 'EXECUTE p', 'DEALLOCATE p', 'DEALLOCATE ALL', 'COPY (SELECT 1) TO STDOUT'],
      ...['CREATE TEMP TABLE tt (id int)', 'SELECT * FROM tt', 'DROP TABLE tt', 'DISCARD TEMP'],
      ...['CREATE TEMP TABLE td (id int) ON COMMIT DROP', 'SELECT * FROM td'],
      ...['DO $$ BEGIN END $$', 'EXPLAIN (COSTS OFF) SELECT 1', 'SET TRANSACTION READ ONLY'],
    ])
  }

  /** The first of its statements: only one may be in a Parse. */
  single(): string {
    return this.sql().split(';')[0] || 'SELECT 1'
  }

  /**
   * One to prepare under a name. Not FETCH: a PostgreSQL server (18.4) crashes when a prepared FETCH is described whose
   * cursor is gone, with the gate or without.
   */
  preparable(): string {
    const sql = this.single()
    return sql.startsWith('FETCH') ? 'SHOW search_path' : sql
  }
}

interface Step {
  text: string
  send: Buffer[]
  /** What is sent when the server asks for COPY data. */
  data?: Buffer[]
}

const execution = (name: string) => [wire.bind('', name), wire.execute('')]

function step(dice: Dice): Step {
  const kind = dice.roll()
  const name = dice.pick(['s1', 's2'])
  if (kind < 0.65) {
    const sql = Array.from({ length: kind < 0.5 ? 1 : 3 }, () => dice.sql()).join('; ')
    return { text: `query ${sql}`, send: [q(sql)] }
  }
  if (kind < 0.75) return { text: `run ${name}`, send: [wire.describeStatement(name), ...execution(name), wire.sync] }
  if (kind < 0.85) {
    const sql = dice.preparable()
    return { text: `parse ${name}: ${sql}`, send: [wire.parse(name, sql), wire.sync] }
  }
  if (kind < 0.88) return { text: `close ${name}`, send: [wire.closeStatement(name), wire.sync] }
  if (kind < 0.9) {
    const line = dice.pick(['wrong\n', `${1000 + dice.below(1_000_000)}\n`])
    const data = [wire.frame('d', Buffer.from(line)), wire.frame('c')]
    return { text: `copy ${line.trim()}`, send: [q('COPY t (id) FROM STDIN')], data }
  }
  const pipeline = Array.from({ length: 1 + dice.below(4) }, () => dice.single())
  const send = pipeline.flatMap(sql => [wire.parse('', sql), ...execution('')])
  return { text: `pipeline ${pipeline.join(' | ')}`, send: [...send, wire.sync] }
}

/**
 * Each step's answer, reduced to what a client acts on: rows, tags, the first error, the status. In a failed
 * transaction every error is the same, and of a Parse it depends on the order of the checks; the answers to Bind and Describe are not compared.
 */
async function converse(client: Raw, steps: Step[]): Promise<string[]> {
  const answers: string[] = []
  let failed = false
  for (const { text, send, data } of steps) {
    client.send(...send)
    let heard = await client.until('G', 'Z')
    if (heard.at(-1) === 'G') heard = data ? await client.ask(...data) : heard
    const error = heard.find(word => word.startsWith('E '))
    const told = heard.filter(word => !/^[NS] |^[123nt]$/.test(word))
    const words = error ? [failed || text.startsWith('parse') ? 'E' : error, told.at(-1)] : told
    answers.push(`${text} → ${words.join(', ')}`)
    failed = told.at(-1) === 'Z E'
  }
  return answers
}

describe('the gate answers like a server', () => {
  for (let seed = 1; seed <= Number(process.env.CONV ?? 25); seed++) {
    test(`conversation ${seed}`, async () => {
      const dice = new Dice(seed)
      const steps = Array.from({ length: 25 }, () => step(dice))
      const open = await openGate(tables)
      const direct = await createDatabase()
      await query(direct, tables)
      const options = '-c work_mem=999kB -c lock_timeout=7s -c statement_timeout=50s'
      const client = new pg.Client({ connectionString: direct, options })
      client.on('error', () => {})
      await client.connect()
      const server = Raw.adopt(client)
      const expected = await converse(server, steps)
      server.socket.destroy()
      expect(await converse(await open.raw({ options: '-c work_mem=999kB' }), steps)).toEqual(expected)
      await open.finish('COMMIT')
      expect(await open.read(contents)).toEqual((await query(direct, contents)).rows[0].all)
    })
  }
})

describe('whatever several clients do, the transaction stays and the gate closes', () => {
  const garbage = [
    wire.frame('?'),
    wire.frame('B', Buffer.from([0, 0, 0])),
    wire.frame('E', wire.cstring('none'), wire.int32(0)),
    wire.frame('D', Buffer.from('Snone\0')),
    wire.frame('F', Buffer.from([0, 0])),
    wire.frame('H'),
    wire.frame('d', Buffer.from('1\n')),
    wire.frame('c'),
    wire.frame('f', wire.cstring('no')),
    Buffer.from([0x51, 0, 0, 0, 3]),
    Buffer.from('Q'),
  ]
  const more = [
    'SELECT pg_sleep(0.1)',
    'COPY t (id) FROM STDIN',
    'COPY t (id) FROM STDIN; COMMIT; BEGIN',
    `PREPARE TRANSACTION 'g'`,
    `COMMIT PREPARED 'g'`,
    `ROLLBACK PREPARED 'g'`,
    `SET statement_timeout = '50ms'`,
    'SET standard_conforming_strings = off',
    `select '\\''; commit; --'`,
    `PREPARE TRANSACTION 'a\\'; select 1 --'`,
    'SET SESSION AUTHORIZATION nobody_of_that_name',
    'DO $$ BEGIN COMMIT; END $$',
    `SELECT repeat('x', 100000) FROM generate_series(1, 30)`,
  ]
  for (let seed = 1; seed <= Number(process.env.BRAWL ?? 20); seed++) {
    test(`brawl ${seed}`, async () => {
      const dice = new Dice(seed + 1000)
      const open = await openGate(tables)
      const clients: Raw[] = []
      for (let i = 0; i < 150; i++) {
        if (clients.length < 4 && dice.roll() < 0.3) clients.push(await open.raw())
        const at = dice.below(clients.length)
        const client = clients[at]
        if (!client) continue
        const kind = dice.roll()
        if (kind < 0.05) {
          client.socket.destroy()
          clients.splice(at, 1)
        } else if (kind < 0.1) client.send(dice.pick(garbage))
        else if (kind < 0.3) client.send(q(dice.pick(more)))
        else if (kind < 0.35) client.send(wire.sync)
        else if (kind < 0.4) client.socket[dice.pick<'pause' | 'resume'>(['pause', 'resume'])]()
        else client.send(...step(dice).send)
        if (dice.roll() < 0.3) await new Promise(resolve => setTimeout(resolve, dice.below(10)))
      }
      if (seed % 2 === 0) {
        for (const client of clients) client.socket.destroy()
        const alone = async () => (await (await open.connect()).query('SELECT 1 AS one')).rows
        const rows = await alone().catch(error => {
          if (!open.gate.failure) throw error
        })
        if (!open.gate.failure) expect(rows).toEqual([{ one: 1 }])
      }
      await open.gate.close()
      // What one transaction cannot say ends the connection, and nothing else does.
      if (open.gate.lost) expect(String(open.gate.failure)).toMatch(/the one (transaction|session) of the batch/)
      else await open.finish('ROLLBACK')
      expect(await open.read(contents)).toBe('0  0')
      expect(
        await open.read(`SELECT count(*)::int AS n FROM pg_prepared_xacts WHERE database = current_database()`),
      ).toBe(0)
    })
  }
})
