import { describe, expect, onTestFinished, test } from 'vitest'
import { query } from '../support/postgres.mts'
import { openGate } from './gate.mts'

/** What each connection to a server has for itself, and connections through the gate share. */

const tables = 'CREATE TABLE t (id int PRIMARY KEY, v int DEFAULT 0); CREATE TABLE u (id int PRIMARY KEY)'
const rows = "SELECT string_agg(id || ':' || v, ',' ORDER BY id) AS rows FROM t"

/** Three clients of a gate on a database with two tables, and why the batch has failed at last. */
async function three(prepare = '', options = {}) {
  const open = await openGate(`${tables}; ${prepare}`, options)
  const [one, two, other] = [await open.raw(), await open.raw(), await open.raw()]
  const why = async () => {
    await open.gate.close()
    return String(open.gate.failure ?? open.gate.doom ?? open.gate.lost)
  }
  return { open, one, two, other, why }
}

describe('cursors', () => {
  test('one whose DECLARE has failed is not there', async () => {
    const { open, one, two } = await three()
    await two.query('BEGIN; DECLARE c CURSOR FOR SELECT 1')
    await one.query('BEGIN; INSERT INTO t VALUES (1)')
    expect(await two.query('DECLARE c CURSOR FOR SELECT 2')).toEqual(['E 42P03', 'Z E'])
    expect(await one.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    await two.query('ROLLBACK; INSERT INTO u VALUES (1)')
    await open.finish('COMMIT')
    expect(await open.read('SELECT count(*)::int FROM u')).toBe(1)
  })

  test('one that is open beside the failure of another client stays', async () => {
    const { open, one, two } = await three('INSERT INTO t VALUES (1)')
    await one.query('BEGIN; SAVEPOINT s; INSERT INTO u VALUES (1)')
    await two.query('BEGIN; DECLARE c CURSOR FOR SELECT id FROM t')
    expect(await one.query('SELECT 1 / 0')).toEqual(['E 22012', 'Z E'])
    expect(await two.query('FETCH c; COMMIT')).toEqual(['T', 'D 1', 'C FETCH 1', 'C COMMIT', 'Z I'])
    expect(await one.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    await open.finish('COMMIT')
    expect(await open.read('SELECT count(*)::int FROM u')).toBe(0)
  })

  test('one that was declared behind a savepoint goes with it, also where nothing was written', async () => {
    const { open, one, two } = await three()
    await two.query('BEGIN; DECLARE a CURSOR FOR SELECT 1; SAVEPOINT s; DECLARE b CURSOR FOR SELECT 2')
    await one.query('BEGIN; INSERT INTO t VALUES (1)')
    expect(await two.query('FETCH b; ROLLBACK TO s; FETCH a')).toEqual([
      ...['T', 'D 2', 'C FETCH 1', 'C ROLLBACK', 'T', 'D 1', 'C FETCH 1', 'Z T'],
    ])
    expect(await two.query('SAVEPOINT s; FETCH b')).toEqual(['C SAVEPOINT', 'E 34000', 'Z E'])
    expect(await two.query('ROLLBACK TO s; DECLARE b CURSOR FOR SELECT 3; FETCH b')).toEqual([
      ...['C ROLLBACK', 'C DECLARE CURSOR', 'T', 'D 3', 'C FETCH 1', 'Z T'],
    ])
    expect(await two.query('ROLLBACK TO s')).toEqual(['C ROLLBACK', 'Z T'])
    expect(await one.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
    await open.finish('COMMIT')
  })
})

test('a SET is undone by the ROLLBACK of its transaction, also when others have spoken in the meantime', async () => {
  const { open, one, two } = await three()
  await one.query("SET work_mem = '1MB'; BEGIN; SET work_mem = '2MB'; SAVEPOINT s; SET work_mem = '3MB'")
  await two.query('INSERT INTO t VALUES (1)')
  expect(await one.query('SHOW work_mem')).toContain('D 3MB')
  await two.query('INSERT INTO t VALUES (2)')
  expect(await one.query('ROLLBACK TO s; SHOW work_mem')).toContain('D 2MB')
  await two.query('INSERT INTO t VALUES (3)')
  expect(await one.query('ROLLBACK; SHOW work_mem')).toContain('D 1MB')
  await one.query("BEGIN; SET work_mem = '4MB'")
  await two.query('INSERT INTO t VALUES (4)')
  expect(await one.query('COMMIT; SHOW work_mem')).toContain('D 4MB')
  await open.finish('ROLLBACK')
})

describe('rows that are not committed', () => {
  test('are not read by their place either', async () => {
    for (const read of [
      "SELECT * FROM t WHERE ctid = '(0,2)'",
      "INSERT INTO u SELECT id FROM t WHERE ctid = '(0,2)'",
      "UPDATE t SET v = 2 WHERE ctid = '(0,1)'",
    ]) {
      const { one, two, why } = await three('INSERT INTO t VALUES (1)')
      await one.query('BEGIN; INSERT INTO t VALUES (2); UPDATE t SET v = 1 WHERE id = 1')
      expect((await two.query(read)).at(-1), read).toBe('closed')
      expect(await why()).toMatch(/rows of t that “INSERT INTO t VALUES \(2\)”/)
    }
  })

  test('are in nobody’s way who writes beside them', async () => {
    const { open, one, two } = await three()
    await one.query('BEGIN; INSERT INTO t VALUES (1)')
    expect(await two.query('BEGIN; INSERT INTO t VALUES (2); SELECT * FROM t WHERE false; COMMIT')).toEqual([
      ...['C BEGIN', 'C INSERT 0 1', 'T', 'C SELECT 0', 'C COMMIT', 'Z I'],
    ])
    await one.query('COMMIT')
    await open.finish('COMMIT')
    expect(await open.read(rows)).toBe('1:0,2:0')
  })
})

test('what one has committed is not taken for what another one has open that only locks', async () => {
  const { open, one, two } = await three('INSERT INTO t VALUES (1)')
  await one.query('BEGIN; SELECT * FROM u FOR UPDATE; SELECT pg_current_xact_id()')
  await one.query('LOCK TABLE u')
  await two.query('BEGIN; UPDATE t SET v = 1')
  await two.query('COMMIT')
  expect(await two.query('SELECT v FROM t')).toContain('D 1')
  await open.finish('COMMIT')
})

describe('track_counts, without which nothing tells who reads what', () => {
  const before = 'SET track_counts = off'

  test('is on where we may set it', async () => {
    const { one, two, why } = await three('', { before })
    await one.query('BEGIN; INSERT INTO t VALUES (1)')
    expect((await two.query('SELECT * FROM t')).at(-1)).toBe('closed')
    expect(await why()).toMatch(/rows of t that “INSERT INTO t VALUES \(1\)”/)
  })

  test('off, a second connection speaks only while the first one has written nothing', async () => {
    const role = `plain_${process.pid}`
    const prepare = `CREATE ROLE ${role} LOGIN PASSWORD '${role}'; GRANT ALL ON t, u TO ${role};
      DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET track_counts = off', current_database()); END $$`
    const { open, one, two, why } = await three(prepare, { role })
    onTestFinished(() => void query(open.url, `DROP OWNED BY ${role}; DROP ROLE ${role}`))
    await one.query('BEGIN; SELECT count(*) FROM t')
    expect(await two.query('INSERT INTO u VALUES (1)')).toEqual(['C INSERT 0 1', 'Z I'])
    await one.query('INSERT INTO t VALUES (1)')
    expect((await two.query('SELECT 1')).at(-1)).toBe('closed')
    expect(await why()).toMatch(/“SELECT 1” .* “INSERT INTO t VALUES \(1\)” .* track_counts/)
  })

  test('set off by a script, on either side', async () => {
    for (const side of [0, 1]) {
      const { one, two, why } = await three()
      await [one, two][side]!.query(before)
      await one.query('BEGIN; INSERT INTO t VALUES (1)')
      expect((await two.query('SELECT * FROM t')).at(-1)).toBe('closed')
      expect(await why()).toMatch(/track_counts/)
    }
  })
})

describe('a snapshot', () => {
  const begins = [
    ['BEGIN ISOLATION LEVEL REPEATABLE READ'],
    ['START TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE'],
    ["SET default_transaction_isolation = 'repeatable read'", 'BEGIN'],
    ['SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE', 'BEGIN'],
  ]

  test('is not older than what is read: what others have committed since then ends the batch', async () => {
    for (const begin of begins) {
      const { one, two, why } = await three()
      for (const sql of begin) await one.query(sql)
      await one.query('SELECT count(*) FROM u')
      await two.query('INSERT INTO t VALUES (1)')
      expect((await one.query('SELECT count(*) FROM t')).at(-1), begin.join()).toBe('closed')
      expect(await why()).toMatch(/“SELECT count\(\*\) FROM t” .* rows of t, .* snapshot/)
    }
  })

  test('is nobody’s concern otherwise', async () => {
    for (const begin of begins) {
      const { open, one, two } = await three('INSERT INTO t VALUES (1)')
      for (const sql of begin) await one.query(sql)
      // It is taken by the first statement.
      await two.query('INSERT INTO t VALUES (2)')
      expect(await one.query('SELECT count(*) FROM t')).toContain('D 2')
      await two.query('INSERT INTO u VALUES (1); SELECT count(*) FROM u')
      expect(await one.query('SELECT count(*) FROM t')).toContain('D 2')
      expect(await one.query('INSERT INTO t VALUES (3); SELECT count(*) FROM t')).toContain('D 3')
      await two.query('INSERT INTO u VALUES (2)')
      expect(await one.query('SELECT count(*) FROM t')).toContain('D 3')
      await one.query('COMMIT; BEGIN ISOLATION LEVEL READ COMMITTED; SELECT 1')
      await two.query('INSERT INTO t VALUES (4)')
      expect(await one.query('SELECT count(*) FROM t; COMMIT')).toContain('D 4')
      await open.finish('COMMIT')
    }
  })
})

describe('locks', () => {
  test('what another has locked is not taken by SKIP LOCKED and NOWAIT', async () => {
    for (const how of ['SKIP LOCKED', 'NOWAIT']) {
      const { one, two, why } = await three('INSERT INTO t VALUES (1), (2)')
      await one.query('BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE')
      expect((await two.query(`SELECT id FROM t LIMIT 1 FOR UPDATE ${how}`)).at(-1)).toBe('closed')
      expect(await why()).toMatch(
        /“SELECT id FROM t LIMIT 1 FOR UPDATE .* rows .*locked.* “SELECT \* FROM t WHERE id = 1/,
      )
    }
  })

  test('SKIP LOCKED goes on beside locks of other tables, and of transactions that have ended', async () => {
    const { open, one, two } = await three('INSERT INTO t VALUES (1), (2); INSERT INTO u VALUES (1)')
    await one.query('BEGIN; SELECT * FROM u FOR UPDATE')
    expect(await two.query('SELECT id FROM t LIMIT 1 FOR UPDATE SKIP LOCKED')).toContain('D 1')
    await one.query('COMMIT')
    expect(await two.query('SELECT id FROM u FOR UPDATE NOWAIT')).toContain('D 1')
    await open.finish('COMMIT')
  })

  test('an advisory lock is not given to two', async () => {
    for (const [take, ask] of [
      ['SELECT pg_advisory_lock(7)', 'SELECT pg_try_advisory_lock(7)'],
      ['BEGIN; SELECT pg_advisory_xact_lock(7)', 'SELECT pg_try_advisory_xact_lock(7)'],
      ['SELECT pg_try_advisory_lock_shared(7)', 'SELECT pg_try_advisory_lock(7)'],
      ['SELECT pg_advisory_lock(7)', 'SELECT pg_advisory_lock(7)'],
      ['SELECT pg_advisory_lock(7)', 'SELECT pg_advisory_unlock(7)'],
      ['SELECT pg_advisory_lock(7)', 'SELECT pg_advisory_unlock_all()'],
    ]) {
      const { one, two, why } = await three()
      await one.query(take!)
      expect((await two.query(ask!)).at(-1), ask).toBe('closed')
      expect(await why()).toMatch(/advisory lock/)
    }
  })

  test('advisory locks of several keys, taken and given back', async () => {
    const { one, two, why } = await three()
    for (const [client, sql, answer] of [
      [one, 'SELECT pg_try_advisory_lock(7)', 'D t'],
      [one, 'SELECT pg_try_advisory_lock(7)', 'D t'],
      [two, 'SELECT pg_try_advisory_lock(8)', 'D t'],
      [one, 'SELECT pg_advisory_unlock(7)', 'D t'],
      [one, 'SELECT pg_advisory_unlock(7)', 'D t'],
      [two, 'SELECT pg_try_advisory_lock(7)', 'D t'],
      [two, 'SELECT pg_advisory_unlock(7), pg_advisory_unlock(8)', 'D t|t'],
      [one, 'SELECT pg_try_advisory_lock(8)', 'D t'],
    ] as const) {
      expect(await client.query(sql), sql).toContain(answer)
    }
    // One that a transaction has given back is free for the others, and kept from them again.
    await one.query('BEGIN; SELECT pg_advisory_xact_lock(9); COMMIT')
    expect(await two.query('BEGIN; SELECT pg_try_advisory_xact_lock(9)')).toContain('D t')
    expect((await one.query('SELECT pg_try_advisory_xact_lock(9)')).at(-1)).toBe('closed')
    expect(await why()).toMatch(/advisory lock/)
  })
})
