import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, inject, test } from 'vitest'
import { createDatabase, secondProject, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'
import { type Pooler, startPooler } from './pgbouncer.mts'

let pooler: Pooler
let url: string
/** A session of somebody else's, on the same one server connection. */
let pooled: pg.Client

beforeAll(async () => {
  pooler = await startPooler(inject('postgres'))
})
afterAll(() => pooler.stop())
beforeEach(async () => {
  url = await createDatabase()
})

const serverProcesses = async () =>
  (
    await query(
      url,
      `SELECT pid, state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`,
    )
  ).rows

/** Everything that a session can leave on its server connection, as the next client of the pooler meets it. */
const session = `SELECT current_user, current_setting('search_path') AS path, current_setting('statement_timeout') AS timeout,
  current_setting('lock_timeout') AS lock, nullif(current_setting('my.word', true), '') AS word,
  ARRAY(SELECT name FROM pg_prepared_statements) AS prepared, ARRAY(SELECT pg_listening_channels()) AS listens,
  ARRAY(SELECT name FROM pg_cursors WHERE is_holdable) AS cursors,
  ARRAY(SELECT relname::text FROM pg_class WHERE relpersistence = 't') AS temporary,
  (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks, pg_backend_pid() AS pid`

test('applied through the pooler as without it', async () => {
  const step = await start(secondProject, pooler.through(url), { mode: 'apply' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'b7e0aa41d9c3' })
  const direct = await createDatabase()
  await start(secondProject, direct, { mode: 'apply' })
  expect(await contents(url)).toBe(await contents(direct))
})

test('what scripts set, prepare, lock or listen to does not stay on the pooled connection', async () => {
  pooled = new pg.Client({ connectionString: pooler.through(url) })
  await pooled.connect()
  const before = (await pooled.query(session)).rows[0]
  const scripts = [
    {
      id: 'a1',
      upgrade: `
for sql in ["CREATE SCHEMA other", "CREATE TABLE t (id int)", "SET search_path = other", "SET statement_timeout = '77s'",
            "SET lock_timeout = '7s'", "SET my.word = 'said'", "PREPARE p AS SELECT 1", "LISTEN c",
            "DECLARE cur CURSOR WITH HOLD FOR SELECT 1", "CREATE TEMPORARY TABLE temp (id int)",
            "SELECT pg_advisory_lock(7)", "SELECT set_config('search_path', 'other', false)"]:
    op.execute(sql)
op.execute("SET search_path = public")`,
    },
  ]
  const step = await start(writeProject({ scripts }), pooler.through(url), { mode: 'apply' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
  expect((await pooled.query(session)).rows[0]).toEqual(before)
  await pooled.end()
})

test('nor after a failure, and the heads are read again', async () => {
  pooled = new pg.Client({ connectionString: pooler.through(url) })
  await pooled.connect()
  const before = (await pooled.query(session)).rows[0]
  const untouched = await contents(url)
  const scripts = [
    {
      id: 'a1',
      upgrade: `op.execute("CREATE TABLE t (id int)")\nop.execute("SET my.word = 'said'")\nop.execute("SELECT 1 / 0")`,
    },
  ]
  const step = await start(writeProject({ scripts }), pooler.through(url), { mode: 'apply' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'migration-failed' })
  expect(step.log).toContain('The database is at base, as before.')
  expect((await pooled.query(session)).rows[0]).toEqual(before)
  await pooled.end()
  expect(await contents(url)).toBe(untouched)
})

test('cancelled in a long statement: rolled back in time, and the statement ends on the server', async () => {
  const before = await contents(url)
  const scripts = [{ id: 'a1', upgrade: 'op.execute("CREATE TABLE t (id int)")\nop.execute("SELECT pg_sleep(600)")' }]
  let pid = 0
  const started = (child: number) => {
    pid = child
  }
  const running = start(writeProject({ scripts }), pooler.through(url), { mode: 'apply' }, { started })
  const sleeping = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(600)%'
    AND state = 'active' AND pid <> pg_backend_pid()`
  while ((await query(url, sleeping)).rowCount === 0) await new Promise(resolve => setTimeout(resolve, 50))
  process.kill(pid, 'SIGINT')
  const step = await running
  expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'cancelled' })
  while ((await query(url, sleeping)).rowCount !== 0) await new Promise(resolve => setTimeout(resolve, 50))
  expect((await serverProcesses()).filter(({ state }) => state !== 'idle')).toEqual([])
  expect(await contents(url)).toBe(before)
})

test('eight applies at once on one server connection: one applied, the others up to date', async () => {
  const through = pooler.through(url)
  const steps = await Promise.all(Array.from({ length: 8 }, () => start(secondProject, through, { mode: 'apply' })))
  expect(steps.map(step => step.outputs.outcome).sort()).toEqual(['applied', ...Array(7).fill('up-to-date')])
  const { rows } = await query(url, 'SELECT count(*)::int AS n, count(DISTINCT email)::int AS d FROM accounts')
  expect(rows).toEqual([{ n: 3, d: 3 }])
})
