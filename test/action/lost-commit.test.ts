import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { type Passing, type StartedProxy, startProxy } from '../faults/proxy.mts'
import { createDatabase, secondProject, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query, type Server, startServer } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

const newHead = 'b7e0aa41d9c3'

let proxy: StartedProxy | undefined
afterEach(() => proxy?.stop())

/** The COMMIT on its way to PostgreSQL (`up`), or the first message of its answer. */
const isCommit = ({ sql, direction }: Passing, wanted: Passing['direction']) => sql === 'COMMIT' && direction === wanted

/** Applies through a proxy that does something once, as the COMMIT or its answer passes. */
async function apply(
  url: string,
  direction: Passing['direction'],
  act: (passing: Passing) => void | Promise<void>,
  options: { admit?: () => boolean | Promise<boolean>; started?: (pid: number) => void } = {},
): Promise<Step> {
  let done = false
  const watch = (passing: Passing) => {
    if (done || !isCommit(passing, direction)) return
    done = true
    return act(passing)
  }
  const { admit, started } = options
  proxy = await startProxy(url, watch, admit)
  const step = await start(secondProject, proxy.through(url), { mode: 'apply' }, started ? { started } : {})
  expect(done, `no COMMIT passed:\n${step.log}`).toBe(true)
  return step
}

function expectApplied(step: Step): void {
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'failure-reason': '', 'new-head': newHead })
  expect(step.exitCode).toBe(0)
}

function expectRolledBack(step: Step): void {
  const rolledBack = { outcome: 'rolled-back', 'failure-reason': 'commit-failed', 'prior-head': '', 'new-head': '' }
  expect(step.outputs, step.log).toMatchObject(rolledBack)
  expect(step.exitCode).toBe(1)
}

test('the answer to the COMMIT is lost, and PostgreSQL has committed: applied', async () => {
  const url = await createDatabase()
  expectApplied(await apply(url, 'down', passing => passing.cut()))
  expect(await contents(url)).toContain(newHead)
  expect(await leftovers(url)).toEqual([])
})

test('the COMMIT never arrives: rolled back, and a plain second run applies', async () => {
  const url = await createDatabase()
  const before = await contents(url)
  expectRolledBack(await apply(url, 'up', passing => passing.reset()))
  expect(await contents(url)).toBe(before)
  expectApplied(await start(secondProject, url, { mode: 'apply' }))
})

describe('the server crashes at the COMMIT and is down for a while', () => {
  // What is not committed stays out of the WAL's files, as it may on a busy server.
  const lazy = ['wal_writer_delay = 10s', 'wal_writer_flush_after = 1GB', 'wal_buffers = 64MB', 'autovacuum = off']
  let server: Server
  let recovered: Promise<void> | undefined
  afterEach(() => server.stop())

  /** Crashes it as the message passes, which gets lost; it is back after `then`. */
  const crash = async (passing: Passing, then: () => Promise<void>) => {
    await server.crash()
    passing.cut()
    recovered = then()
  }
  const backLater = async () => {
    await pause(3_000)
    await server.restart()
  }

  test('after it got the COMMIT: applied', async () => {
    server = await startServer()
    const url = await server.create('shop')
    expectApplied(await apply(url, 'down', passing => crash(passing, backLater)))
    await recovered
    expect(await contents(url)).toContain(newHead)
  })

  test('before it got the COMMIT, and nothing of the transaction was on disk: rolled back', async () => {
    server = await startServer(lazy)
    const url = await server.create('shop')
    const before = await contents(url)
    let id = ''
    const step = await apply(url, 'up', async passing => {
      id = await transactionOf(url)
      await crash(passing, backLater)
    })
    await recovered
    expectRolledBack(step)
    expect(await contents(url)).toBe(before)
    await expect(query(url, `SELECT pg_xact_status('${id}'::xid8)`)).rejects.toThrow(/in the future/)
  })

  test('another client gets the freed transaction id and commits: rolled back all the same', async () => {
    server = await startServer(lazy)
    const url = await server.create('shop')
    const before = await contents(url)
    const step = await apply(
      url,
      'up',
      async passing => {
        const id = await transactionOf(url)
        await crash(passing, async () => {
          await server.restart()
          const other = server.url('postgres')
          for (let given = ''; given !== id; ) {
            given = (await query(other, 'SELECT pg_current_xact_id()::text AS id')).rows[0].id
            expect(BigInt(given) <= BigInt(id), `${id} was on disk; ${given} is given out`).toBe(true)
          }
          const { rows } = await query(other, `SELECT pg_xact_status('${id}'::xid8) AS status`)
          expect(rows).toEqual([{ status: 'committed' }])
        })
      },
      // The action gets through only then.
      {
        admit: async () => {
          await recovered
          return true
        },
      },
    )
    expectRolledBack(step)
    expect(await contents(url)).toBe(before)
    expectApplied(await start(secondProject, url, { mode: 'apply' }))
  })

  test('it comes back as a standby, which may not know yet: not believed, in doubt', async () => {
    server = await startServer()
    const url = await server.create('shop')
    let pid = 0
    let up: Promise<void> | undefined
    const watch = async (passing: Passing) => {
      if (!up && isCommit(passing, 'down')) {
        await server.crash()
        passing.cut()
        up = server.restart({ standby: true })
      }
      // It has been asked once: that will do.
      if (up && passing.direction === 'down' && passing.sql.includes('pg_is_in_recovery')) process.kill(pid, 'SIGINT')
    }
    const admit = async () => {
      await up
      return true
    }
    proxy = await startProxy(url, watch, admit)
    const started = (child: number) => {
      pid = child
    }
    const step = await start(secondProject, proxy.through(url), { mode: 'apply' }, { started })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'in-doubt', 'failure-reason': 'commit-failed' })
    expect(step.log).toContain('no answer came: the server that answers is a standby')
  })
})

test('somebody else moves the heads before the action can ask: rolled back, and the heads are told as they are now', async () => {
  const url = await createDatabase()
  let moved: Promise<Step> | undefined
  const step = await apply(
    url,
    'up',
    passing => {
      passing.reset()
      moved = start(secondProject, url, { mode: 'apply', revision: '3f1a9c07be21' })
    },
    {
      admit: async () => {
        await moved
        return true
      },
    },
  )
  expect((await moved)!.outputs.outcome).toBe('applied')
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'rolled-back',
    'failure-reason': 'commit-failed',
    'prior-head': '',
    'new-head': '3f1a9c07be21',
  })
  expect(step.log).toContain('The database is now at 3f1a9c07be21; this step changed nothing in it.')
})

/** The id of the action's open transaction. */
async function transactionOf(url: string): Promise<string> {
  const ours = `application_name LIKE 'atomic-upgrade%' AND datname = current_database()`
  const { rows } = await query(url, `SELECT backend_xid::text AS id FROM pg_stat_activity WHERE ${ours}`)
  expect(rows).toHaveLength(1)
  return rows[0]!.id
}

for (const [arrived, direction, heads] of [
  ['arrived', 'down', newHead],
  ['never arrived', 'up', ''],
] as const) {
  test(`no answer is to be had, and the COMMIT ${arrived}: in doubt, with the queries that settle it`, async () => {
    const url = await createDatabase()
    let gone = false
    let pid = 0
    const step = await apply(
      url,
      direction,
      passing => {
        gone = true
        passing.cut()
        // A cancelled step asks for two seconds only, else a minute (test/faults/in-doubt.long.ts).
        process.kill(pid, 'SIGINT')
      },
      { admit: () => !gone, started: child => (pid = child) },
    )
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'in-doubt',
      'failure-reason': 'commit-failed',
      'prior-head': '',
      'new-head': '',
    })
    expect(step.exitCode).toBe(1)
    const error = step.commands.find(({ name }) => name === 'error')!.text
    expect(error).toContain(`The database is wholly at base or wholly at ${newHead}.`)
    expect(error).toContain(`Then ${newHead} means that the whole batch is there, base that nothing of it is.`)
    const [select = '', status = ''] = error.match(/SELECT [^;]*;/g) ?? []
    const over = arrived === 'arrived' ? 'committed' : 'aborted'
    expect(Object.values((await query(url, status)).rows[0])).toEqual([over])
    // Where nothing was committed there is not even a version table.
    const found = heads ? (await query(url, select)).rows : []
    expect(select).toBe('SELECT version_num FROM "alembic_version";')
    expect(found.map(row => row.version_num).join()).toBe(heads)
    expect((await contents(url)).includes(newHead)).toBe(heads !== '')
  })
}

test('PostgreSQL refuses the COMMIT: rolled back, in its own words', async () => {
  const url = await createDatabase()
  const before = await contents(url)
  // Deferred again by itself, it gets past every check before the COMMIT.
  const project = writeProject({
    scripts: [
      {
        id: 'a1',
        upgrade: `
op.execute("CREATE TABLE late (n int)")
op.execute("""CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF (SELECT count(*) FROM late) > 2 THEN RAISE EXCEPTION 'too late' USING DETAIL = 'at the COMMIT'; END IF;
  SET CONSTRAINTS ALL DEFERRED;
  INSERT INTO late VALUES (0);
  RETURN NULL;
END $$""")
op.execute("CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()")
op.execute("INSERT INTO late VALUES (0)")`,
      },
    ],
  })
  const step = await start(project, url, { mode: 'apply' })
  expectRolledBack(step)
  const error = step.commands.find(({ name }) => name === 'error')!.text
  expect(error).toMatch(/^PostgreSQL refused the COMMIT: too late\.\nERROR P0001: too late\nDETAIL: at the COMMIT\n/)
  expect(error).toContain('The database is at base, as before.')
  expect(await contents(url)).toBe(before)
})

test('PostgreSQL answers ROLLBACK to the COMMIT: rolled back', async () => {
  const url = await createDatabase()
  const before = await contents(url)
  const step = await apply(url, 'up', passing => passing.replace(Buffer.from('Q\0\0\0\x0dROLLBACK\0', 'latin1')))
  expectRolledBack(step)
  expect(step.log).toContain('PostgreSQL answered ROLLBACK to the COMMIT')
  expect(await contents(url)).toBe(before)
})

test('unreachable after a failure: rolled back as known, and said that it was not read again', async () => {
  const url = await createDatabase()
  await start(secondProject, url, { mode: 'apply', revision: '3f1a9c07be21' })
  const before = await contents(url)
  let gone = false
  const watch = (passing: Passing) => {
    if (!/^CREATE TABLE/.test(passing.sql.trim())) return
    gone = true
    passing.cut()
  }
  proxy = await startProxy(url, watch, () => !gone)
  const step = await start(secondProject, proxy.through(url), { mode: 'apply' })
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'rolled-back',
    'failure-reason': 'connection-failed',
    'prior-head': '3f1a9c07be21',
    'new-head': '3f1a9c07be21',
  })
  expect(step.log).toContain('The database is at 3f1a9c07be21, as before (not re-read: it could not be reached).')
  expect(await contents(url)).toBe(before)
})
