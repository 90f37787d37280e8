import type { Socket } from 'node:net'
import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Savepoints } from '../../src/postgres/gate/savepoints'
import { Upstream } from '../../src/postgres/gate/upstream'
import * as wire from '../../src/postgres/gate/wire'
import { createDatabase } from '../support/action.mts'
import { query } from '../support/postgres.mts'
import { openGate, q, Raw, runPython, startup } from './gate.mts'

const table = 'CREATE TABLE t (id int PRIMARY KEY, name text)'
const tables = `${table}; CREATE TABLE u (id int UNIQUE)`
const ids = `SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') AS ids FROM t`

const prepareOf = (name: string, sql: string) => wire.parse(name, sql)
const run = (name: string) => [wire.bind('', name), wire.execute('')]

describe('the transaction', () => {
  test('what was committed through the gate is there after COMMIT', async () => {
    const open = await openGate(table)
    const client = await open.connect()
    await client.query('BEGIN')
    await client.query('INSERT INTO t VALUES (1)')
    expect((await client.query('COMMIT')).command).toBe('COMMIT')
    expect(await open.read(ids)).toBe('')
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1')
  })

  test('what was committed through the gate is gone after ROLLBACK', async () => {
    const open = await openGate()
    const client = await open.connect()
    await client.query('CREATE TABLE gone (id int); COMMIT; BEGIN; INSERT INTO gone VALUES (1); COMMIT')
    await client.query('INSERT INTO gone VALUES (2)')
    expect((await client.query('SELECT count(*)::int AS n FROM gone')).rows).toEqual([{ n: 2 }])
    await open.finish('ROLLBACK')
    expect(await open.read(`SELECT to_regclass('gone')`)).toBe(null)
  })

  test('tags and status are the ones that a client expects', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    expect(await raw.query('BEGIN')).toEqual(['C BEGIN', 'Z T'])
    expect(await raw.query('INSERT INTO t VALUES (1)')).toEqual(['C INSERT 0 1', 'Z T'])
    expect(await raw.query('COMMIT')).toEqual(['C COMMIT', 'Z I'])
    expect(await raw.query('START TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY')).toEqual([
      'C START TRANSACTION',
      'Z T',
    ])
    expect(await raw.query('INSERT INTO t VALUES (1)')).toEqual(['E 23505', 'Z E'])
    expect(await raw.query('SELECT 1')).toEqual(['E 25P02', 'Z E'])
    expect(await raw.query('BEGIN')).toEqual(['E 25P02', 'Z E'])
    expect(await raw.query('')).toEqual(['I', 'Z E'])
    expect(await raw.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    expect(await raw.query('BEGIN; SELECT 1/0')).toEqual(['C BEGIN', 'E 22012', 'Z E'])
    expect(await raw.query('END')).toEqual(['C ROLLBACK', 'Z I'])
    expect(await raw.query('BEGIN WORK; INSERT INTO t VALUES (2)')).toEqual(['C BEGIN', 'C INSERT 0 1', 'Z T'])
    expect(await raw.query('COMMIT AND CHAIN')).toEqual(['C COMMIT', 'Z T'])
    expect(await raw.query('INSERT INTO t VALUES (3)')).toEqual(['C INSERT 0 1', 'Z T'])
    expect(await raw.query('ABORT AND CHAIN')).toEqual(['C ROLLBACK', 'Z T'])
    expect(await raw.query('END')).toEqual(['C COMMIT', 'Z I'])
    expect(await raw.query('COMMIT AND CHAIN')).toEqual(['E 25P01', 'Z I'])
    expect(await raw.query('')).toEqual(['I', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,2')
  })

  test('outside of a transaction a failing message undoes itself and nothing else', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    expect(await raw.query('INSERT INTO t VALUES (1)')).toEqual(['C INSERT 0 1', 'Z I'])
    expect(await raw.query('INSERT INTO t VALUES (2); SELECT 1/0; INSERT INTO t VALUES (3)')).toEqual([
      'C INSERT 0 1',
      'E 22012',
      'Z I',
    ])
    expect(await raw.query('INSERT INTO t VALUES (4); COMMIT; INSERT INTO t VALUES (5); SELECT 1/0')).toEqual([
      'C INSERT 0 1',
      'C COMMIT',
      'C INSERT 0 1',
      'E 22012',
      'Z I',
    ])
    expect(await raw.query('INSERT INTO t VALUES (6); ROLLBACK; INSERT INTO t VALUES (7)')).toEqual([
      'C INSERT 0 1',
      'C ROLLBACK',
      'C INSERT 0 1',
      'Z I',
    ])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,4,7')
  })

  test('statements that cannot run inside a transaction fail with 25001', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    for (const sql of ['CREATE INDEX CONCURRENTLY ON t (name)', 'VACUUM t', 'CREATE DATABASE other', 'DISCARD ALL'])
      expect(await raw.query(sql)).toEqual(['E 25001', 'Z I'])
    await open.finish('COMMIT')
  })
})

describe('what the parser does not understand, or the server refuses', () => {
  test('COMMIT in a DO block or a procedure is refused with 2D000', async () => {
    const open = await openGate(`CREATE PROCEDURE ends() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'`)
    const raw = await open.raw()
    expect(await raw.query('DO $$ BEGIN COMMIT; END $$')).toEqual(['E 2D000', 'Z I'])
    expect(await raw.query('CALL ends()')).toEqual(['E 2D000', 'Z I'])
    await open.finish('COMMIT')
  })

  test('text too big or too deep for the parser goes to the server, but no transaction control', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    const deep = `INSERT INTO t SELECT 1${'+1'.repeat(30_000)}`
    const answer = await raw.query(deep)
    expect(answer.at(-1)).toBe('Z I')
    expect(await raw.query(`;--\rCOMMIT ${'('.repeat(100_000)}`)).toEqual(['E 42601', 'Z I'])
    await open.finish('ROLLBACK')
  })

  test('text that is not UTF-8 is not changed on its way', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    await raw.query(`SET client_encoding = 'LATIN1'`)
    const sql = Buffer.from(
      `INSERT INTO t VALUES (1, 'caf\u00e9'); INSERT INTO t VALUES (2, '\u00fc'); COMMIT`,
      'latin1',
    )
    expect(await raw.query(sql)).toEqual(['C INSERT 0 1', 'C INSERT 0 1', 'C COMMIT', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(`SELECT string_agg(name, ' ' ORDER BY id) AS names FROM t`)).toBe('café ü')
  })

  test('frames that are broken end their client and no other', async () => {
    const open = await openGate(table)
    const other = await open.connect()
    await other.query('INSERT INTO t VALUES (1)')
    const broken = [
      Buffer.from('Q\0\0\0\x01'),
      wire.frame('Q', Buffer.from('no terminator')),
      wire.frame('P', Buffer.from('no terminator')),
      wire.frame('?'),
      wire.frame('B', wire.cstring('')),
    ]
    for (const frame of broken) {
      const raw = await open.raw()
      expect(await raw.ask(frame), String(open.gate.lost)).toEqual(['E 08P01', 'closed'])
    }
    const raw = await open.raw()
    // The server refuses these, and the client stays.
    expect(await raw.ask(wire.parse('', 'SELECT 1'), wire.frame('B', Buffer.from([0, 0, 0, 9, 0])), wire.sync)).toEqual(
      ['1', 'E 08P01', 'Z I'],
    )
    expect((await other.query(ids)).rows).toEqual([{ ids: '1' }])
    await open.finish('COMMIT')
  })
})

describe('the extended protocol', () => {
  test('prepared BEGIN and COMMIT are executed again and again', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    const parsed = await raw.ask(
      prepareOf('begin', 'BEGIN'),
      prepareOf('commit', 'COMMIT'),
      prepareOf('rollback', 'ROLLBACK'),
      prepareOf('insert', 'INSERT INTO t SELECT count(*) FROM t'),
      wire.describeStatement('begin'),
      wire.sync,
    )
    expect(parsed).toEqual(['1', '1', '1', '1', 't', 'n', 'Z I'])
    for (let i = 0; i < 3; i++) {
      expect(await raw.ask(...run('begin'), wire.sync)).toEqual(['2', 'C BEGIN', 'Z T'])
      expect(await raw.ask(...run('insert'), wire.sync)).toEqual(['2', 'C INSERT 0 1', 'Z T'])
      expect(await raw.ask(...run('commit'), wire.sync)).toEqual(['2', 'C COMMIT', 'Z I'])
      expect(await raw.ask(...run('begin'), ...run('insert'), ...run('rollback'), wire.sync)).toEqual([
        '2',
        'C BEGIN',
        '2',
        'C INSERT 0 1',
        '2',
        'C ROLLBACK',
        'Z I',
      ])
    }
    expect(await raw.ask(wire.closeStatement('begin'), wire.sync)).toEqual(['3', 'Z I'])
    expect(await raw.ask(...run('begin'), wire.sync)).toEqual(['E 26000', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('0,1,2')
  })

  test('clients with the same statement and portal names do not meet', async () => {
    const open = await openGate(table)
    const [one, two] = [await open.raw(), await open.raw()]
    expect(await one.ask(prepareOf('s', 'SELECT 1'), wire.sync)).toEqual(['1', 'Z I'])
    expect(await two.ask(prepareOf('s', 'SELECT 2'), wire.sync)).toEqual(['1', 'Z I'])
    expect(await one.ask(prepareOf('s', 'SELECT 3'), wire.sync)).toEqual(['E 42P05', 'Z I'])
    expect(await one.query('BEGIN')).toEqual(['C BEGIN', 'Z T'])
    expect(await one.ask(wire.bind('p', 's'), wire.sync)).toEqual(['2', 'Z T'])
    expect(await two.ask(wire.bind('p', 's'), wire.execute('p'), wire.closePortal('p'), wire.sync)).toEqual([
      '2',
      'D 2',
      'C SELECT 1',
      '3',
      'Z I',
    ])
    expect(await one.ask(wire.describePortal('p'), wire.execute('p'), wire.sync)).toEqual([
      'T',
      'D 1',
      'C SELECT 1',
      'Z T',
    ])
    expect(await one.query('COMMIT')).toEqual(['C COMMIT', 'Z I'])
    expect(await one.ask(wire.execute('p'), wire.sync)).toEqual(['E 34000', 'Z I'])
    expect(await two.query('DEALLOCATE s')).toEqual(['C DEALLOCATE', 'Z I'])
    expect(await two.ask(...run('s'), wire.sync)).toEqual(['E 26000', 'Z I'])
    expect(await one.ask(...run('s'), wire.sync)).toEqual(['2', 'D 1', 'C SELECT 1', 'Z I'])
    expect(await two.query('PREPARE q AS SELECT 4; EXECUTE q')).toEqual(['C PREPARE', 'T', 'D 4', 'C SELECT 1', 'Z I'])
    expect(await two.query('DEALLOCATE ALL')).toEqual(['C DEALLOCATE ALL', 'Z I'])
    expect(await two.query('EXECUTE q')).toEqual(['E 26000', 'Z I'])
    expect(await one.ask(...run('s'), wire.sync)).toEqual(['2', 'D 1', 'C SELECT 1', 'Z I'])
    expect(await one.ask(prepareOf('all', 'DEALLOCATE ALL'), ...run('all'), wire.sync)).toEqual([
      '1',
      '2',
      'C DEALLOCATE ALL',
      'Z I',
    ])
    expect(await one.ask(...run('s'), wire.sync)).toEqual(['E 26000', 'Z I'])
    expect(await one.query('DEALLOCATE nothing')).toEqual(['E 26000', 'Z I'])
    await open.finish('COMMIT')
  })

  test('each client has an unnamed statement of its own', async () => {
    const open = await openGate(table)
    const [one, two] = [await open.raw(), await open.raw()]
    const hears = (...of: string[]) => ['2', ...of, 'Z I']
    expect(await one.ask(prepareOf('', 'SELECT 1'), wire.describeStatement(''), wire.sync)).toEqual([
      '1',
      't',
      'T',
      'Z I',
    ])
    expect(await two.ask(prepareOf('', 'INSERT INTO t VALUES (2)'), wire.sync)).toEqual(['1', 'Z I'])
    expect(await one.ask(...run(''), wire.sync)).toEqual(hears('D 1', 'C SELECT 1'))
    expect(await two.ask(...run(''), wire.sync)).toEqual(hears('C INSERT 0 1'))
    // Nor does a Query of another's do away with it, or one of ours that has failed in the meantime.
    expect(await two.query('SELECT 2')).toEqual(['T', 'D 2', 'C SELECT 1', 'Z I'])
    expect(await one.ask(prepareOf('s', 'SELECT nothing'), ...run(''), wire.sync)).toEqual(['E 42703', 'Z I'])
    expect(await two.ask(prepareOf('', 'INSERT INTO t VALUES (3)'), wire.sync)).toEqual(['1', 'Z I'])
    expect(await one.ask(...run(''), wire.sync)).toEqual(hears('D 1', 'C SELECT 1'))
    expect(await two.ask(...run(''), wire.sync)).toEqual(hears('C INSERT 0 1'))
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('2,3')
  })

  test('a Parse that failed leaves no name behind', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    expect(await raw.ask(prepareOf('s', 'SELECT nothing'), wire.sync)).toEqual(['E 42703', 'Z I'])
    expect(
      await raw.ask(prepareOf('s', 'SELECT 1/count(*) FROM t'), ...run('s'), prepareOf('skipped', 'COMMIT'), wire.sync),
    ).toEqual(['1', '2', 'E 22012', 'Z I'])
    expect(await raw.ask(prepareOf('skipped', 'SELECT 1'), ...run('skipped'), wire.sync)).toEqual([
      '1',
      '2',
      'D 1',
      'C SELECT 1',
      'Z I',
    ])
    expect(await raw.ask(prepareOf('two', 'SELECT 1; SELECT 2'), wire.sync)).toEqual(['E 42601', 'Z I'])
    await open.finish('COMMIT')
  })

  test('an error ahead of a COMMIT in a pipeline leaves a failed transaction', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    await raw.query('BEGIN; INSERT INTO t VALUES (1)')
    expect(
      await raw.ask(
        prepareOf('', 'SELECT 1/(count(*) - 1) FROM t'),
        ...run(''),
        prepareOf('', 'COMMIT'),
        ...run(''),
        prepareOf('', 'INSERT INTO t VALUES (2)'),
        ...run(''),
        wire.sync,
      ),
    ).toEqual(['1', '2', 'E 22012', 'Z E'])
    expect(await raw.query('SELECT 1')).toEqual(['E 25P02', 'Z E'])
    expect(await raw.ask(prepareOf('', 'SELECT 1'), wire.sync)).toEqual(['E 25P02', 'Z E'])
    expect(await raw.ask(prepareOf('', 'ROLLBACK'), ...run(''), wire.sync)).toEqual(['1', '2', 'C ROLLBACK', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('')
  })

  test('a Query behind an error that is not known yet is answered, and not carried out', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    await raw.query('BEGIN; INSERT INTO t VALUES (1)')
    const failing = [wire.parse('', 'SELECT 1/0'), wire.bind('', ''), wire.execute('')]
    expect(await raw.ask(...failing, q('INSERT INTO t VALUES (2)'))).toEqual(['1', 'E 22012', 'Z E'])
    expect(await raw.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('')
  })

  test('Flush brings answers without a Sync, and another client may speak in between', async () => {
    const open = await openGate(table)
    const [one, two] = [await open.raw(), await open.raw()]
    one.send(prepareOf('s', 'INSERT INTO t VALUES (1) RETURNING id'), wire.describeStatement('s'), flush)
    expect(await one.until('T')).toEqual(['1', 't', 'T'])
    expect(await two.query('SELECT 1')).toEqual(['T', 'D 1', 'C SELECT 1', 'Z I'])
    expect(await two.query('INSERT INTO t VALUES (2)')).toEqual(['C INSERT 0 1', 'Z I'])
    one.send(...run('s'), flush)
    expect(await one.until('C')).toEqual(['2', 'D 1', 'C INSERT 0 1'])
    expect(await two.query('INSERT INTO t VALUES (4)')).toEqual(['C INSERT 0 1', 'Z I'])
    expect(await one.ask(wire.sync)).toEqual(['Z I'])
    expect(await two.query(ids)).toEqual(['T', 'D 1,2,4', 'C SELECT 1', 'Z I'])
    // Likewise behind an error, where the rest up to the Sync is skipped.
    one.send(prepareOf('', 'SELECT nothing'), flush)
    expect(await one.until('E')).toEqual(['E 42703'])
    expect(await two.query('SELECT 1')).toEqual(['T', 'D 1', 'C SELECT 1', 'Z I'])
    expect(await one.ask(prepareOf('', 'INSERT INTO t VALUES (3)'), ...run(''), wire.sync)).toEqual(['Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,2,4')
  })

  test('a portal is read in pieces', async () => {
    const open = await openGate()
    const raw = await open.raw()
    const two = wire.frame('E', wire.cstring('p'), wire.int32(2))
    await raw.query('BEGIN')
    expect(
      await raw.ask(prepareOf('', 'SELECT * FROM generate_series(1, 3) AS n'), wire.bind('p', ''), two, wire.sync),
    ).toEqual(['1', '2', 'D 1', 'D 2', 's', 'Z T'])
    expect(await raw.ask(two, wire.sync)).toEqual(['D 3', 'C SELECT 1', 'Z T'])
    await raw.query('COMMIT')
    await open.finish('COMMIT')
  })

  test('function calls work, and fail, as units of their own', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    const call = (oid: number, argument: string) =>
      wire.frame(
        'F',
        wire.int32(oid),
        wire.int16(0),
        wire.int16(1),
        wire.int32(argument.length),
        Buffer.from(argument),
        wire.int16(0),
      )
    // int4 abs, and a function that is not there
    expect(await raw.ask(call(1397, '-7'))).toEqual(['V', 'Z I'])
    expect(await raw.ask(call(1, '-7'))).toEqual(['E 42883', 'Z I'])
    await raw.query('BEGIN')
    expect(await raw.ask(call(1, '-7'))).toEqual(['E 42883', 'Z E'])
    expect(await raw.ask(call(1397, '-7'))).toEqual(['E 25P02', 'Z E'])
    expect(await raw.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    raw.send(prepareOf('', 'SELECT nothing'), call(1397, '-7'))
    expect(await raw.until('Z')).toEqual(['E 42703', 'E 25P02', 'Z I'])
    expect(await raw.query('SELECT 1')).toEqual(['T', 'D 1', 'C SELECT 1', 'Z I'])
    await open.finish('COMMIT')
  })

  test('big values both ways, and many small ones that the client reads late', async () => {
    const open = await openGate(table)
    const client = await open.connect()
    const big = 'x'.repeat(20_000_000)
    await client.query('INSERT INTO t VALUES (1, $1)', [big])
    await client.query(`INSERT INTO t VALUES (2, '${big}')`)
    const { rows } = await client.query('SELECT name FROM t')
    expect(rows.every(({ name }) => name === big)).toBe(true)
    // The tape keeps the beginnings only.
    expect(JSON.stringify(open.tape.entries).length).toBeLessThan(1_000_000)
    const raw = await open.raw()
    raw.socket.pause()
    raw.send(q(`SELECT repeat('y', 1000) FROM generate_series(1, 20000)`))
    await open.connect()
    raw.socket.resume()
    expect((await raw.until('Z')).length).toBe(20_003)
    await open.finish('COMMIT')
    expect(await open.read('SELECT sum(length(name))::int AS n FROM t')).toBe(40_000_000)
  })
})

const { flush } = wire
const copyData = (text: string) => wire.frame('d', Buffer.from(text))
const copyDone = wire.frame('c')
const copyFail = wire.frame('f', wire.cstring('no more'))

describe('COPY', () => {
  test('in and out by the simple protocol, among other statements', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    raw.send(q('INSERT INTO t VALUES (1); COPY t FROM STDIN; INSERT INTO t VALUES (4); COPY t (id) FROM STDIN; COMMIT'))
    expect(await raw.until('G')).toEqual(['C INSERT 0 1', 'G'])
    raw.send(copyData('2\ttwo\n'), copyData('3\tthree\n'), copyDone)
    expect(await raw.until('G')).toEqual(['C COPY 2', 'C INSERT 0 1', 'G'])
    raw.send(copyData('5\n'), copyDone)
    expect(await raw.until('Z')).toEqual(['C COPY 1', 'C COMMIT', 'Z I'])
    expect(await raw.query('COPY (SELECT id FROM t ORDER BY id) TO STDOUT')).toEqual([
      'H',
      'd 1',
      'd 2',
      'd 3',
      'd 4',
      'd 5',
      'c',
      'C COPY 5',
      'Z I',
    ])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,2,3,4,5')
  })

  test('that fails in the middle, or is given up', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    await raw.query('BEGIN; SAVEPOINT s')
    raw.send(q('COPY t FROM STDIN; INSERT INTO t VALUES (9)'))
    expect(await raw.until('G')).toEqual(['G'])
    raw.send(copyData('wrong\n'))
    expect(await raw.until('Z')).toEqual(['E 22P02', 'Z E'])
    raw.send(copyData('more\n'), copyDone)
    expect(await raw.query('ROLLBACK TO s')).toEqual(['C ROLLBACK', 'Z T'])
    raw.send(q('COPY t FROM STDIN'))
    await raw.until('G')
    raw.send(copyData('1\tone\n'), copyFail)
    expect(await raw.until('Z')).toEqual(['E 57014', 'Z E'])
    expect(await raw.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    expect(await raw.query('COPY t FROM nothing; SELECT 1')).toEqual(['E 42601', 'Z I'])
    expect(await raw.query('COPY nothing FROM STDIN; SELECT 1')).toEqual(['E 42P01', 'Z I'])
    expect(await raw.query('INSERT INTO t VALUES (2)')).toEqual(['C INSERT 0 1', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('2')
  })

  for (const early of [true, false]) {
    test(`by the extended protocol, with ${early ? 'a Sync ahead of the data' : 'the Sync behind it'}`, async () => {
      const open = await openGate(table)
      const raw = await open.raw()
      const copy = [prepareOf('', 'COPY t FROM STDIN'), ...run(''), early ? wire.sync : flush]
      raw.send(...copy)
      expect(await raw.until('G')).toEqual(['1', '2', 'G'])
      expect(await raw.ask(copyData('1\tone\n'), copyDone, wire.sync)).toEqual(['C COPY 1', 'Z I'])
      raw.send(...copy)
      await raw.until('G')
      expect(await raw.ask(copyData('wrong\n'), copyDone, wire.sync)).toEqual(['E 22P02', 'Z I'])
      raw.send(...copy)
      await raw.until('G')
      expect(await raw.ask(copyFail, wire.sync)).toEqual(['E 57014', 'Z I'])
      expect(await raw.query('INSERT INTO t VALUES (2)')).toEqual(['C INSERT 0 1', 'Z I'])
      await open.finish('COMMIT')
      expect(await open.read(ids)).toBe('1,2')
    })

    test(`the client vanishes in the middle, having sent ${early ? 'a Sync' : 'no Sync'}`, async () => {
      const open = await openGate(table)
      const other = await open.connect()
      await other.query('INSERT INTO t VALUES (7)')
      for (const end of [copyData('1\tone\n'), Buffer.concat([copyData('1\tone\n'), copyDone])]) {
        const raw = await open.raw()
        raw.send(prepareOf('', 'COPY t FROM STDIN'), ...run(''), early ? wire.sync : flush)
        await raw.until('G')
        raw.send(end)
        raw.socket.destroy()
        expect((await other.query('SELECT count(*)::int AS n FROM t')).rows).toEqual([{ n: 7 }].map(() => ({ n: 1 })))
      }
      const simple = await open.raw()
      simple.send(q('COPY t FROM STDIN; INSERT INTO t VALUES (8)'))
      await simple.until('G')
      simple.send(copyData('1\tone\n'))
      simple.socket.destroy()
      const sudden = await open.raw()
      sudden.send(q('COPY t FROM STDIN'))
      sudden.socket.end()
      expect((await other.query(ids)).rows).toEqual([{ ids: '7' }])
      await open.finish('COMMIT')
      expect(await open.read(ids)).toBe('7')
    })
  }
})

describe('a COPY that PostgreSQL refuses', () => {
  const refusals: Record<string, { to: string; before: string[]; code: string }> = {
    'there is no table': { to: 'nothing', before: [], code: '42P01' },
    'there is no right': { to: 'secret', before: [], code: '42501' },
    'a view, which is refused only when data was asked for': { to: 'v', before: ['G'], code: '42809' },
    'a trigger that raises when data was asked for': { to: 'angry', before: ['G'], code: 'P0001' },
  }
  const prepare = `${table}; CREATE VIEW v AS SELECT id + 1 AS id FROM t; CREATE TABLE secret (id int); CREATE TABLE angry (id int);
    CREATE FUNCTION rage() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
    CREATE TRIGGER rage BEFORE INSERT ON angry FOR EACH STATEMENT EXECUTE FUNCTION rage();
    DO $$ BEGIN CREATE ROLE copier; EXCEPTION WHEN duplicate_object THEN END $$; GRANT ALL ON t, v, angry TO copier; GRANT CREATE ON SCHEMA public TO copier`
  for (const [why, { to, before, code }] of Object.entries(refusals)) {
    test(`${why}: by the simple protocol`, async () => {
      const open = await openGate(prepare, { before: 'SET SESSION AUTHORIZATION copier' })
      const raw = await open.raw()
      for (const [begin, status, end] of [
        ['', 'Z I', []],
        ['BEGIN; ', 'Z E', ['C BEGIN']],
      ] as const) {
        raw.send(q(`${begin}INSERT INTO t VALUES (1); COPY ${to} FROM STDIN; INSERT INTO t VALUES (2)`))
        expect(await raw.until('Z')).toEqual([...end, 'C INSERT 0 1', ...before, `E ${code}`, status])
        // What a client sends that has seen the G and not yet the error.
        raw.send(copyData('3\n'), copyDone)
        expect(await raw.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
      }
      expect(await raw.query('INSERT INTO t VALUES (4)')).toEqual(['C INSERT 0 1', 'Z I'])
      await open.finish('COMMIT')
      expect(await open.read(ids)).toBe('4')
    })

    test(`${why}: by the extended protocol`, async () => {
      const open = await openGate(prepare, { before: 'SET SESSION AUTHORIZATION copier' })
      const raw = await open.raw()
      const copy = [prepareOf('', `COPY ${to} FROM STDIN`), ...run('')]
      const refused = ['1', '2', ...before, `E ${code}`]
      // The Sync ahead of the data is ignored where data was asked for, and heeded where not.
      raw.send(...copy, wire.sync)
      if (before.length === 0) expect(await raw.until('Z')).toEqual([...refused, 'Z I'])
      else expect([...(await raw.until('E')), ...(await raw.ask(copyFail, wire.sync))]).toEqual([...refused, 'Z I'])
      // Behind the data; with everything sent at once, or after the answer.
      expect(await raw.ask(...copy, copyData('3\n'), copyDone, wire.sync)).toEqual([...refused, 'Z I'])
      raw.send(...copy, flush)
      expect(await raw.until('E')).toEqual(refused)
      expect(await raw.ask(copyData('3\n'), copyDone, wire.sync)).toEqual(['Z I'])
      // In a pipeline it takes the rest along.
      await raw.query('BEGIN')
      expect(
        await raw.ask(...copy, copyDone, prepareOf('', 'INSERT INTO t VALUES (2)'), ...run(''), wire.sync),
      ).toEqual([...refused, 'Z E'])
      expect(await raw.query('ROLLBACK; INSERT INTO t VALUES (4)')).toEqual(['C ROLLBACK', 'C INSERT 0 1', 'Z I'])
      await open.finish('COMMIT')
      expect(await open.read(ids)).toBe('4')
    })
  }

  test('is seen also where only the server can read it', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    await raw.query('SET standard_conforming_strings = off; SET escape_string_warning = off')
    raw.send(q(`/* ours */ COPY t FROM STDIN (DELIMITER '\\'')`))
    expect(await raw.until('G')).toEqual(['G'])
    expect(await raw.ask(copyData(`1'one\n`), copyDone)).toEqual(['C COPY 1', 'Z I'])
    expect(await raw.query(`COPY nothing FROM STDIN (DELIMITER '\\'')`)).toEqual(['E 42P01', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1')
  })
})

describe('a COPY that is cancelled, or whose client goes away', () => {
  const slow = `${table}; CREATE FUNCTION sleeps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1000); END';
    CREATE TABLE slow (id int); CREATE TRIGGER sleeps BEFORE INSERT ON slow FOR EACH STATEMENT EXECUTE FUNCTION sleeps()`
  /** Where PostgreSQL is in it: waiting for a lock, past asking for data but not reading it, or reading it. */
  const places = {
    'before it asks for data': { to: 'locked', event: 'relation', before: [] },
    'before it reads data': { to: 'slow', event: 'PgSleep', before: ['G'] },
    'while it waits for data': { to: 't (id)', event: 'ClientRead', before: ['G'] },
  } as const
  const begin = async (to: string) => {
    const open = await openGate(`${slow}; CREATE TABLE locked (id int)`)
    const other = new pg.Client({ connectionString: open.url })
    await other.connect()
    onTestFinished(() => other.end())
    if (to === 'locked') await other.query('BEGIN; LOCK TABLE locked')
    return open
  }
  const forms = {
    'the simple protocol': (to: string) => [q(`COPY ${to} FROM STDIN; INSERT INTO t VALUES (9)`)],
    'the extended protocol, with a Sync ahead of the data': (to: string) => [
      prepareOf('', `COPY ${to} FROM STDIN`),
      ...run(''),
      wire.sync,
    ],
    'the extended protocol, with a Flush': (to: string) => [prepareOf('', `COPY ${to} FROM STDIN`), ...run(''), flush],
  }
  for (const [where, { to, event, before }] of Object.entries(places)) {
    for (const [form, messages] of Object.entries(forms)) {
      const simple = form === 'the simple protocol'

      test(`cancelled ${where}, by ${form}`, async () => {
        const open = await begin(to)
        const raw = await open.raw()
        raw.send(...messages(to))
        const parsed = simple ? [] : ['1', '2']
        if (before.length > 0) expect(await raw.until('G')).toEqual([...parsed, ...before])
        await open.sleeping(event)
        await open.cancel(raw)
        // PostgreSQL looks at it with the next message only, where it waits for data.
        if (event === 'ClientRead') raw.send(copyData('1\n'))
        expect((await raw.until('E')).slice(-1)).toEqual(['E 57014'])
        if (!simple && (event !== 'relation' || form.endsWith('Flush'))) raw.send(copyDone, wire.sync)
        expect(await raw.until('Z')).toEqual(['Z I'])
        expect(await raw.query('INSERT INTO t VALUES (1)')).toEqual(['C INSERT 0 1', 'Z I'])
        await open.finish('COMMIT')
        expect(await open.read(ids)).toBe('1')
      })

      for (const how of ['destroy', 'end'] as const) {
        test(`its client goes away (${how}) ${where}, by ${form}`, async () => {
          const open = await begin(to)
          const [raw, other] = [await open.raw(), await open.raw()]
          await other.query('INSERT INTO t VALUES (7)')
          raw.send(...messages(to))
          if (before.length > 0) await raw.until('G')
          await open.sleeping(event)
          raw.socket[how]()
          expect(await other.query(ids)).toEqual(['T', 'D 7', 'C SELECT 1', 'Z I'])
          await open.finish('COMMIT')
          expect(await open.read(ids)).toBe('7')
        })
      }

      test(`the gate is closed ${where}, by ${form}`, async () => {
        const open = await begin(to)
        const raw = await open.raw()
        raw.send(...messages(to))
        await open.sleeping(event)
        await open.gate.close()
        expect(open.gate.lost).toBe(undefined)
        expect(await open.readInside(ids)).toBe('')
        await open.finish('COMMIT')
      })
    }
  }

  test('cancelled at any moment, it is answered once', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    for (let i = 0; i < 60; i++) {
      raw.send(q(`INSERT INTO t VALUES (${i}); COPY t (id) FROM STDIN; SELECT 1`))
      const cancelled = open.cancel(raw)
      if (i % 3 > 0) await raw.until('C', 'E')
      raw.send(copyData(`${i + 1000}\n`), copyDone)
      const heard = await raw.until('Z')
      await cancelled
      expect(heard.at(-1)).toBe('Z I')
      const after = await raw.query(`SELECT ${i}`)
      expect(after).toEqual(['T', `D ${i}`, 'C SELECT 1', 'Z I'])
    }
    await open.finish('ROLLBACK')
  })
})

describe('savepoints and nesting', () => {
  test('savepoints of the client', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    expect(await raw.query('SAVEPOINT s')).toEqual(['E 25P01', 'Z I'])
    expect(await raw.query('RELEASE s')).toEqual(['E 25P01', 'Z I'])
    expect(await raw.query('ROLLBACK TO s')).toEqual(['E 25P01', 'Z I'])
    await raw.query('BEGIN; INSERT INTO t VALUES (1)')
    expect(await raw.query('SAVEPOINT s')).toEqual(['C SAVEPOINT', 'Z T'])
    await raw.query('INSERT INTO t VALUES (2); SAVEPOINT s; INSERT INTO t VALUES (3)')
    expect(await raw.query('ROLLBACK TO SAVEPOINT s')).toEqual(['C ROLLBACK', 'Z T'])
    expect(await raw.query('RELEASE s')).toEqual(['C RELEASE', 'Z T'])
    expect(await raw.query('SELECT 1/0')).toEqual(['E 22012', 'Z E'])
    expect(await raw.query('RELEASE s')).toEqual(['E 25P02', 'Z E'])
    expect(await raw.query('SAVEPOINT x')).toEqual(['E 25P02', 'Z E'])
    expect(await raw.query('ROLLBACK TO s; INSERT INTO t VALUES (4)')).toEqual(['C ROLLBACK', 'C INSERT 0 1', 'Z T'])
    expect(await raw.query('ROLLBACK TO nothing')).toEqual(['E 3B001', 'Z E'])
    expect(await raw.query('INSERT INTO t VALUES (5)')).toEqual(['E 25P02', 'Z E'])
    expect(await raw.query('ROLLBACK TO s; RELEASE s; RELEASE s')).toEqual([
      'C ROLLBACK',
      'C RELEASE',
      'E 3B001',
      'Z E',
    ])
    expect(await raw.query('COMMIT')).toEqual(['C ROLLBACK', 'Z I'])
    await raw.query('BEGIN; SAVEPOINT s; INSERT INTO t VALUES (6); COMMIT')
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('6')
  })

  test('names that collide across nested clients', async () => {
    const open = await openGate(table)
    const [outer, inner] = [await open.raw(), await open.raw()]
    await outer.query('BEGIN; SAVEPOINT s; INSERT INTO t VALUES (1)')
    await inner.query('BEGIN; SAVEPOINT s; INSERT INTO t VALUES (2)')
    expect(await inner.query('ROLLBACK TO s; INSERT INTO t VALUES (3); RELEASE s; RELEASE s')).toEqual([
      'C ROLLBACK',
      'C INSERT 0 1',
      'C RELEASE',
      'E 3B001',
      'Z E',
    ])
    expect(await inner.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    await inner.query('BEGIN; INSERT INTO t VALUES (4); COMMIT')
    expect(await outer.query('INSERT INTO t VALUES (5); COMMIT')).toEqual(['C INSERT 0 1', 'C COMMIT', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,4,5')
  })

  test('an outer client speaks while an inner one has written', async () => {
    const open = await openGate(table)
    const [outer, inner] = [await open.raw(), await open.raw()]
    await outer.query('BEGIN; INSERT INTO t VALUES (1)')
    await inner.query('BEGIN; INSERT INTO t VALUES (2)')
    expect(await outer.query('INSERT INTO t VALUES (3)')).toEqual(['C INSERT 0 1', 'Z T'])
    expect(await inner.query('INSERT INTO t VALUES (4); COMMIT')).toEqual(['C INSERT 0 1', 'C COMMIT', 'Z I'])
    expect(await outer.query('INSERT INTO t VALUES (5); COMMIT')).toEqual(['C INSERT 0 1', 'C COMMIT', 'Z I'])
    // What was written last can be rolled back, and the one before it be committed, or rolled back as well.
    for (const end of ['COMMIT', 'ROLLBACK']) {
      await outer.query(`BEGIN; INSERT INTO t VALUES (${end === 'COMMIT' ? 6 : 7})`)
      await inner.query('BEGIN; INSERT INTO t VALUES (8)')
      expect(await inner.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
      expect(await outer.query(end)).toEqual([`C ${end}`, 'Z I'])
    }
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,2,3,4,5,6')
  })

  test('what one has committed, no other one’s rollback undoes', async () => {
    const open = await openGate(tables)
    const [reader, writer] = [await open.raw(), await open.raw()]
    await reader.query('BEGIN; SELECT count(*) FROM t')
    await writer.query('BEGIN; INSERT INTO t VALUES (1); COMMIT')
    expect(await reader.query(ids)).toEqual(['T', 'D 1', 'C SELECT 1', 'Z T'])
    await writer.query('INSERT INTO t VALUES (2)')
    expect(await reader.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    // Likewise a savepoint behind which it has not written.
    await reader.query('BEGIN; INSERT INTO u VALUES (3); SAVEPOINT a; SAVEPOINT b; SELECT 1')
    await writer.query('INSERT INTO t VALUES (4)')
    expect(await reader.query('ROLLBACK TO b; ROLLBACK TO a; INSERT INTO u VALUES (5)')).toEqual([
      'C ROLLBACK',
      'C ROLLBACK',
      'C INSERT 0 1',
      'Z T',
    ])
    expect(await reader.query('ROLLBACK TO b')).toEqual(['E 3B001', 'Z E'])
    expect(await reader.query('ROLLBACK TO a; RELEASE a; COMMIT')).toEqual([
      'C ROLLBACK',
      'C RELEASE',
      'C COMMIT',
      'Z I',
    ])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,2,4')
    expect(await open.read('SELECT string_agg(id::text, $$,$$) FROM u')).toBe('3')
  })

  test('whether one has written is asked of PostgreSQL', async () => {
    const writes =
      'CREATE FUNCTION writes(i int) RETURNS int LANGUAGE sql AS $$ INSERT INTO t VALUES (i) RETURNING id $$'
    const open = await openGate(`${tables}; ${writes}`)
    const [one, two] = [await open.raw(), await open.raw()]
    await one.query('BEGIN; SELECT 1')
    expect(await two.query('BEGIN; SELECT writes(1)')).toEqual(['C BEGIN', 'T', 'D 1', 'C SELECT 1', 'Z T'])
    expect(await two.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    await one.query('SELECT writes(2)')
    await two.query('BEGIN; SELECT writes(3); COMMIT')
    expect(await one.query('COMMIT')).toEqual(['C COMMIT', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('2,3')
  })

  test('a rollback behind which another has written ends in words that name both', async () => {
    for (const end of ['ROLLBACK', 'ROLLBACK TO a', 'gone']) {
      const open = await openGate(tables)
      const [one, two] = [await open.raw(), await open.raw()]
      await one.query('BEGIN; SAVEPOINT a; INSERT INTO t VALUES (1)')
      await two.query('INSERT INTO u VALUES (2)')
      if (end === 'gone') one.socket.end()
      else expect(await one.query(end)).toEqual(['C ROLLBACK', end === 'ROLLBACK' ? 'Z I' : 'Z T'])
      // Nothing more is run on the strength of it.
      if (end !== 'gone') expect(await two.query('SELECT 1')).toEqual(['E 08006', 'closed'])
      await open.gate.close()
      expect(String(open.gate.failure ?? open.gate.doom)).toMatch(
        /“INSERT INTO t VALUES \(1\)” .* “INSERT INTO u VALUES \(2\)”/,
      )
    }
  })

  test('what one has not committed, no other reads', async () => {
    const trigger = `CREATE FUNCTION looks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM t; RETURN NEW; END $$;
      CREATE TRIGGER looks BEFORE INSERT ON u FOR EACH ROW EXECUTE FUNCTION looks()`
    const reads = [
      'SELECT * FROM t',
      'BEGIN; DECLARE c CURSOR FOR SELECT * FROM t; FETCH c',
      'COPY t TO STDOUT',
      'INSERT INTO u VALUES (2)',
      'UPDATE t SET id = 3 WHERE id = 4',
      'SELECT 1 / (count(*) - 1) FROM t',
      'INSERT INTO t VALUES (1)',
      'INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING',
    ]
    for (const read of reads) {
      const open = await openGate(`${tables}; ${trigger}`)
      const [one, two] = [await open.raw(), await open.raw()]
      await one.query('BEGIN; INSERT INTO t VALUES (1)')
      const heard = await two.query(read)
      expect(heard.slice(-2), read).toEqual(['E 08006', 'closed'])
      expect(heard.join(), read).not.toMatch(/D 1|d 1|E 22012|E 23505/)
      await open.gate.close()
      expect(String(open.gate.failure)).toMatch(/rows of t that “INSERT INTO t VALUES \(1\)”/)
    }
  })

  test('what has nothing to do with that is read and written', async () => {
    const open = await openGate(`${tables}; INSERT INTO t VALUES (1), (2)`)
    const [one, two] = [await open.raw(), await open.raw()]
    // A cursor keeps to the rows of the time when it was declared.
    await two.query('BEGIN; DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id')
    await one.query('BEGIN; INSERT INTO t VALUES (3)')
    expect(await two.query('FETCH c')).toEqual(['T', 'D 1', 'C FETCH 1', 'Z T'])
    await one.query('UPDATE t SET id = 4 WHERE id = 2')
    expect(await two.query('FETCH 2 FROM c')).toEqual(['T', 'D 2', 'C FETCH 1', 'Z T'])
    expect(await two.query('INSERT INTO u VALUES (1)')).toEqual(['C INSERT 0 1', 'Z T'])
    expect(await two.query('SAVEPOINT s; INSERT INTO u VALUES (1)')).toEqual(['C SAVEPOINT', 'E 23505', 'Z E'])
    expect(await two.query('ROLLBACK TO s; SELECT count(*) FROM u')).toEqual([
      'C ROLLBACK',
      'T',
      'D 1',
      'C SELECT 1',
      'Z T',
    ])
    await two.query('COMMIT')
    expect(await one.query('SELECT count(*) FROM u; ROLLBACK')).toEqual(['T', 'D 1', 'C SELECT 1', 'C ROLLBACK', 'Z I'])
    await open.gate.close()
    expect(String(open.gate.doom)).toMatch(/INSERT INTO t .*INSERT INTO u/)
  })

  test('what was written inside of a savepoint and is undone stands in nobody’s way', async () => {
    const open = await openGate(tables)
    const [one, two] = [await open.raw(), await open.raw()]
    await one.query('BEGIN; INSERT INTO t VALUES (1)')
    await two.query('BEGIN; SELECT 1; SAVEPOINT a; INSERT INTO u VALUES (1)')
    expect(await two.query('ROLLBACK TO a; RELEASE a')).toEqual(['C ROLLBACK', 'C RELEASE', 'Z T'])
    expect(await one.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    // Likewise where the savepoint has failed, and only another one's turn undoes it.
    await one.query('BEGIN; INSERT INTO t VALUES (2)')
    await two.query('SAVEPOINT a; INSERT INTO u VALUES (2); SELECT 1/0')
    expect(await one.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    expect(await two.query('ROLLBACK TO a; INSERT INTO u VALUES (3); COMMIT')).toEqual([
      'C ROLLBACK',
      'C INSERT 0 1',
      'C COMMIT',
      'Z I',
    ])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('')
    expect(await open.read('SELECT string_agg(id::text, $$,$$) FROM u')).toBe('3')
  })

  test('a savepoint that is released stays part of its own transaction', async () => {
    const open = await openGate(tables)
    const [one, two] = [await open.raw(), await open.raw()]
    // Where nothing had been written before, and another one had the turn since.
    await one.query('BEGIN; SAVEPOINT a; SELECT 1')
    await two.query('BEGIN; INSERT INTO u VALUES (1); ROLLBACK')
    await one.query('INSERT INTO t VALUES (1); RELEASE a')
    expect(await one.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    // Where what another one has written lies between.
    await one.query('BEGIN; INSERT INTO t VALUES (2); SAVEPOINT a; SELECT 1')
    await two.query('BEGIN; INSERT INTO u VALUES (2)')
    await one.query('INSERT INTO t VALUES (3); RELEASE a')
    await one.query('COMMIT')
    expect(await two.query('COMMIT')).toEqual(['C COMMIT', 'Z I'])
    await open.gate.close()
    expect(open.gate.failure ?? open.gate.doom).toBeUndefined()
    expect(await open.readInside(ids)).toBe('2,3')
  })

  test('what was released on top of another one is not undone with that', async () => {
    const open = await openGate(tables)
    const [one, two] = [await open.raw(), await open.raw()]
    await one.query('BEGIN; INSERT INTO t VALUES (2); SAVEPOINT a; SELECT 1')
    await two.query('BEGIN; INSERT INTO u VALUES (2)')
    await one.query('INSERT INTO t VALUES (3); RELEASE a')
    await two.query('ROLLBACK')
    await one.query('COMMIT')
    await open.gate.close()
    expect(String(open.gate.doom)).toMatch(/“INSERT INTO u VALUES \(2\)” .* “INSERT INTO t VALUES \(3\)”/)
  })

  test('a cursor does not go with what another one rolls back', async () => {
    for (const isClosed of [true, false]) {
      const open = await openGate(tables)
      const [one, two] = [await open.raw(), await open.raw()]
      await one.query('BEGIN; INSERT INTO t VALUES (1)')
      await two.query('BEGIN; DECLARE c CURSOR FOR SELECT * FROM u')
      if (isClosed) await two.query('CLOSE c')
      expect(await one.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
      const fetched = await two.query(isClosed ? 'SELECT 1' : 'FETCH c')
      expect(fetched.at(-1)).toBe(isClosed ? 'Z T' : 'closed')
      await open.gate.close()
      if (!isClosed) expect(String(open.gate.failure)).toMatch(/“INSERT INTO t VALUES \(1\)” .* “DECLARE c/)
      else expect(open.gate.failure).toBeUndefined()
    }
  })

  test('failures of the inner and of the outer client', async () => {
    const open = await openGate(table)
    const [outer, inner] = [await open.raw(), await open.raw()]
    await outer.query('BEGIN; INSERT INTO t VALUES (1)')
    expect(await inner.query('BEGIN; SELECT 1/0')).toEqual(['C BEGIN', 'E 22012', 'Z E'])
    expect(await outer.query('SELECT 1')).toEqual(['T', 'D 1', 'C SELECT 1', 'Z T'])
    expect(await inner.query('SELECT 1')).toEqual(['E 25P02', 'Z E'])
    expect(await outer.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    expect(await inner.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    expect(await outer.query('BEGIN; SELECT 1/0')).toEqual(['C BEGIN', 'E 22012', 'Z E'])
    expect(await inner.query('INSERT INTO t VALUES (2)')).toEqual(['C INSERT 0 1', 'Z I'])
    expect(await outer.query('COMMIT')).toEqual(['C ROLLBACK', 'Z I'])
    // What it had written before is undone with its failure: another one may read the table.
    await outer.query('BEGIN; INSERT INTO t VALUES (3); SELECT 1/0')
    expect(await inner.query(ids)).toEqual(['T', 'D 2', 'C SELECT 1', 'Z I'])
    expect(await outer.query('ROLLBACK; INSERT INTO t VALUES (4)')).toEqual(['C ROLLBACK', 'C INSERT 0 1', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('2,4')
  })

  test('clients that vanish are rolled back', async () => {
    const open = await openGate(table)
    const [outer, inner, deepest] = [await open.raw(), await open.raw(), await open.raw()]
    await outer.query('BEGIN; INSERT INTO t VALUES (1)')
    await inner.query('BEGIN; INSERT INTO t VALUES (2)')
    inner.socket.destroy()
    expect(await outer.query('INSERT INTO t VALUES (3)')).toEqual(['C INSERT 0 1', 'Z T'])
    outer.socket.destroy()
    const other = await open.raw()
    expect(await other.query(ids)).toEqual(['T', 'D ', 'C SELECT 1', 'Z I'])
    expect(await deepest.query('INSERT INTO t VALUES (5)')).toEqual(['C INSERT 0 1', 'Z I'])
    const failed = await open.raw()
    await failed.query('BEGIN; INSERT INTO t VALUES (6); SELECT 1/0')
    failed.socket.destroy()
    const midway = await open.raw()
    midway.send(prepareOf('', 'INSERT INTO t VALUES (7)'), ...run(''))
    midway.socket.end()
    expect(await deepest.query(ids)).toEqual(['T', 'D 5', 'C SELECT 1', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('5')
  })

  test('a client that vanishes while its statement runs does not keep the others waiting', async () => {
    const open = await openGate(table)
    const [sleeper, other] = [await open.raw(), await open.connect()]
    sleeper.send(q('INSERT INTO t VALUES (1); SELECT pg_sleep(1000)'))
    await open.sleeping()
    sleeper.socket.destroy()
    expect((await other.query(ids)).rows).toEqual([{ ids: '' }])
    await open.finish('COMMIT')
  })
})

describe('settings', () => {
  const show = (name: string) => `SELECT current_setting('${name}', true) AS value`

  test('SET survives a COMMIT and SET LOCAL does not', async () => {
    const open = await openGate()
    const client = await open.connect()
    const value = async (name: string) => (await client.query(show(name))).rows[0].value
    await client.query(`BEGIN; SET work_mem = '5MB'; SET LOCAL lock_timeout = '1s'; SET LOCAL search_path = nowhere`)
    await client.query(`SELECT set_config('app.tenant', 'me', true), set_config('app.user', 'you', false)`)
    expect([await value('lock_timeout'), await value('search_path'), await value('app.tenant')]).toEqual([
      '1s',
      'nowhere',
      'me',
    ])
    await client.query('COMMIT')
    expect([await value('work_mem'), await value('lock_timeout'), await value('search_path')]).toEqual([
      '5MB',
      '7s',
      '"$user", public',
    ])
    expect([await value('app.tenant'), await value('app.user')]).toEqual(['', 'you'])
    await client.query(`BEGIN; SET work_mem = '6MB'; SET LOCAL lock_timeout = '2s'; ROLLBACK`)
    expect([await value('work_mem'), await value('lock_timeout')]).toEqual(['5MB', '7s'])
    // Outside of a transaction it holds for its message only.
    await client.query(`SET LOCAL lock_timeout = '3s'`)
    expect(await value('lock_timeout')).toBe('7s')
    await client.query(`BEGIN; SET LOCAL lock_timeout = '4s'; SET lock_timeout = '5s'; COMMIT`)
    expect(await value('lock_timeout')).toBe('5s')
    await client.query(`BEGIN; SET lock_timeout = '6s'; SET LOCAL lock_timeout = '4s'; COMMIT`)
    expect(await value('lock_timeout')).toBe('6s')
    await client.query(
      `BEGIN; SAVEPOINT s; SET LOCAL lock_timeout = '1s'; SET LOCAL work_mem = '1MB'; ROLLBACK TO s; COMMIT`,
    )
    expect([await value('work_mem'), await value('lock_timeout')]).toEqual(['5MB', '6s'])
    await client.query(
      `BEGIN; SET LOCAL work_mem = '1MB'; SAVEPOINT s; SET LOCAL lock_timeout = '1s'; RELEASE s; COMMIT`,
    )
    expect([await value('work_mem'), await value('lock_timeout')]).toEqual(['5MB', '6s'])
    await open.finish('COMMIT')
  })

  test('RESET goes back to what the connection began with', async () => {
    const open = await openGate()
    const client = await open.connect({ options: '-c work_mem=9MB' })
    const value = async (name: string) => (await client.query(show(name))).rows[0].value
    for (const sql of [
      'RESET ALL',
      'RESET lock_timeout; RESET work_mem',
      'SET lock_timeout TO DEFAULT; SET work_mem = DEFAULT',
    ]) {
      await client.query(`SET lock_timeout = '1s'; SET work_mem = '5MB'`)
      await client.query(sql)
      expect([await value('lock_timeout'), await value('work_mem')]).toEqual(['7s', '9MB'])
    }
    await client.query(`BEGIN; SET LOCAL lock_timeout = '1s'; RESET ALL; COMMIT`)
    expect([await value('lock_timeout'), await value('work_mem')]).toEqual(['7s', '9MB'])
    await client.query(`SET lock_timeout = '1s'; RESET work_mem`)
    expect(await value('lock_timeout')).toBe('1s')
    await client.query({ name: 'reset', text: 'RESET ALL' })
    expect([await value('lock_timeout'), await value('statement_timeout')]).toEqual(['7s', '50s'])
    await open.finish('COMMIT')
  })

  test('those of one client are not those of another', async () => {
    const open = await openGate(
      'CREATE SCHEMA a; CREATE SCHEMA b; CREATE ROLE migrator; GRANT ALL ON SCHEMA a TO migrator',
    )
    const one = await open.connect({ options: '-c search_path=a -c statement_timeout=33s' })
    const two = await open.connect({ options: '--search-path=b' })
    const values = async (client: pg.Client) => {
      const names = ['search_path', 'statement_timeout', 'lock_timeout', 'app.x', 'role', 'work_mem']
      const { rows } = await client.query(
        `SELECT ${names.map((name, i) => `current_setting('${name}', true) AS c${i}`)}`,
      )
      return Object.values(rows[0])
    }
    await one.query(`CREATE TABLE mine (id int); SET app.x = 'one'; SET ROLE migrator; SET work_mem = '3MB'`)
    await two.query('CREATE TABLE mine (id int)')
    expect(await values(two)).toEqual(['b', '50s', '7s', '', 'none', '4MB'])
    expect(await values(one)).toEqual(['a', '33s', '7s', 'one', 'migrator', '3MB'])
    await one.query(`BEGIN; SET LOCAL lock_timeout = '1s'; SET LOCAL app.x = 'inside'`)
    expect(await values(two)).toEqual(['b', '50s', '7s', '', 'none', '4MB'])
    expect(await values(one)).toEqual(['a', '33s', '1s', 'inside', 'migrator', '3MB'])
    await two.end()
    await one.query('COMMIT')
    expect(await values(one)).toEqual(['a', '33s', '7s', 'one', 'migrator', '3MB'])
    await one.query('RESET ROLE')
    await one.end()
    const three = await open.connect()
    expect(await values(three)).toEqual(['"$user", public', '50s', '7s', '', 'none', '4MB'])
    await three.query(`SET SESSION AUTHORIZATION migrator; SET statement_timeout = '1ms'`).catch(() => {})
    await three.end()
    const four = await open.connect()
    expect(await values(four)).toEqual(['"$user", public', '50s', '7s', '', 'none', '4MB'])
    expect((await four.query('SELECT session_user = current_user AS same')).rows).toEqual([{ same: true }])
    await open.finish('COMMIT')
    expect(await open.read(`SELECT count(*)::int AS n FROM pg_tables WHERE tablename = 'mine'`)).toBe(2)
    await query(open.url, 'DROP OWNED BY migrator; DROP ROLE migrator')
  })

  test('settings that PostgreSQL refuses are told with the first statement', async () => {
    const open = await openGate()
    const raw = await open.raw({ options: '-c work_mem=lots' })
    expect(await raw.query('SELECT 1')).toEqual(['E 0A000', 'Z I'])
    expect(await (await open.raw()).query('SELECT 1')).toEqual(['T', 'D 1', 'C SELECT 1', 'Z I'])
    await open.finish('COMMIT')
  })
})

describe('what a session leaves', () => {
  const leave = `CREATE TEMP TABLE x AS SELECT 1; LISTEN x; SELECT pg_advisory_lock(5); PREPARE x AS SELECT 1;
    DECLARE x CURSOR WITH HOLD FOR SELECT 1`
  const left = `SELECT (SELECT count(*) FROM pg_class WHERE relname = 'x')::int AS tables,
    (SELECT count(*) FROM pg_listening_channels())::int AS channels,
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 5)::int AS locks,
    (SELECT count(*) FROM pg_prepared_statements WHERE name = 'x')::int AS statements,
    (SELECT count(*) FROM pg_cursors WHERE name = 'x')::int AS cursors`

  test('goes with its client', async () => {
    const open = await openGate(table)
    for (let i = 0; i < 2; i++) {
      const client = await open.connect()
      await client.query(leave)
      await client.end()
    }
    const { rows } = await (await open.connect()).query(left)
    expect(rows).toEqual([{ tables: 0, channels: 0, locks: 0, statements: 0, cursors: 0 }])
    await open.finish('COMMIT')
  })

  test('goes with its client also while another one stays, but for locks and channels', async () => {
    const open = await openGate(table)
    const other = await open.connect()
    await other.query('BEGIN; CREATE TEMP TABLE kept (id int); PREPARE kept AS SELECT 2')
    for (let i = 0; i < 2; i++) {
      const client = await open.connect()
      await client.query(leave)
      await client.end()
    }
    expect((await other.query(left)).rows).toMatchObject([{ tables: 0, statements: 0, cursors: 0 }])
    expect((await other.query('SELECT * FROM kept')).rows).toEqual([])
    expect((await other.query('EXECUTE kept')).rows).toEqual([{ '?column?': 2 }])
    await other.query('COMMIT')
    await open.finish('COMMIT')
  })

  test('cursors and ON COMMIT DROP end with the transaction', async () => {
    const open = await openGate(table)
    const client = await open.connect()
    for (let i = 0; i < 2; i++) {
      await client.query('BEGIN; DECLARE c CURSOR FOR SELECT 1; CREATE TEMP TABLE brief (id int) ON COMMIT DROP')
      expect((await client.query('FETCH ALL FROM c')).rows.length).toBe(1)
      await client.query('COMMIT')
      await client.query(
        'BEGIN; DECLARE c CURSOR FOR SELECT 1; CREATE TEMP TABLE brief (id int) ON COMMIT DROP; COMMIT',
      )
    }
    await client.query('CREATE TEMP TABLE brief (id int)')
    await client.query('BEGIN; SAVEPOINT s')
    await expect(client.query('CREATE TEMP TABLE brief (id int) ON COMMIT DROP')).rejects.toThrow(/exists/)
    await client.query('ROLLBACK TO s; COMMIT')
    expect((await client.query('SELECT * FROM brief')).rows).toEqual([])
    await open.finish('COMMIT')
  })
})

describe('two-phase commit', () => {
  test('is carried out inside the transaction', async () => {
    const open = await openGate(table)
    const raw = await open.raw()
    expect(await raw.query(`PREPARE TRANSACTION 'x'`)).toEqual(['C ROLLBACK', 'Z I'])
    await raw.query('BEGIN; INSERT INTO t VALUES (1)')
    expect(await raw.query(`PREPARE TRANSACTION 'one'`)).toEqual(['C PREPARE TRANSACTION', 'Z I'])
    // What comes between does not touch it.
    expect(await raw.query('SELECT 1/0')).toEqual(['E 22012', 'Z I'])
    expect(await raw.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    expect(await raw.query(`BEGIN; COMMIT PREPARED 'one'`)).toEqual(['C BEGIN', 'E 25001', 'Z E'])
    await raw.query('ROLLBACK')
    expect(await raw.query(`COMMIT PREPARED 'two'`)).toEqual(['E 42704', 'Z I'])
    expect(await raw.query(`COMMIT PREPARED 'one'`)).toEqual(['C COMMIT PREPARED', 'Z I'])
    expect(await raw.query(`COMMIT PREPARED 'one'`)).toEqual(['E 42704', 'Z I'])
    await raw.query(`BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'two'`)
    await raw.query('BEGIN')
    expect(await raw.query(`PREPARE TRANSACTION 'two'`)).toEqual(['E 42710', 'Z E'])
    await raw.query('ROLLBACK')
    expect(await raw.query(`ROLLBACK PREPARED 'two'`)).toEqual(['C ROLLBACK PREPARED', 'Z I'])
    await raw.query(`BEGIN; INSERT INTO t VALUES (3); PREPARE TRANSACTION 'three'; INSERT INTO t VALUES (4)`)
    expect(await raw.query(`ROLLBACK PREPARED 'three'`)).toEqual(['E 0A000', 'Z I'])
    expect(await raw.query(`COMMIT PREPARED 'three'`)).toEqual(['C COMMIT PREPARED', 'Z I'])
    expect(await raw.query(`BEGIN; SELECT 1/0; PREPARE TRANSACTION 'x'`)).toEqual(['C BEGIN', 'E 22012', 'Z E'])
    expect(await raw.query(`PREPARE TRANSACTION 'x'`)).toEqual(['C ROLLBACK', 'Z I'])
    await raw.query(`BEGIN; INSERT INTO t VALUES (5); PREPARE TRANSACTION 'left behind'`)
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,3,4')
  })
})

describe('deferred constraints', () => {
  const pair = `CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int PRIMARY KEY, parent int CONSTRAINT fk REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE brother (id int PRIMARY KEY DEFERRABLE INITIALLY IMMEDIATE)`

  test('are checked at each COMMIT, and stay as they were declared', async () => {
    const open = await openGate(`${table}; ${pair}`)
    const raw = await open.raw()
    await raw.query('BEGIN; INSERT INTO t VALUES (1); INSERT INTO child VALUES (1, 1)')
    expect(await raw.query('COMMIT')).toEqual(['E 23503', 'Z I'])
    expect(await raw.query('INSERT INTO child VALUES (1, 1)')).toEqual(['C INSERT 0 1', 'E 23503', 'Z I'])
    // Good by the end of the transaction, again and again.
    for (const id of [1, 2])
      expect(
        await raw.query(`BEGIN; INSERT INTO child VALUES (${id}, ${id}); INSERT INTO parent VALUES (${id}); COMMIT`),
      ).toEqual(['C BEGIN', 'C INSERT 0 1', 'C INSERT 0 1', 'C COMMIT', 'Z I'])
    // What is INITIALLY IMMEDIATE still is.
    await raw.query('INSERT INTO brother VALUES (1); COMMIT; BEGIN')
    expect(await raw.query('INSERT INTO brother VALUES (1)')).toEqual(['E 23505', 'Z E'])
    await raw.query('ROLLBACK')
    expect(await raw.query('BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO brother VALUES (1); COMMIT')).toEqual([
      'C BEGIN',
      'C SET CONSTRAINTS',
      'C INSERT 0 1',
      'E 23505',
      'Z I',
    ])
    // No trigger is pending, so that the table can be changed by the next revision.
    expect(await raw.query('ALTER TABLE child ADD note text')).toEqual(['C ALTER TABLE', 'Z I'])
    expect(await raw.query(`BEGIN; INSERT INTO child VALUES (9, 9); PREPARE TRANSACTION 'x'`)).toEqual([
      'C BEGIN',
      'C INSERT 0 1',
      'E 23503',
      'Z I',
    ])
    await open.finish('COMMIT')
    expect(await open.read('SELECT count(*)::int AS n FROM child')).toBe(2)
    expect(await open.read(ids)).toBe('')
  })

  test('of names that mean several constraints, and in schemas that are closed to the role', async () => {
    const open = await openGate(
      `${pair}; CREATE TABLE uncle (id int CONSTRAINT fk REFERENCES parent);
       CREATE SCHEMA closed; CREATE TABLE closed.u (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
       CREATE ROLE limited; GRANT ALL ON SCHEMA public TO limited; GRANT ALL ON ALL TABLES IN SCHEMA public TO limited;
       CREATE TABLE second (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON second TO limited`,
      { before: 'SET SESSION AUTHORIZATION limited' },
    )
    const raw = await open.raw()
    expect(await raw.query('BEGIN; INSERT INTO parent VALUES (1); COMMIT')).toEqual([
      'C BEGIN',
      'C INSERT 0 1',
      'C COMMIT',
      'Z I',
    ])
    expect(await raw.query('INSERT INTO second VALUES (1), (1)')).toEqual(['C INSERT 0 2', 'E 23505', 'Z I'])
    await open.finish('COMMIT')
    await query(open.url, 'DROP OWNED BY limited; DROP ROLE limited')
  })

  test('without plpgsql they are left to the real COMMIT', async () => {
    const open = await openGate(`${pair}; DROP EXTENSION plpgsql`)
    const raw = await open.raw()
    expect(await raw.query('BEGIN; INSERT INTO child VALUES (1, 1); COMMIT')).toEqual([
      'C BEGIN',
      'C INSERT 0 1',
      'C COMMIT',
      'Z I',
    ])
    expect(await raw.query('RELEASE nothing')).toEqual(['E 25P01', 'Z I'])
    await open.gate.close()
    await expect(open.upstream.query('COMMIT')).rejects.toThrow(/foreign key/)
  })
})

describe('connections', () => {
  test('a wrong password is refused, whatever is sent behind it', async () => {
    const open = await openGate()
    await expect(open.connect({ password: 'wrong' })).rejects.toMatchObject({ code: '28P01' })
    const raw = new Raw(open.gate.address.port)
    raw.listen()
    raw.send(startup({ user: open.user }), wire.frame('p', wire.cstring('wrong')))
    raw.send(wire.frame('p', wire.cstring(open.gate.address.password)), q('SELECT 1'))
    expect(await raw.until('Z')).toEqual(['R', 'E 28P01', 'closed'])
    const early = new Raw(open.gate.address.port)
    early.listen()
    early.send(startup({ user: open.user }), q('SELECT 1'))
    expect(await early.until('Z')).toEqual(['R', 'E 28P01', 'closed'])
    const bulky = new Raw(open.gate.address.port)
    bulky.listen()
    bulky.send(startup({ user: open.user }), Buffer.from('p\x7f\xff\xff\xff', 'latin1'))
    expect(await bulky.until('Z')).toEqual(['R', 'E 08P01', 'closed'])
    await open.finish('COMMIT')
  })

  test('SSLRequest and GSSENCRequest are declined, and newer protocols negotiated down', async () => {
    const open = await openGate()
    const raw = new Raw(open.gate.address.port)
    for (const code of [wire.startupCode.ssl, wire.startupCode.gss]) {
      raw.send(wire.int32(8), wire.int32(code))
      expect(await raw.byte()).toBe('N')
    }
    const parameters = { user: open.user, '_pq_.something': '1' }
    const heard = await raw.start(parameters, open.gate.address.password, (3 << 16) | 9999)
    expect(heard.slice(0, 2)).toEqual(['v', 'R'])
    expect(heard.at(-1)).toBe('Z I')
    expect(await raw.query('SELECT 1')).toEqual(['T', 'D 1', 'C SELECT 1', 'Z I'])
    const old = new Raw(open.gate.address.port)
    old.listen()
    old.send(startup({}, 2 << 16))
    expect(await old.until('Z')).toEqual(['E 08P01', 'closed'])
    const replication = new Raw(open.gate.address.port)
    replication.listen()
    replication.send(startup({ replication: 'database' }))
    expect(await replication.until('Z')).toEqual(['E 08P01', 'closed'])
    await open.finish('COMMIT')
  })

  test('a cancel request reaches the statement that runs', async () => {
    const open = await openGate(table)
    const [client, other] = [await open.raw(), await open.raw()]
    await client.query('INSERT INTO t VALUES (1)')
    client.send(q('SELECT pg_sleep(1000)'))
    await open.sleeping()
    // Another's key is of no use, and neither is one that comes when nothing runs.
    await open.cancel(client, Buffer.from('\0\0\0\0'))
    await open.cancel(client, other.key.subarray(4))
    expect(await open.sleeping()).toBe(client.key.readInt32BE(0))
    await open.cancel(client)
    expect(await client.until('Z')).toEqual(['T', 'E 57014', 'Z I'])
    await open.cancel(client)
    expect(await client.query(ids)).toEqual(['T', 'D 1', 'C SELECT 1', 'Z I'])
    await open.finish('COMMIT')
  })

  test('when PostgreSQL ends the connection, clients are told and the gate says so', async () => {
    const open = await openGate(table)
    const [client, raw] = [await open.connect(), await open.raw()]
    await client.query('BEGIN; INSERT INTO t VALUES (1)')
    const running = client.query('SELECT pg_sleep(1000)')
    const failing = expect(running).rejects.toMatchObject({ severity: 'FATAL', code: '57P01' })
    const pid = await open.sleeping()
    await query(open.url, `SELECT pg_terminate_backend(${pid})`)
    await failing
    expect(await raw.until('Z')).toEqual(['E 57P01', 'closed'])
    await open.gate.close()
    expect(open.gate.lost?.message).toMatch(/terminating connection/)
    await expect(open.upstream.query('SELECT 1')).rejects.toThrow()
    expect(await open.read(ids)).toBe('')
  })

  test('a savepoint that cannot be rolled back ends the connection after ten tries, and the reason is told', async () => {
    const client = new pg.Client({ connectionString: await createDatabase() })
    client.on('error', () => {})
    await client.connect()
    await client.query('BEGIN')
    const { stream } = (client as unknown as { connection: { stream: Socket } }).connection
    let tries = 0
    const write = stream.write.bind(stream) as (bytes: Buffer) => boolean
    stream.write = (bytes: Buffer) => {
      if (bytes.includes('ROLLBACK TO SAVEPOINT missing')) tries++
      return write(bytes)
    }
    const lost = await new Promise<Error>((resolve, reject) => {
      const upstream = new Upstream(client, { asynchronous: () => {}, lost: resolve })
      new Savepoints(upstream).undo('missing', () => reject(new Error('it was rolled back')))
    })
    expect(lost.message).toMatch(/savepoint "missing" does not exist/)
    expect(tries).toBe(10)
  })

  test('new clients are refused once the connection to PostgreSQL is lost', async () => {
    const open = await openGate(table)
    const client = await open.raw()
    await query(open.url, `SELECT pg_terminate_backend(${client.key.readInt32BE(0)})`)
    expect(await client.until('Z')).toEqual(['E 57P01', 'closed'])
    await expect(open.connect()).rejects.toMatchObject({
      severity: 'FATAL',
      code: '08006',
      message: expect.stringMatching(/terminating connection/),
    })
    await open.gate.close()
  })
})

describe('closing the gate', () => {
  test('rolls back what is open, cancels what runs, and gives the connection back', async () => {
    const open = await openGate(table)
    const [outer, inner, waiting] = [await open.raw(), await open.raw(), await open.raw()]
    await outer.query(`INSERT INTO t VALUES (1); BEGIN; INSERT INTO t VALUES (2); SET lock_timeout = '1ms'`)
    inner.send(q('INSERT INTO t VALUES (3); SELECT pg_sleep(1000)'))
    await open.sleeping()
    waiting.send(q('INSERT INTO t VALUES (4)'))
    await open.gate.close()
    expect(open.gate.lost).toBe(undefined)
    for (const raw of [outer, inner, waiting]) expect((await raw.until('Z')).at(-1)).toBe('closed')
    expect(await open.readInside(ids)).toBe('')
    expect(await open.readInside('SHOW lock_timeout')).toBe('7s')
    await open.finish('COMMIT')
  })

  test('does not wait for a client that does not read', async () => {
    const open = await openGate(table)
    const [raw, other] = [await open.raw(), await open.raw()]
    await other.query('INSERT INTO t VALUES (1)')
    raw.socket.pause()
    raw.send(q(`SELECT repeat('x', 100000) FROM generate_series(1, 2000)`))
    const behind = open.connect()
    await behind
    await open.gate.close()
    expect(await open.readInside(ids)).toBe('1')
    await open.finish('COMMIT')
  })

  test('with clients that have gone, have failed or are in a COPY', async () => {
    const open = await openGate(table)
    const [gone, failed, copying] = [await open.raw(), await open.raw(), await open.raw()]
    await gone.query('BEGIN; INSERT INTO t VALUES (1)')
    gone.socket.destroy()
    copying.send(q('COPY t FROM STDIN'))
    await copying.until('G')
    copying.send(copyData('2\ttwo\n'))
    failed.send(q('BEGIN; INSERT INTO t VALUES (3); SELECT 1/0'))
    await open.gate.close()
    expect(await open.readInside(ids)).toBe('')
    await open.finish('COMMIT')
  })

  test('the place where the gate leans on pg’s inside is as it knows it', async () => {
    const client = new pg.Client({ connectionString: (await openGate()).url })
    await client.connect()
    const { stream } = (client as unknown as { connection: { stream: NodeJS.ReadWriteStream } }).connection
    expect(stream.listeners('data')).toHaveLength(1)
    expect(client).toHaveProperty('processID', expect.any(Number))
    const listener = stream.listeners('data')[0] as (chunk: Buffer) => void
    const heard = new wire.MessageReader()
    stream.removeAllListeners('data')
    stream.on('data', chunk => heard.push(chunk))
    stream.write(Buffer.concat([wire.parse('', 'SELECT 1'), wire.sync]))
    await new Promise(resolve => stream.once('data', resolve))
    expect([heard.message()?.type, heard.message()?.type]).toEqual(['1', 'Z'])
    stream.removeAllListeners('data')
    stream.on('data', listener)
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
    await client.end()
  })
})

describe('drivers of Python', () => {
  test('psycopg 3: transactions, prepared statements, COPY, cursors on the server, two-phase commit', async () => {
    const open = await openGate(table)
    const printed = await runPython(
      open,
      `
import psycopg
with psycopg.connect(dsn) as c:
    for i in range(20):
        c.execute("INSERT INTO t VALUES (%s, %s)", (i, "x"), prepare=True)
        c.commit()
    with c.transaction():
        c.execute("INSERT INTO t VALUES (100)")
        try:
            with c.transaction():
                c.execute("INSERT INTO t VALUES (101)")
                c.execute("INSERT INTO t VALUES (100)")
        except psycopg.errors.UniqueViolation:
            print("unique", c.info.transaction_status.name)
    with c.cursor().copy("COPY t (id) FROM STDIN") as copy:
        for i in range(200, 203):
            copy.write_row([i])
    try:
        with c.cursor().copy("COPY t (id) FROM STDIN") as copy:
            copy.write_row(["wrong"])
    except psycopg.errors.InvalidTextRepresentation:
        print("wrong", c.info.transaction_status.name)
    c.rollback()
    with c.cursor().copy("COPY (SELECT 1, 'a') TO STDOUT") as copy:
        print(list(copy.rows()))
    with c.cursor(name="named") as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT id FROM t WHERE id < %s ORDER BY id", (50,))
        print(sum(row[0] for row in cursor))
    c.commit()
    print(list(c.cursor().stream("SELECT id FROM t WHERE id < 3 ORDER BY 1")))
    c.rollback()
    xid = c.xid(1, "gtrid", "bqual")
    c.tpc_begin(xid); c.execute("INSERT INTO t VALUES (300)"); c.tpc_prepare(); c.tpc_commit()
    c.tpc_begin(xid); c.execute("INSERT INTO t VALUES (301)"); c.tpc_prepare(); c.tpc_rollback()
    c.autocommit = True
    c.execute("INSERT INTO t VALUES (400)")
    try:
        c.execute("INSERT INTO t VALUES (400)")
    except psycopg.errors.UniqueViolation:
        print(c.info.transaction_status.name)
print(c.closed)
`,
    )
    expect(printed.split('\n')).toEqual([
      'unique INTRANS',
      'wrong INERROR',
      "[('1', 'a')]",
      '190',
      '[(0,), (1,), (2,)]',
      'IDLE',
      'True',
    ])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe(`${Array.from({ length: 20 }, (_, i) => i).join()},100,300,400`)
  })

  test('psycopg 3: pipelines, with errors in the middle', async () => {
    const open = await openGate(table)
    const printed = await runPython(
      open,
      `
import logging, psycopg
# Where an error is ignored, and therefore told, depends on how fast the answers come.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)
with psycopg.connect(dsn, autocommit=True) as c:
    with c.pipeline():
        cursors = [c.execute("INSERT INTO t VALUES (%s) RETURNING id", (i,)) for i in range(1000)]
    print(sum(cursor.fetchone()[0] for cursor in cursors))
    try:
        with c.pipeline() as p:
            a = c.execute("INSERT INTO t VALUES (2000)")
            p.sync()
            b = c.execute("INSERT INTO t VALUES (0)")
            d = c.execute("INSERT INTO t VALUES (2001)")
            p.sync()
            e = c.execute("INSERT INTO t VALUES (2002)")
    except psycopg.Error as error:
        print(type(error).__name__, c.info.transaction_status.name)
    with c.pipeline(), c.transaction():
        c.cursor().executemany("INSERT INTO t VALUES (%s)", [(i,) for i in range(3000, 3100)])
    try:
        with c.pipeline(), c.transaction():
            c.execute("INSERT INTO t VALUES (4000)")
            c.execute("INSERT INTO t VALUES (0)")
            c.execute("INSERT INTO t VALUES (4001)")
    except psycopg.Error as error:
        print(type(error).__name__, c.info.transaction_status.name)
    print(c.execute("SELECT count(*), max(id) FROM t").fetchone())
`,
    )
    expect(printed.split('\n')).toEqual(['499500', 'UniqueViolation IDLE', 'UniqueViolation IDLE', '(1101, 3099)'])
    await open.finish('COMMIT')
    expect(await open.read('SELECT count(*)::int AS n FROM t')).toBe(1101)
  })

  test('psycopg 3 and libpq: a COPY that is refused, cancelled or in a pipeline', async () => {
    const open = await openGate(`${table}; CREATE VIEW v AS SELECT id + 1 AS id FROM t`)
    const printed = await runPython(
      open,
      `
import psycopg
from psycopg import pq
def copy(c, target, rows=(1, 2), cancel=False):
    try:
        with c.cursor().copy(f"COPY {target} FROM STDIN") as copy:
            if cancel:
                c.cancel()
            for row in rows:
                copy.write_row([row])
    except psycopg.Error as error:
        return type(error).__name__
    return "copied"
def results(pgconn):
    while (result := pgconn.get_result()) is not None:
        yield pq.ExecStatus(result.status).name
        if result.status == pq.ExecStatus.COPY_IN:
            try:
                pgconn.put_copy_data(b"7\\n")
                pgconn.put_copy_end()
            except psycopg.Error:
                return
with psycopg.connect(dsn, autocommit=True) as c:
    print([copy(c, target) for target in ["v", "nothing", "t (id)", "v"]], c.info.transaction_status.name)
    print(copy(c, "t (id)", [3], cancel=True), c.execute("SELECT count(*) FROM t").fetchone())
    for target in [b"v", b"nothing", b"t (id)"]:
        c.pgconn.send_query_params(b"COPY " + target + b" FROM STDIN", None)
        print(list(results(c.pgconn)), c.execute("SELECT count(*) FROM t").fetchone())
with psycopg.connect(dsn) as c:
    with c.transaction():
        print(copy(c, "t (id)", [8]))
        try:
            with c.transaction():
                with c.cursor().copy("COPY v FROM STDIN") as data:
                    data.write_row([8])
        except psycopg.Error as error:
            print(type(error).__name__)
        print(copy(c, "t (id)", [9]))
with psycopg.connect(dsn, autocommit=True) as c:
    c.execute("BEGIN; INSERT INTO t VALUES (20)")
    c.pgconn.enter_pipeline_mode()
    for sql in [b"INSERT INTO t VALUES (21)", b"COPY t (id) FROM STDIN", b"INSERT INTO t VALUES (22)"]:
        c.pgconn.send_query_params(sql, None)
    c.pgconn.pipeline_sync()
    print(c.pgconn.status == pq.ConnStatus.OK)
    c.pgconn.finish()
`,
    )
    expect(printed.split('\n')).toEqual([
      "['WrongObjectType', 'UndefinedTable', 'copied', 'WrongObjectType'] IDLE",
      'QueryCanceled (2,)',
      "['COPY_IN', 'FATAL_ERROR'] (2,)",
      "['FATAL_ERROR'] (2,)",
      "['COPY_IN', 'COMMAND_OK'] (3,)",
      'copied',
      'WrongObjectType',
      'copied',
      'True',
    ])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,2,7,8,9')
  })

  test('psycopg2: transactions, COPY, named cursors, large objects, two-phase commit, encodings', async () => {
    const open = await openGate(table)
    const printed = await runPython(
      open,
      `
import io, psycopg2, psycopg2.extensions
c = psycopg2.connect(dsn, options="-c search_path=public -c statement_timeout=40s")
k = c.cursor()
k.execute("SHOW statement_timeout"); print(k.fetchone())
k.execute("INSERT INTO t VALUES (1, %s)", ("it's",)); c.commit()
k.copy_from(io.StringIO("2\\ttwo\\n3\\tthree\\n"), "t"); c.commit()
try:
    k.copy_expert("COPY t FROM STDIN", io.StringIO("wrong"))
except psycopg2.errors.InvalidTextRepresentation:
    print(c.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_INERROR)
c.rollback()
out = io.StringIO(); k.copy_expert("COPY (SELECT id FROM t ORDER BY 1) TO STDOUT", out); print(out.getvalue().split())
named = c.cursor("named"); named.itersize = 2
named.execute("SELECT id FROM t ORDER BY 1"); print([row[0] for row in named]); c.commit()
named = c.cursor("named"); named.execute("SELECT 1"); c.commit()
large = c.lobject(0, "wb"); large.write(b"x" * 100000); oid = large.oid; large.close(); c.commit()
print(len(c.lobject(oid, "rb").read())); c.commit()
try:
    c.lobject(1, "rb")
except psycopg2.OperationalError as error:
    print("no such large object")
c.rollback()
x = c.xid(1, "gtrid", "bqual")
c.tpc_begin(x); k.execute("INSERT INTO t VALUES (4)"); c.tpc_prepare(); c.tpc_commit()
c.tpc_begin(x); k.execute("INSERT INTO t VALUES (5)"); c.tpc_prepare(); c.tpc_rollback()
c.set_session(isolation_level="SERIALIZABLE", autocommit=False)
k.execute("INSERT INTO t VALUES (6)"); c.rollback()
c.set_client_encoding("LATIN1")
k.execute("INSERT INTO t VALUES (7, 'caf\\u00e9'); INSERT INTO t VALUES (8, '\\u00fc')"); c.commit()
k.execute("SELECT name FROM t WHERE id > 6 ORDER BY id"); print(ascii(k.fetchall()))
c.close()
`,
    )
    expect(printed.split('\n')).toEqual([
      "('40s',)",
      'True',
      "['1', '2', '3']",
      '[1, 2, 3]',
      '100000',
      'no such large object',
      "[('caf\\xe9',), ('\\xfc',)]",
    ])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,2,3,4,7,8')
  })

  test('SQLAlchemy: a second connection inside the first one’s transaction, and two-phase commit', async () => {
    const open = await openGate(table)
    const printed = await runPython(
      open,
      `
import sqlalchemy as sa
url = sa.URL.create("postgresql+psycopg", address["user"], address["password"], address["host"], address["port"], address["database"])
engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
with engine.begin() as outer:
    outer.execute(sa.text("INSERT INTO t VALUES (1)"))
    with engine.begin() as inner:
        inner.execute(sa.text("INSERT INTO t VALUES (2)"))
    print(outer.execute(sa.text("SELECT count(*) FROM t")).scalar())
    print(sa.inspect(engine).get_table_names())
    with outer.begin_nested() as nested:
        outer.execute(sa.text("INSERT INTO t VALUES (3)"))
        nested.rollback()
with engine.connect() as c:
    for id, end in ((4, "commit"), (5, "rollback")):
        transaction = c.begin_twophase()
        c.execute(sa.text(f"INSERT INTO t VALUES ({id})"))
        transaction.prepare()
        getattr(transaction, end)()
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
    c.execute(sa.text("INSERT INTO t VALUES (6)"))
`,
    )
    expect(printed.split('\n')).toEqual(['2', "['t']"])
    await open.finish('COMMIT')
    expect(await open.read(ids)).toBe('1,2,4,6')
  })
})

test('the tape has the statements, their parameters, and how they ended', async () => {
  const open = await openGate(table)
  const client = await open.connect()
  open.tape.revision = 'abc'
  await client.query('INSERT INTO t VALUES ($1, $2)', [1, 'one'])
  await client.query('SELECT 1/0').catch(() => {})
  const entries = open.tape.entries.map(({ revision, sql, parameters, tag, error }) => [
    revision,
    sql,
    parameters,
    tag,
    error?.code,
  ])
  expect(entries).toEqual([
    ['abc', 'INSERT INTO t VALUES ($1, $2)', ['1', 'one'], 'INSERT 0 1', undefined],
    ['abc', 'SELECT 1/0', [], null, '22012'],
  ])
  await open.finish('ROLLBACK')
})
