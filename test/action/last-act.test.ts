import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Passing, type StartedProxy, startProxy } from '../faults/proxy.mts'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { type Script, writeProject } from '../support/project.mts'
import type { Step, StepOptions } from '../support/runner.mts'

/** What acts at the COMMIT, or makes another table look like the version table. */

const a1: Script = { id: 'a1', upgrade: 'op.execute("CREATE TABLE t (n int)")' }
const sql = (...statements: string[]) => statements.map(each => `op.execute("""${each}""")`).join('\n')
const projectOf = (...statements: string[]) =>
  writeProject({ scripts: [a1, { id: 'b2', upgrade: sql('INSERT INTO t VALUES (2)', ...statements) }] })

/** A database at a1. */
let atA1: string
let before: string
let url: string
beforeAll(async () => {
  atA1 = await createDatabase()
  expect((await start(projectOf(), atA1, { mode: 'apply', revision: 'a1' })).outputs.outcome).toBe('applied')
  before = await contents(atA1)
})
beforeEach(async () => {
  url = await createDatabase(atA1)
})

let proxy: StartedProxy | undefined
afterEach(() => proxy?.stop())

const ways = {
  'through the gate': (folder: string) => start(folder, url, { mode: 'apply' }),
  'in segments': (folder: string) => start(folder, url, { mode: 'apply', segments: 'true' }),
  'from a plan file': async (folder: string) => {
    const preview = await start(folder, url, {})
    expect(preview.outputs['plan-file'], preview.log).not.toBe('')
    return start(folder, url, { mode: 'apply', 'plan-file': preview.outputs['plan-file']! })
  },
}
type Way = keyof typeof ways
const everyWay = Object.keys(ways) as Way[]

const errorOf = (step: Step) => step.commands.find(({ name }) => name === 'error')?.text ?? ''
const heads = async () =>
  (await query(url, 'SELECT version_num FROM public.alembic_version ORDER BY 1')).rows
    .map(row => row.version_num)
    .join()

/** Nothing of it is kept, and the reader is told why. */
async function expectRolledBack(step: Step, why: RegExp, reason = 'migration-failed') {
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'rolled-back',
    'failure-reason': reason,
    'prior-head': 'a1',
    'new-head': 'a1',
  })
  expect(step.exitCode).toBe(1)
  expect(errorOf(step)).toMatch(why)
  expect(await contents(url)).toBe(before)
  expect(await leftovers(url)).toEqual([])
}

/** It is committed, and what the version table holds is what is said. */
async function expectDrift(step: Step, head: string) {
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'applied',
    'failure-reason': 'drift',
    'prior-head': 'a1',
    'new-head': head,
  })
  expect(step.exitCode).toBe(1)
  expect(JSON.parse(step.outputs.databases!)).toMatchObject({ default: { outcome: 'applied', 'new-head': head } })
  expect(errorOf(step)).toContain(`the database is at ${head} and not at b2`)
  expect(errorOf(step)).toContain(`The database is at ${head}.`)
  expect(step.summary).toContain('⚠️ Atomic Upgrade: committed, and not at its target')
  expect(await heads()).toBe(head)
  expect(await leftovers(url)).toEqual([])
}

async function expectApplied(step: Step) {
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'failure-reason': '', 'new-head': 'b2' })
  expect(step.exitCode).toBe(0)
  expect(await heads()).toBe('b2')
  expect(await leftovers(url)).toEqual([])
}

/** A deferred trigger that defers itself again, past every check, and then does something. */
const atTheCommit = (act: string) => [
  'CREATE TABLE late (n int)',
  `CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  SET CONSTRAINTS ALL DEFERRED;
  IF (SELECT pg_catalog.count(*) FROM late) < 9 THEN INSERT INTO late VALUES (0); ELSE ${act}; END IF;
  RETURN NULL;
END $$`,
  `CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()`,
  'INSERT INTO late VALUES (0)',
]
const moves = `UPDATE public.alembic_version SET version_num = 'x9'`

describe('inside the COMMIT', () => {
  test.each(everyWay)(
    'a trigger that queues itself again moves the version row, %s: applied, and the heads as they are',
    async way => {
      await expectDrift(await ways[way](projectOf(...atTheCommit(moves))), 'x9')
    },
  )

  test('a trigger that queues itself again and leaves the version row alone: applied', async () => {
    await expectApplied(await ways['through the gate'](projectOf(...atTheCommit('INSERT INTO t VALUES (3)'))))
    expect((await query(url, 'SELECT n FROM t ORDER BY n')).rows).toEqual([{ n: 2 }, { n: 3 }])
  })

  const mover = (act: string) =>
    `CREATE FUNCTION act() RETURNS int LANGUAGE plpgsql AS $$ BEGIN ${act}; RETURN 1; END $$`
  const cursor = 'DECLARE kept CURSOR WITH HOLD FOR SELECT act()'

  test('a cursor WITH HOLD moves the version row, from a plan file: seen before the COMMIT', async () => {
    const step = await ways['from a plan file'](projectOf(mover(moves), cursor))
    await expectRolledBack(step, /the heads are x9 and not b2/)
  })

  test('a cursor WITH HOLD does as it would at a COMMIT, from a plan file', async () => {
    await expectApplied(await ways['from a plan file'](projectOf(mover('INSERT INTO t VALUES (3)'), cursor)))
    expect((await query(url, 'SELECT n FROM t ORDER BY n')).rows).toEqual([{ n: 2 }, { n: 3 }])
  })

  test('a cursor WITH HOLD fails, from a plan file: rolled back, in PostgreSQL’s words', async () => {
    const step = await ways['from a plan file'](projectOf(mover(`RAISE EXCEPTION 'no row'`), cursor))
    await expectRolledBack(step, /The cursor kept .*no row/)
  })
})

describe('another table in the version table’s place', () => {
  /** Alembic moves the row of the temporary one. */
  const temporary = 'CREATE TEMPORARY TABLE alembic_version AS SELECT version_num FROM public.alembic_version'
  /** A trigger event that waits for the COMMIT keeps it from being dropped. */
  const kept = [
    `CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      SET CONSTRAINTS ALL DEFERRED;
      IF (SELECT pg_catalog.count(*) FROM pg_temp.late) < 9 THEN INSERT INTO pg_temp.late VALUES (0); END IF;
      RETURN NULL;
    END $$`,
    'CREATE TEMPORARY TABLE late (n int)',
    `CREATE CONSTRAINT TRIGGER late AFTER INSERT ON pg_temp.late DEFERRABLE INITIALLY DEFERRED
     FOR EACH ROW EXECUTE FUNCTION again()`,
    'INSERT INTO pg_temp.late VALUES (0)',
  ]

  test('a temporary table, from a plan file', async () => {
    const step = await ways['from a plan file'](projectOf(temporary))
    await expectRolledBack(step, /the heads are a1 and not b2/)
  })

  const cannotBeDropped = /^What the scripts have left in the session could not be cleared: cannot DROP TABLE "late"/

  test('a temporary table that cannot be dropped, from a plan file', async () => {
    await expectRolledBack(await ways['from a plan file'](projectOf(temporary, ...kept)), cannotBeDropped)
  })

  test.each(['rehearse', 'apply'])('a temporary table that cannot be dropped, through the gate: %s', async mode => {
    await expectRolledBack(await start(projectOf(temporary, ...kept), url, { mode }), cannotBeDropped)
  })

  test('a temporary view, from a plan file', async () => {
    const step = await ways['from a plan file'](
      projectOf(
        'CREATE TABLE copy AS SELECT version_num FROM public.alembic_version',
        'CREATE TEMPORARY VIEW alembic_version AS SELECT version_num FROM copy',
      ),
    )
    await expectRolledBack(step, /the heads are a1 and not b2/)
  })

  const replaced: Record<string, string[]> = {
    'another table': [
      'ALTER TABLE alembic_version RENAME TO kept',
      'CREATE TABLE alembic_version AS SELECT version_num FROM kept',
    ],
    'a view': [
      'ALTER TABLE alembic_version RENAME TO kept',
      'CREATE VIEW alembic_version AS SELECT version_num FROM kept',
    ],
    'a table in a schema that comes first': [
      'CREATE SCHEMA postgres',
      'CREATE TABLE postgres.alembic_version AS SELECT version_num FROM public.alembic_version',
    ],
  }
  test.each(Object.entries(replaced))('%s is under its name at the end: rolled back', async (_, statements) => {
    const step = await ways['through the gate'](projectOf(...statements))
    await expectRolledBack(step, /The version table public\.alembic_version is not the one that was there at the start/)
  })

  test('one that is moved to another schema of the search path is the same', async () => {
    await query(url, `CREATE SCHEMA postgres`)
    const step = await ways['through the gate'](projectOf('ALTER TABLE alembic_version SET SCHEMA postgres'))
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'failure-reason': '', 'new-head': 'b2' })
    expect((await query(url, 'SELECT version_num FROM postgres.alembic_version')).rows).toEqual([{ version_num: 'b2' }])
  })

  test('rows that row-level security hides from the role', async () => {
    const role = `owner_${url.slice(-6)}`
    await query(
      url,
      `CREATE ROLE ${role} LOGIN PASSWORD 'hunter2hunter2'; GRANT CREATE, USAGE ON SCHEMA public TO ${role};
       ALTER TABLE t OWNER TO ${role}; ALTER TABLE alembic_version OWNER TO ${role}`,
    )
    const unchanged = await contents(url)
    try {
      const step = await start(
        projectOf(
          `INSERT INTO alembic_version VALUES ('x9')`,
          'ALTER TABLE alembic_version ENABLE ROW LEVEL SECURITY',
          'ALTER TABLE alembic_version FORCE ROW LEVEL SECURITY',
          `CREATE POLICY shown ON alembic_version USING (version_num <> 'x9')`,
        ),
        url.replace(/\/\/[^@]*@/, `//${role}:hunter2hunter2@`),
        { mode: 'apply' },
      )
      expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'migration-failed' })
      expect(errorOf(step)).toContain('row-level security')
      expect(await contents(url)).toBe(unchanged)
    } finally {
      await query(url, `DROP OWNED BY ${role}; DROP ROLE ${role}`)
    }
  })

  test('in a segment: it is not said to be committed', async () => {
    const scripts = [
      a1,
      { id: 'b2', upgrade: sql(temporary) },
      {
        id: 'c3',
        upgrade: 'with op.get_context().autocommit_block():\n    op.execute("CREATE INDEX CONCURRENTLY i ON t (n)")',
      },
    ]
    const step = await start(writeProject({ scripts }), url, { mode: 'apply', segments: 'true' })
    expect(JSON.parse(step.outputs.segments!)).toMatchObject([
      { revisions: ['b2'], outcome: 'rolled-back' },
      { revisions: ['c3'], outcome: 'not-run' },
      { revisions: ['c3'], outcome: 'not-run' },
    ])
    await expectRolledBack(step, /the heads have to be b2, and they are a1/)
  })
})

test('a search path for those that connect later: the same table is read behind the COMMIT, also where its answer is lost', async () => {
  const name = new URL(url).pathname.slice(1)
  const folder = projectOf('CREATE SCHEMA other', `ALTER DATABASE ${name} SET search_path = other`)
  let cut = false
  proxy = await startProxy(url, passing => {
    if (cut || passing.sql !== 'COMMIT' || passing.direction !== 'down') return
    cut = true
    passing.cut()
  })
  await expectApplied(await start(folder, proxy.through(url), { mode: 'apply' }))
  expect(cut).toBe(true)
})

describe('behind the COMMIT', () => {
  /** Applies through a proxy that acts as the COMMIT is answered, and as anything passes behind it. */
  async function applyWith(
    acts: {
      answered?: (passing: Passing) => void | Promise<void>
      behind?: (passing: Passing) => void | Promise<void>
    },
    options: Partial<StepOptions> & { admit?: () => boolean } = {},
  ): Promise<Step> {
    let committed = 0
    proxy = await startProxy(
      url,
      async passing => {
        if (!committed && passing.sql === 'COMMIT' && passing.direction === 'down') {
          committed = passing.connection
          await acts.answered?.(passing)
        } else if (committed && passing.connection !== committed) await acts.behind?.(passing)
      },
      () => !committed || (options.admit?.() ?? true),
    )
    const { admit: _, ...rest } = options
    return start(projectOf(), proxy.through(url), { mode: 'apply' }, rest)
  }

  test('somebody moves the heads at once: what they are is said', async () => {
    await expectDrift(await applyWith({ answered: async () => void (await query(url, moves)) }), 'x9')
  })

  test('they cannot be read: applied, and said that they were not', async () => {
    const step = await applyWith({ behind: passing => passing.cut() }, { admit: () => false })
    await expectApplied(step)
    expect(step.log).toContain('The database is at b2 (not re-read: it could not be reached).')
  })

  test('the connection that was to read them is gone: another one reads them', async () => {
    let cut = 0
    const step = await applyWith({
      answered: () => query(url, moves).then(() => {}),
      behind: passing => {
        cut ||= passing.connection
        if (passing.connection === cut) passing.cut()
      },
    })
    await expectDrift(step, 'x9')
    expect(step.log).toContain('No second connection: another deploy may come between')
  })

  test('a pooler has one server process: the batch goes before the second connection', async () => {
    const name = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'lock of %'`
    const free = async () => {
      while ((await query(url, name)).rowCount! > 0) await pause(50)
    }
    let held = false
    proxy = await startProxy(url, async passing => {
      if (held || passing.direction !== 'up' || !passing.sql.startsWith('BEGIN')) return
      // The second connection is the one that has begun by then.
      if ((await query(url, `${name} AND state LIKE 'idle in%'`)).rowCount === 0) return
      held = true
      passing.hold(free())
    })
    const step = await start(projectOf(), proxy.through(url), { mode: 'apply' })
    expect(held).toBe(true)
    await expectApplied(step)
    expect(step.log).toContain('No second connection: another deploy may come between')
    expect(step.log).not.toContain('not re-read')
  })

  test('no other deploy comes between', async () => {
    let other: Promise<Step> | undefined
    const step = await applyWith({
      behind: async passing => {
        if (other || passing.direction !== 'up') return
        await new Promise<void>((resolve, reject) => {
          const output = (text: string) => text.includes('Waiting for another deploy') && resolve()
          other = start(projectOf(), url, { mode: 'apply', direction: 'downgrade' }, { output })
          void other.then(({ log }) => reject(new Error(`it did not wait:\n${log}`)))
        })
      },
    })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'failure-reason': '', 'new-head': 'b2' })
    expect((await other!).outputs).toMatchObject({ outcome: 'applied', 'prior-head': 'b2', 'new-head': 'a1' })
    expect((await other!).log).toContain(
      'Waiting for another deploy of this database: atomic-upgrade acme/shop #4711 (pid',
    )
  })
})

describe('two databases', () => {
  const environment = { DATABASE_URL: 'postgresql+psycopg://nobody@nowhere/x' }
  let reporting: string
  beforeEach(async () => {
    url = await createDatabase()
    reporting = await createDatabase()
  })

  test.each(['require', 'never'])('one moves its version row inside the COMMIT, two-phase: %s', async twoPhase => {
    const trigger = atTheCommit(moves).map(each => `    op.execute("""${each}""")`)
    const scripts = [{ id: 'b2', upgrade: ['if engine_name == "reporting":', ...trigger].join('\n') }]
    const project = writeProject({ binds: ['reporting'], scripts })
    const step = await start(
      project,
      `default=${url}\nreporting=${reporting}`,
      { mode: 'apply', 'two-phase': twoPhase },
      { environment },
    )
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'applied',
      'failure-reason': 'drift',
      'new-head': 'default=b2\nreporting=x9',
    })
    expect(step.exitCode).toBe(1)
    expect(errorOf(step)).toContain('the database reporting is at x9 and not at b2')
    expect([...(await leftovers(url)), ...(await leftovers(reporting))]).toEqual([])
  })
})
