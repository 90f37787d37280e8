import pg from 'pg'
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { createDatabase, seedProject, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'

/** The key of the deploy lock, as docs and other tools may know it. */
const lockKey = 0x61746f6d6963

const [first, second] = ['dd7c69423ad9', '5a77262c502b']

/** Databases at the first two revisions of the seed. */
let atFirst: string
let atSecond: string
let url: string
let other: pg.Client

beforeAll(async () => {
  atFirst = await createDatabase()
  await start(seedProject, atFirst, { mode: 'apply', revision: first! })
  atSecond = await createDatabase(atFirst)
  const step = await start(seedProject, atSecond, { mode: 'apply', revision: second! })
  expect(step.outputs.outcome, step.log).toBe('applied')
})
beforeEach(() => begin())
afterEach(() => other.end())

/** Goes on with another database, and somebody else who is connected to it. */
async function begin(template?: string): Promise<void> {
  url = await createDatabase(template)
  other = new pg.Client({ connectionString: url, application_name: 'somebody else' })
  other.on('error', () => {})
  await other.connect()
}

/** Waits until the step asks for the deploy lock. */
async function waiting(): Promise<void> {
  const asks = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_try_advisory_xact_lock%'
    AND pid <> pg_backend_pid()`
  while ((await query(url, asks)).rowCount === 0) await new Promise(resolve => setTimeout(resolve, 50))
}

test('a table that somebody else has locked: lock-timeout, the database as before', async () => {
  await other.end()
  await begin(atSecond)
  const before = await contents(url)
  await other.query('BEGIN; LOCK TABLE orders')
  const step = await start(seedProject, url, { mode: 'apply', 'lock-timeout': '2s', retries: '1' })
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'rolled-back',
    'failure-reason': 'lock-timeout',
    'prior-head': '5a77262c502b',
    'new-head': '5a77262c502b',
  })
  expect(step.log).toMatch(/55P03/)
  expect(step.commands.find(({ name }) => name === 'error')?.text).toMatch(
    /It waited for somebody else \(pid \d+, .*LOCK TABLE orders/,
  )
  expect(step.log).toContain('Try 1 of 2 was rolled back')
  await other.query('ROLLBACK')
  expect(await contents(url)).toBe(before)
})

test('another deploy is waited for, by name; when it has gone, the step goes on', async () => {
  await other.query(`BEGIN; SELECT pg_advisory_xact_lock(${lockKey})`)
  const running = start(seedProject, url, { mode: 'apply', revision: 'dd7c69423ad9' })
  await waiting()
  await new Promise(resolve => setTimeout(resolve, 500))
  await other.query('COMMIT')
  const step = await running
  expect(step.outputs.outcome, step.log).toBe('applied')
  expect(step.log).toMatch(/Waiting for another deploy of this database: somebody else \(pid \d+, since /)
})

test('cancelled while it waits for another deploy: nothing ran', async () => {
  await other.query(`BEGIN; SELECT pg_advisory_xact_lock(${lockKey})`)
  let pid = 0
  const running = start(seedProject, url, { mode: 'apply' }, { started: child => (pid = child) })
  await waiting()
  process.kill(pid, 'SIGINT')
  const step = await running
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'cancelled', 'new-head': '' })
  expect(step.exitCode).toBe(1)
  await other.query('ROLLBACK')
  expect(await leftovers(url)).toEqual(['session idle'])
})

test('a table that is free again by the second try: applied, and the log says who was in the way', async () => {
  await other.end()
  await begin(atFirst)
  await other.query('BEGIN; LOCK TABLE customers')
  const inputs = { mode: 'apply', revision: '5a77262c502b', 'lock-timeout': '2s' }
  const step = await start(seedProject, url, inputs, { output: onceTriedAgain('ROLLBACK') })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': '5a77262c502b' })
  expect(step.log).toMatch(
    /Waiting for a lock that is held by somebody else \(pid \d+, user postgres, in a transaction/,
  )
  expect(step.log).toMatch(/Try 1 of 4 was rolled back: .*did not get a lock/)
  expect((await query(url, 'SELECT FROM orders')).rowCount).toBe(2)
})

test('the heads are read again before a second try', async () => {
  await other.end()
  await begin(atSecond)
  await other.query('BEGIN; LOCK TABLE orders')
  const inputs = { mode: 'apply', 'lock-timeout': '300ms' }
  const moved = onceTriedAgain("UPDATE alembic_version SET version_num = 'dd7c69423ad9'; COMMIT")
  const step = await start(seedProject, url, inputs, { output: moved })
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'refused',
    'failure-reason': 'drift',
    'new-head': 'dd7c69423ad9',
  })
})

test.each([
  ['a deadlock', '40P01', { outcome: 'applied', 'failure-reason': '' }, 3],
  ['a serialization failure', '40001', { outcome: 'applied', 'failure-reason': '' }, 3],
  ['any other error', '23505', { outcome: 'rolled-back', 'failure-reason': 'migration-failed' }, 1],
])('%s: tried as often as it may help', async (_, code, outputs, tries) => {
  // A sequence is what a rollback leaves as it is.
  await query(url, 'CREATE SEQUENCE tries')
  const raise = `RAISE EXCEPTION 'not yet' USING ERRCODE = '${code}'`
  const project = writeProject({
    scripts: [{ id: 'a1', upgrade: `op.execute("DO $$ BEGIN IF nextval('tries') < 3 THEN ${raise}; END IF; END $$")` }],
  })
  const step = await start(project, url, { mode: 'apply' })
  expect(step.outputs, step.log).toMatchObject(outputs)
  expect((await query(url, 'SELECT last_value::int FROM tries')).rows).toEqual([{ last_value: tries }])
})

/** Lets the other session do something once the log says that the batch will be tried again. */
function onceTriedAgain(sql: string): (text: string) => void {
  let done = false
  return text => {
    if (done || !text.includes('tried again in')) return
    done = true
    void other.query(sql)
  }
}
