import pg from 'pg'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Passing, type StartedProxy, startProxy } from '../faults/proxy.mts'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { type ProjectOptions, writeProject } from '../support/project.mts'

/** Three segments: `a1`, the index of `b2` alone, and the rest. */
const project = (bodies: Record<string, string> = {}, more: Partial<ProjectOptions> = {}) =>
  writeProject({
    scripts: Object.entries({
      a1: `
op.execute("CREATE TABLE t (id int, name text)")
op.execute("INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 50) AS n")`,
      b2: `
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY t_name ON t (name)")`,
      c3: `op.execute("UPDATE t SET name = 'first' WHERE id = 1")`,
      ...bodies,
    }).map(([id, upgrade]) => ({ id, upgrade })),
    ...more,
  })

const inputs = { mode: 'apply', segments: 'true', comment: 'false' }
const applied = ['a1: applied', '!b2: applied', 'b2 c3: applied']

const segmentsIn = (outputs: Record<string, string>) =>
  (JSON.parse(outputs.segments!) as { revisions: string[]; statement?: string; outcome: string }[]).map(
    ({ revisions, statement, outcome }) => `${statement ? '!' : ''}${revisions.join(' ')}: ${outcome}`,
  )

let url: string
let other: pg.Client
let proxy: StartedProxy | undefined

beforeEach(async () => {
  url = await createDatabase()
  other = new pg.Client({ connectionString: url, application_name: 'somebody else' })
  other.on('error', () => {})
  await other.connect()
})
afterEach(async () => {
  proxy?.stop()
  await other.end()
})

async function until(sql: string): Promise<void> {
  while ((await query(url, sql)).rowCount === 0) await new Promise(resolve => setTimeout(resolve, 50))
}

const running = (sql: string) =>
  `SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE
   'atomic-upgrade%' AND state = 'active' AND query LIKE '${sql}%'`

describe('Another session is in the way', () => {
  beforeEach(async () => {
    expect((await start(project(), url, { ...inputs, revision: 'a1' })).outputs.outcome).toBe('applied')
  })

  test('an old transaction while CONCURRENTLY waits: the log says whom it waits for, and it goes on', async () => {
    await other.query("BEGIN; UPDATE t SET name = 'mine' WHERE id = 2")
    const step = start(project(), url, { ...inputs, 'lock-timeout': '60s' })
    await until(`${running('CREATE INDEX')} AND wait_event_type = 'Lock'`)
    await new Promise(resolve => setTimeout(resolve, 2_500))
    await other.query('ROLLBACK')
    const { outputs, log } = await step
    expect(outputs, log).toMatchObject({ outcome: 'applied' })
    expect(log).toMatch(/Waiting for a lock that is held by somebody else \(pid \d+, .*UPDATE t SET name = 'mine'/)
  })

  test('for longer than lock-timeout: the index is left invalid, and the next run builds it', async () => {
    await other.query("BEGIN; UPDATE t SET name = 'mine' WHERE id = 2")
    const step = await start(project(), url, { ...inputs, 'lock-timeout': '1s', retries: '0' })
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'partly-applied',
      'failure-reason': 'lock-timeout',
      'new-head': 'a1',
    })
    expect(segmentsIn(step.outputs)).toEqual(['!b2: failed', 'b2 c3: not-run'])
    expect(step.log).toContain('The index public.t_name was left invalid.')
    await other.query('ROLLBACK')
    const second = await start(project(), url, inputs)
    expect(second.outputs, second.log).toMatchObject({ outcome: 'applied', 'new-head': 'c3' })
  })

  test.each(['heads', '+4'])('in the last segment, on the way to %s: only that one is tried again', async revision => {
    await other.query('BEGIN; SELECT FROM t WHERE id = 1 FOR UPDATE')
    const running3 = `${running('UPDATE t SET')} AND wait_event_type = 'Lock'`
    const more = {
      c3: 'pass',
      d4: `op.execute("ALTER TYPE kind ADD VALUE 'new'")`,
      e5: `op.execute("UPDATE t SET name = 'new'::kind::text WHERE id = 1")`,
    }
    await query(url, "CREATE TYPE kind AS ENUM ('old')")
    const step = start(project(more), url, { ...inputs, revision, 'lock-timeout': '1s' })
    await until(running3)
    await until(`SELECT WHERE NOT EXISTS (${running3})`)
    await other.query('ROLLBACK')
    const { outputs, log } = await step
    expect(outputs, log).toMatchObject({ outcome: 'applied', 'prior-head': 'a1', 'new-head': 'e5' })
    expect(segmentsIn(outputs)).toEqual(['!b2: applied', 'b2 c3 d4: applied', 'e5: applied'])
    expect(log).toContain('The rest of the batch is tried again')
    expect(log.match(/Running outside of a transaction/g)).toHaveLength(1)
  })
})

test('the lock is lost: the run stops before its next COMMIT', async () => {
  const end = `op.execute("""SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database =
    (SELECT oid FROM pg_database WHERE datname = current_database())""")`
  const step = await start(project({ c3: end }), url, inputs)
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'partly-applied',
    'failure-reason': 'connection-failed',
    'new-head': 'a1',
  })
  expect(segmentsIn(step.outputs)).toEqual(['a1: applied', '!b2: applied', 'b2 c3: rolled-back'])
  expect(step.log).toMatch(
    /The connection that holds the deploy lock was lost: terminating connection .*pg_terminate_backend/s,
  )
  const second = await start(project(), url, inputs)
  expect(second.outputs, second.log).toMatchObject({ outcome: 'applied', 'new-head': 'c3' })
})

describe('At a COMMIT between two segments', () => {
  /** Applies through a proxy that acts once, on the first COMMIT or its answer. */
  async function apply(
    direction: Passing['direction'],
    act: (passing: Passing) => void,
    more = {},
    started = (_: number) => {},
  ) {
    let done = false
    proxy = await startProxy(url, passing => {
      if (done || passing.sql !== 'COMMIT' || passing.direction !== direction) return
      done = true
      return act(passing)
    })
    return await start(project(), proxy.through(url), { ...inputs, ...more }, { started })
  }

  test('the answer is lost: it is found committed, and the run goes on behind it', async () => {
    const step = await apply('down', passing => passing.cut())
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'prior-head': '', 'new-head': 'c3' })
    expect(segmentsIn(step.outputs)).toEqual(applied)
    expect(step.log).toContain('The rest of the batch is tried again')
    expect((await leftovers(url)).filter(each => each !== 'session idle')).toEqual([])
  })

  test('the answer is lost, and there is no other try: what is committed is said, and a second run goes on', async () => {
    const step = await apply('down', passing => passing.cut(), { retries: '0' })
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'partly-applied',
      'failure-reason': 'connection-failed',
      'new-head': 'a1',
    })
    expect(segmentsIn(step.outputs)).toEqual(['a1: applied', '!b2: not-run', 'b2 c3: not-run'])
    const second = await start(project(), url, inputs)
    expect(second.outputs, second.log).toMatchObject({ outcome: 'applied', 'prior-head': 'a1' })
  })

  test('it never arrives: rolled back, for nothing stands', async () => {
    const before = await contents(url)
    const step = await apply('up', passing => passing.reset())
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'rolled-back',
      'failure-reason': 'commit-failed',
      'new-head': '',
    })
    expect(segmentsIn(step.outputs)).toEqual(['a1: rolled-back', '!b2: not-run', 'b2 c3: not-run'])
    expect(await contents(url)).toBe(before)
  })

  test('it is cancelled: that COMMIT is finished, and nothing else begun', async () => {
    let pid = 0
    const step = await apply(
      'down',
      passing => {
        process.kill(pid, 'SIGINT')
        passing.hold(new Promise(resolve => setTimeout(resolve, 500)))
      },
      {},
      child => (pid = child),
    )
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'partly-applied',
      'failure-reason': 'cancelled',
      'new-head': 'a1',
    })
    expect(segmentsIn(step.outputs)).toEqual(['a1: applied', '!b2: not-run', 'b2 c3: not-run'])
    expect(await contents(url)).not.toContain('t_name')
  })
})

describe('Where a transaction does not end', () => {
  test('at an autocommit_block or a COMMIT that PostgreSQL does not need: all is rolled back', async () => {
    const before = await contents(url)
    const step = await start(
      project({
        b2: `
with op.get_context().autocommit_block():
    op.execute("ANALYZE t")`,
        c3: 'op.execute("COMMIT")',
        d4: 'op.execute("SELECT 1 / 0")',
      }),
      url,
      inputs,
    )
    expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'new-head': '' })
    expect(segmentsIn(step.outputs)).toEqual(['a1 b2 c3 d4: rolled-back'])
    expect(await contents(url)).toBe(before)
  })

  test('under a savepoint of env.py: it is refused there, and the database is as before', async () => {
    await query(url, "CREATE TYPE kind AS ENUM ('old')")
    const before = await contents(url)
    const more = {
      b2: `op.execute("ALTER TYPE kind ADD VALUE 'new'")`,
      c3: `op.execute("CREATE TABLE k AS SELECT 'new'::kind AS kind")`,
    }
    const nested = (stock: string) =>
      stock.replace(
        /^( +)with context\.begin_transaction\(\):\n +context\.run_migrations\(\)(?![\s\S]*run_migrations\(\))/m,
        '$1with connection.begin(), connection.begin_nested():\n$1    context.run_migrations()',
      )
    const step = await start(project(more, { env: nested }), url, inputs)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'not-transactional' })
    expect(step.log).toContain('it cannot: a connection has a savepoint open.')
    expect(await contents(url)).toBe(before)
  })
})

test('a statement that nobody could see beforehand: a segment of its own all the same', async () => {
  const unseen = `
kinds = {row[0] for row in op.get_bind().execute(sa.text("SELECT 'CONCURRENTLY'"))}
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX %s t_name ON t (name)" % kinds.pop())`
  const step = await start(project({ b2: unseen }), url, inputs)
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'c3' })
  expect(segmentsIn(step.outputs)).toEqual(applied)
})
