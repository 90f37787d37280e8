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
