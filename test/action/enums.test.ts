import { describe, expect, inject, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

const block = (sql: string) => `with op.get_context().autocommit_block():\n    op.execute("${sql}")`
const execute = (sql: string) => `op.execute("${sql}")`
const add = "ALTER TYPE mood ADD VALUE 'ok'"
const use = execute("INSERT INTO t VALUES ('ok')")
const type = {
  id: 'a1',
  upgrade: `${execute("CREATE TYPE mood AS ENUM ('sad')")}\n${execute('CREATE TABLE t (m mood)')}`,
}
const byAlembic = {
  id: 'a1',
  upgrade: 'op.create_table("t", sa.Column("m", sa.Enum("sad", name="mood"), server_default="sad"))',
}

const errors = ({ commands }: Step) => commands.filter(({ name }) => name === 'error').map(({ text }) => text)
const warned = ({ commands }: Step) => commands.filter(({ name }) => name === 'warning').map(({ text }) => text)

describe('A new value of an enum that the batch itself makes cannot be used in one transaction; in segments it can:', () => {
  const batches = {
    'added in an autocommit_block': [type, { id: 'b2', upgrade: block(add) }, { id: 'c3', upgrade: use }],
    'added in a transaction': [byAlembic, { id: 'b2', upgrade: execute(add) }, { id: 'c3', upgrade: use }],
    'made, added and used by one revision': [{ id: 'a1', upgrade: `${type.upgrade}\n${block(add)}\n${use}` }],
    'of a type that was renamed, under a new name itself': [
      type,
      {
        id: 'b2',
        upgrade: `${execute('ALTER TYPE mood RENAME TO feeling')}\n${execute(add.replace('mood', 'feeling'))}`,
      },
      {
        id: 'c3',
        upgrade: `${execute("ALTER TYPE feeling RENAME VALUE 'ok' TO 'fine'")}\n${use.replace('ok', 'fine')}`,
      },
    ],
  }
  test.each(Object.entries(batches))('%s', async (how, scripts) => {
    const url = await createDatabase()
    const before = await contents(url)
    const project = writeProject({ scripts })
    const last = scripts.at(-1)!.id
    // A preview asks the same.
    if (how === 'added in a transaction') {
      const preview = await start(project, url, {})
      expect(warned(preview)).toEqual([
        expect.stringMatching(
          new RegExp(`An apply will refuse revision ${last}: .* it must be committed before it can be used`),
        ),
      ])
    }
    const apply = await start(project, url, { mode: 'apply' })
    expect(apply.outputs, apply.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-transactional' })
    expect(await contents(url)).toBe(before)
    const segments = await start(project, url, { mode: 'apply', segments: 'true' })
    expect(segments.outputs, segments.log).toMatchObject({ outcome: 'applied', 'new-head': last })
    expect((await query(url, 'SELECT m::text FROM t')).rows).toMatchObject([{ m: expect.stringMatching(/ok|fine/) }])
  })

  test('but the same text is no reason against a batch where it is no value of it', async () => {
    const url = await createDatabase()
    const other = `${execute('CREATE TABLE notes (n text)')}\n${execute("INSERT INTO notes VALUES ('ok')")}`
    const scripts = [type, { id: 'b2', upgrade: block(add) }, { id: 'c3', upgrade: other }]
    const step = await start(writeProject({ scripts }), url, { mode: 'apply' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'c3' })
    expect((await query(url, 'SELECT n FROM notes')).rows).toEqual([{ n: 'ok' }])
  })

  test('nor against a plan file on PostgreSQL 17 and later, whose SQL is in no savepoint', async () => {
    const url = await createDatabase()
    const { rows } = await query(
      inject('postgres'),
      "SELECT current_setting('server_version_num')::int >= 170000 AS uses",
    )
    const project = writeProject({ scripts: [type, { id: 'b2', upgrade: execute(add) }, { id: 'c3', upgrade: use }] })
    const preview = await start(project, url, {})
    expect(preview.outputs['plan-file'] !== '').toBe(rows[0].uses)
    // Without a database it is not known on what the file will be applied.
    const { outputs } = await start(project, url, { 'from-revision': 'base' })
    const step = await start(project, url, { mode: 'apply', 'plan-file': outputs['plan-file']!, python: 'none' })
    expect(step.outputs, step.log).toMatchObject(
      rows[0].uses ? { outcome: 'applied' } : { outcome: 'refused', 'failure-reason': 'not-transactional' },
    )
  })
})

describe('Where the database has the type, it tells what can be a value of it:', () => {
  const there = `CREATE TYPE mood AS ENUM ('sad', 'calm'); CREATE TYPE level AS ENUM ('low', 'ok');
    CREATE DOMAIN feeling AS mood; CREATE TABLE t (m mood, f feeling, n text, l level);
    CREATE TABLE notes (n text, mood_text text); CREATE FUNCTION told(mood) RETURNS text LANGUAGE sql AS 'SELECT $1::text'`
  /** Rows with the same text, and no value of the type. */
  const harmless = [
    "INSERT INTO notes VALUES ('ok')",
    "INSERT INTO t (n, m) VALUES ('ok', 'sad')",
    "INSERT INTO t (m, n) SELECT 'calm', 'ok'",
    "INSERT INTO t (l) VALUES ('ok')",
    "UPDATE t SET n = 'ok', m = 'sad' WHERE n = 'ok' OR l IN ('ok', 'low')",
    "UPDATE t SET n = 'ok'::text WHERE m = 'calm'",
    "ALTER TABLE t ALTER COLUMN n SET DEFAULT 'ok', ADD COLUMN k text DEFAULT 'ok'",
    "COMMENT ON COLUMN t.m IS 'ok'",
    "CREATE FUNCTION later() RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t (m) VALUES ('ok'); END $$",
    "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'calm'",
    "INSERT INTO t (m) VALUES ('calm')",
  ]

  test('other columns, tables and types are no reason against a batch, nor is a value that was there', async () => {
    const url = await createDatabase()
    await query(url, there)
    const upgrade = [add, ...harmless].map(execute).join('\n')
    const project = writeProject({ scripts: [{ id: 'a1', upgrade }] })
    const preview = await start(project, url, {})
    expect(warned(preview), preview.log).toEqual([])
    const [byFile, inSegments] = [await createDatabase(url), await createDatabase(url)]
    const step = await start(project, url, { mode: 'apply' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
    // The file is for the database that was previewed.
    const { outputs } = await start(project, byFile, {})
    const planned = await start(project, byFile, { mode: 'apply', 'plan-file': outputs['plan-file']!, python: 'none' })
    expect(planned.outputs, planned.log).toMatchObject({ outcome: 'applied' })
    const segments = await start(project, inSegments, { mode: 'apply', segments: 'true' })
    expect(segments.outputs, segments.log).toMatchObject({ outcome: 'applied' })
    expect(JSON.parse(segments.outputs.segments!)).toHaveLength(1)
    for (const other of [byFile, inSegments]) expect(await contents(other)).toBe(await contents(url))
  })

  test('its columns, what is made of it, and what the syntax does not tell, are', async () => {
    const url = await createDatabase()
    await query(url, there)
    const before = await contents(url)
    const uses = [
      "INSERT INTO t (n, m) VALUES ('x', 'ok')",
      "INSERT INTO t VALUES ('sad', 'ok')",
      "INSERT INTO t (n, f) SELECT 'x', 'ok'",
      "UPDATE t SET m = 'ok'",
      "UPDATE t SET n = 'x' WHERE m IN ('sad', 'ok')",
      "SELECT 'ok'::feeling",
      "SELECT told('ok')",
      "SELECT * FROM (SELECT m AS x FROM t) s WHERE x = 'ok'",
      "UPDATE t SET m = CASE WHEN n = 'x' THEN 'ok' ELSE 'sad' END::mood",
      "ALTER TABLE t ALTER COLUMN m SET DEFAULT 'ok'",
    ]
    const scripts = [
      { id: 'a1', upgrade: execute(add) },
      { id: 'b2', upgrade: execute('ALTER TABLE t RENAME COLUMN m TO m2') },
      { id: 'c3', upgrade: execute("INSERT INTO t (m2) VALUES ('ok')") },
    ]
    const upgrades = uses.map((use, n) => ({ id: `u${n}`, down: 'a1', upgrade: execute(use) }))
    const project = writeProject({ scripts: [...scripts, ...upgrades] })
    const preview = await start(project, url, { revision: 'heads' })
    const refused = warned(preview).map(text => /revision (\w+):/.exec(text)?.[1])
    expect(refused.sort(), preview.log).toEqual(['c3', ...upgrades.map(({ id }) => id)].sort())
    const step = await start(project, url, { mode: 'apply', revision: 'c3' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-transactional' })
    expect(await contents(url)).toBe(before)
  })

  test('and in a DO block or an array PostgreSQL decides; in segments the value is committed before', async () => {
    const url = await createDatabase()
    await query(url, `${there}; CREATE TABLE a (m mood[])`)
    const before = await contents(url)
    const scripts = [
      { id: 'a1', upgrade: execute(add) },
      { id: 'b2', upgrade: execute("DO $$ BEGIN INSERT INTO t (m) VALUES ('ok'); END $$") },
      { id: 'c3', upgrade: execute("ALTER TYPE mood ADD VALUE 'fine'") },
      { id: 'd4', upgrade: execute("INSERT INTO a VALUES ('{sad,fine}')") },
    ]
    const project = writeProject({ scripts })
    const step = await start(project, url, { mode: 'apply' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'not-transactional' })
    expect(errors(step)[0]).toMatch(/Revision b2 .*unsafe use of new value "ok".*segments: true/s)
    expect(await contents(url)).toBe(before)
    const segments = await start(project, url, { mode: 'apply', segments: 'true' })
    expect(segments.outputs, segments.log).toMatchObject({ outcome: 'applied', 'new-head': 'd4' })
    expect(JSON.parse(segments.outputs.segments!)).toHaveLength(3)
  })
})

describe('A statement that sets the transaction itself: words of its own, and no way out that is none', () => {
  const level = 'SET TRANSACTION ISOLATION LEVEL SERIALIZABLE'
  test.each([
    ['seen beforehand', execute(level), 'refused', {}],
    ['seen beforehand, in segments', block(level), 'refused', { segments: 'true' }],
    ['in a DO block', execute(`DO $$ BEGIN ${level}; END $$`), 'rolled-back', {}],
    ['by set_config', execute("SELECT set_config('transaction_isolation', 'serializable', true)"), 'rolled-back', {}],
    ['as deferrable', execute('SET TRANSACTION DEFERRABLE'), 'refused', {}],
    [
      'to write after all',
      `${execute('SET TRANSACTION READ ONLY')}\n${execute('SET TRANSACTION READ WRITE')}`,
      'rolled-back',
      {},
    ],
  ] as const)('%s', async (_, upgrade, outcome, inputs) => {
    const url = await createDatabase()
    const before = await contents(url)
    const step = await start(writeProject({ scripts: [{ id: 'a1', upgrade }] }), url, { mode: 'apply', ...inputs })
    expect(step.outputs, step.log).toMatchObject({ outcome, 'failure-reason': 'not-transactional' })
    const [error = ''] = errors(step)
    expect(error).toContain('READ COMMITTED, which has begun before: take the statement out')
    expect(error).not.toMatch(/autocommit_block|segments: true/)
    expect(await contents(url)).toBe(before)
  })
})
