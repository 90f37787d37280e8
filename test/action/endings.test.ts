import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { type ProjectOptions, writeProject } from '../support/project.mts'

/** How a batch can end other than by a failing statement: each leaves the database as it was, and says why. More: situations.test.ts. */
const endings: Record<string, { reason: string; words: RegExp; script: string } & Partial<ProjectOptions>> = {
  'a deferred constraint, violated in the last revision': {
    reason: 'migration-failed',
    words: /violates foreign key constraint "pair_other_fkey"/,
    script: `
op.execute("CREATE TABLE pair (id int PRIMARY KEY, other int REFERENCES pair DEFERRABLE INITIALLY DEFERRED)")
op.execute("INSERT INTO pair VALUES (1, 2)")`,
  },
  'Python ending without a word': {
    reason: 'migration-failed',
    words: /ended with exit code 0/,
    script: 'op.execute("CREATE TABLE t (id int)")\nimport os\nif not op.get_context().as_sql:\n    os._exit(0)',
  },
  'sys.exit in a script': {
    reason: 'migration-failed',
    words: /SystemExit/,
    script: 'op.execute("CREATE TABLE t (id int)")\nimport sys\nsys.exit(0)',
  },
  'an env.py that does not commit': {
    reason: 'migration-failed',
    words: /the heads are a1 and not b2/,
    script: 'op.execute("CREATE TABLE t (id int)")',
    env: stock =>
      stock.replace(
        /with context\.begin_transaction\(\):\n( +)context\.run_migrations\(\)\n\n\nif/,
        'transaction = connection.begin()\n        context.run_migrations()\n        transaction.rollback()\n\n\nif',
      ),
  },
  'a statement that PostgreSQL forbids in a transaction': {
    reason: 'not-transactional',
    words: /25001.*CREATE INDEX CONCURRENTLY/s,
    script:
      'op.get_bind().execute(sa.text("SELECT 1")).scalar()\nwith op.get_context().autocommit_block():\n    op.execute("CREATE INDEX CONCURRENTLY i ON first (id)")',
  },
}

describe('The database is as it was after', () => {
  for (const [name, { reason, words, script, ...options }] of Object.entries(endings)) {
    test(name, async () => {
      const url = await createDatabase()
      await query(
        url,
        `CREATE TABLE first (id int); CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
         INSERT INTO alembic_version VALUES ('a1')`,
      )
      const first = { id: 'a1', upgrade: 'op.execute("CREATE TABLE first (id int)")' }
      const before = await contents(url)
      const project = writeProject({ ...options, scripts: [first, { id: 'b2', upgrade: script }] })
      const step = await start(project, url, { mode: 'apply' })
      expect(step.outputs, step.log).toMatchObject({
        outcome: 'rolled-back',
        'failure-reason': reason,
        'prior-head': 'a1',
        'new-head': 'a1',
      })
      expect(step.exitCode).toBe(1)
      const errors = step.commands.filter(each => each.name === 'error')
      expect(errors).toHaveLength(1)
      expect(errors[0]!.text).toMatch(words)
      expect(errors[0]!.text).toContain('The database is at a1, as before.')
      expect(await contents(url)).toBe(before)
      expect(await leftovers(url)).toEqual([])
    })
  }
})

test('a deferred constraint violated in an earlier revision is blamed on that one, where revisions commit by themselves', async () => {
  const url = await createDatabase()
  const project = writeProject({
    migrate: 'transaction_per_migration=True',
    scripts: [
      { id: 'a1', upgrade: endings['a deferred constraint, violated in the last revision']!.script },
      { id: 'b2', upgrade: 'op.execute("CREATE TABLE t (id int)")' },
    ],
  })
  const step = await start(project, url, { mode: 'apply' })
  expect(step.outputs).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'migration-failed' })
  expect(step.log).toMatch(/Revision a1 .*violates foreign key constraint/)
  expect(step.log).not.toContain('✓')
})

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  test(`cancelled by ${signal} in the middle of a statement: the statement is cancelled and everything rolled back`, async () => {
    const url = await createDatabase()
    const before = await contents(url)
    const project = writeProject({
      scripts: [{ id: 'a1', upgrade: 'op.execute("CREATE TABLE t (id int)")\nop.execute("SELECT pg_sleep(60)")' }],
    })
    let pid = 0
    const running = start(project, url, { mode: 'apply' }, { started: child => (pid = child) })
    const sleeping = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()`
    while ((await query(url, sleeping)).rowCount === 0) await new Promise(resolve => setTimeout(resolve, 50))
    process.kill(pid, signal)
    const step = await running
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'rolled-back',
      'failure-reason': 'cancelled',
      'prior-head': '',
      'new-head': '',
    })
    expect(step.exitCode).toBe(1)
    expect(await contents(url)).toBe(before)
    expect(await leftovers(url)).toEqual([])
  })
}

describe('cancelled while the server does not answer, as the runner does it: the outputs are written before the kill', () => {
  /** A TCP proxy that passes nothing on any more once it is told to. */
  async function stalling(
    url: string,
  ): Promise<{ url: string; connected: Promise<void>; stall: () => void; close: () => void }> {
    const { hostname, port } = new URL(url)
    let stalled = false
    const sockets: Socket[] = []
    let arrive = () => {}
    const connected = new Promise<void>(resolve => {
      arrive = resolve
    })
    const proxy = createServer(client => {
      arrive()
      const server = connect(Number(port), hostname)
      sockets.push(client, server)
      client.on('data', chunk => stalled || server.write(chunk)).on('error', () => {})
      server.on('data', chunk => stalled || client.write(chunk)).on('error', () => {})
    })
    await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
    return {
      url: url.replace(`:${port}/`, `:${(proxy.address() as AddressInfo).port}/`),
      connected,
      stall: () => {
        stalled = true
      },
      close: () => {
        for (const socket of sockets) socket.destroy()
        proxy.close()
      },
    }
  }

  /** What GitHub's runner sends to a cancelled step, and when. */
  function cancel(pid: number): NodeJS.Timeout[] {
    process.kill(pid, 'SIGINT')
    const later = (signal: NodeJS.Signals, after: number) =>
      setTimeout(() => {
        try {
          process.kill(pid, signal)
        } catch {
          // It has ended.
        }
      }, after)
    return [later('SIGTERM', 7_500), later('SIGKILL', 10_000)]
  }

  test.each([
    ['in the middle of a statement', 'rolled-back', /pg_sleep/],
    ['before anything was asked', 'refused', undefined],
  ] as const)('%s', async (_, outcome, when) => {
    const url = await createDatabase()
    const proxy = await stalling(url)
    let [pid, timers]: [number, NodeJS.Timeout[]] = [0, []]
    const project = writeProject({ scripts: [{ id: 'a1', upgrade: 'op.execute("SELECT pg_sleep(60)")' }] })
    if (!when) proxy.stall()
    const running = start(project, proxy.url, { mode: 'apply', comment: 'false' }, { started: child => (pid = child) })
    if (when) {
      const sleeping = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()`
      while ((await query(url, sleeping)).rowCount === 0) await new Promise(resolve => setTimeout(resolve, 50))
      proxy.stall()
    } else await proxy.connected
    timers = cancel(pid)
    const step = await running
    for (const timer of timers) clearTimeout(timer)
    expect(step.outputs, step.log).toMatchObject({ outcome, 'failure-reason': 'cancelled', 'new-head': '' })
    expect(step.exitCode).toBe(1)
    proxy.close()
    while ((await leftovers(url)).length > 0) await new Promise(resolve => setTimeout(resolve, 50))
    expect(await contents(url)).not.toContain('alembic_version')
  })
})

test('killed in the middle of a statement: PostgreSQL ends the statement by itself', async () => {
  const url = await createDatabase()
  const project = writeProject({
    scripts: [{ id: 'a1', upgrade: 'op.execute("CREATE TABLE t (id int)")\nop.execute("SELECT pg_sleep(600)")' }],
  })
  let pid = 0
  const running = start(project, url, { mode: 'apply', comment: 'false' }, { started: child => (pid = child) })
  const sleeping = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()`
  while ((await query(url, sleeping)).rowCount === 0) await new Promise(resolve => setTimeout(resolve, 50))
  process.kill(pid, 'SIGKILL')
  await running
  while ((await leftovers(url)).length > 0) await new Promise(resolve => setTimeout(resolve, 100))
  expect(await contents(url)).not.toContain('alembic_version')
})
