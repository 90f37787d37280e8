import { readFileSync } from 'node:fs'
import { beforeAll, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

/**
 * What stock `--sql` gets wrong without a word. Each script is either shown faithfully, so that its SQL leaves what the
 * online run leaves, or named with the line and the reason (`not`) instead of SQL.
 */
const scripts: Record<string, { upgrade: string; not?: RegExp; line?: number }> = {
  'percent signs': {
    upgrade: `
op.execute("INSERT INTO t (name) SELECT name || ' 50%' FROM t WHERE name LIKE 'a%'")
op.add_column("t", sa.Column("share", sa.Text, server_default="50%"))`,
  },
  'tabs and backslashes in literals': {
    upgrade: `
op.execute("INSERT INTO t (name) VALUES ('a\\tb')")
op.bulk_insert(names, [{"name": "c\\td"}, {"name": "e\\\\f"}, {"name": "it's"}])
op.execute(names.insert().values(name="back\\\\slash"))`,
  },
  'a trailing comment': { upgrade: `op.execute("INSERT INTO t (name) VALUES ('x') -- why not")` },
  'casts, dollar quotes and bound parameters': {
    upgrade: `
op.execute("INSERT INTO t (name) SELECT '7'::int::text")
op.execute("DO $$ BEGIN INSERT INTO t (name) VALUES ('50%'); END $$")
op.execute(sa.text("INSERT INTO t (name) VALUES (:name)").bindparams(name="a:b"))`,
  },
  'what a parameter is for PostgreSQL': {
    upgrade: `
op.execute("CREATE EXTENSION citext; ALTER TABLE t ALTER COLUMN name TYPE citext")
op.execute(names.update().where(names.c.name == "A").values(name="one"))
op.execute(names.update().where(names.c.name.in_(["AB", "c"])).values(name="several"))
op.execute(sa.text("INSERT INTO t (name) SELECT pg_typeof(:value)::text").bindparams(value="x"))`,
  },
  'statements on the connection, without parameters and unread': {
    upgrade: `
op.get_bind().execute(sa.text("UPDATE t SET name = upper(name)"))
op.get_bind().execute(names.update().where(names.c.name == "A").values(name="z"))`,
  },
  'a server default and an enum': {
    upgrade: `
op.create_table("moods", sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("mood", sa.Enum("fine", "50%", name="mood"), server_default="fine"))
op.execute("INSERT INTO moods DEFAULT VALUES")`,
  },
  'an autocommit block': {
    upgrade: `
op.execute("CREATE TABLE u (id int)")
with op.get_context().autocommit_block():
    op.execute("INSERT INTO u VALUES (1)")`,
  },
  'dropped parameters': {
    upgrade: `op.get_bind().execute(sa.text("DELETE FROM t WHERE name = :name"), {"name": "a"})`,
    not: /statement with parameters/,
    line: 12,
  },
  executemany: {
    upgrade: `op.get_bind().execute(sa.text("INSERT INTO t (name) VALUES (:name)"), [{"name": "x"}, {"name": "y"}])`,
    not: /statement with parameters/,
  },
  'rows that are read': {
    upgrade: `
for (name,) in op.get_bind().execute(sa.text("SELECT name FROM t")):
    op.execute("INSERT INTO t (name) VALUES ('%s again')" % name)`,
    not: /reads the result/,
    line: 12,
  },
  'a result as a condition': {
    upgrade: `
if op.get_bind().execute(sa.text("SELECT 1")):
    op.execute("INSERT INTO t (name) VALUES ('there')")`,
    not: /reads the result/,
  },
  'a scalar': {
    upgrade: `
count = op.get_bind().scalar(sa.text("SELECT count(*) FROM t"))
op.execute("INSERT INTO t (name) VALUES ('%d')" % count)`,
    not: /reads the database/,
  },
  'the inspector': {
    upgrade: `assert "t" in sa.inspect(op.get_bind()).get_table_names()\nop.execute("INSERT INTO t (name) VALUES ('x')")`,
    not: /reads the database/,
  },
  'a session': {
    upgrade: `
from sqlalchemy.orm import Session
session = Session(bind=op.get_bind())
session.execute(sa.text("INSERT INTO t (name) VALUES ('x')"))
session.commit()`,
    not: /./,
  },
  'an engine of its own': {
    upgrade: `
with db.engine.connect() as connection:
    count = connection.execute(sa.text("SELECT 1")).scalar()
op.execute("INSERT INTO t (name) VALUES ('%d')" % count)`,
    not: /connects to the database/,
    line: 12,
  },
  'a Python-side default': {
    upgrade: `
stamped = sa.table("t", sa.Column("name", sa.Text), sa.Column("extra", sa.Text, default="given"))
op.add_column("t", sa.Column("extra", sa.Text))
op.bulk_insert(stamped, [{"name": "x"}])`,
    not: /default that Python computes/,
    line: 14,
  },
  'is_offline_mode()': {
    upgrade: `
from alembic import context
if not context.is_offline_mode():
    op.execute("INSERT INTO t (name) VALUES ('online')")`,
    not: /asks whether it runs offline/,
    line: 13,
  },
  as_sql: {
    upgrade: `op.execute("INSERT INTO t (name) VALUES ('%s')" % op.get_context().as_sql)`,
    not: /asks whether it runs offline/,
  },
  'the option as_sql': {
    upgrade: `op.execute("INSERT INTO t (name) VALUES ('%s')" % op.get_context().opts.get("as_sql"))`,
    not: /asks whether it runs offline/,
  },
  'the isolation level of the server': {
    upgrade: `op.execute("INSERT INTO t (name) VALUES ('%s')" % op.get_bind().dialect.default_isolation_level)`,
    not: /reads the database/,
  },
  checkfirst: {
    upgrade: `
op.execute("CREATE TYPE color AS ENUM ('red')")
sa.Enum("red", name="color").create(op.get_bind(), checkfirst=True)`,
    not: /checkfirst/,
    line: 13,
  },
  'a random value': {
    upgrade: `
import uuid
length = len(str(uuid.uuid4()))
op.execute("INSERT INTO t (name) VALUES ('%s')" % str(uuid.uuid4())[:0].join(str(length)))
op.execute("UPDATE t SET name = 'x' WHERE name = '%s'" % uuid.uuid4())`,
    not: /something else every time/,
    line: 15,
  },
  'a value that only the online run has': {
    upgrade: `op.execute(sa.text("INSERT INTO t (name) VALUES (:missing)"))`,
    not: /parameter :missing/,
  },
}

const base = {
  id: 'a1',
  upgrade: `
op.create_table("t", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
op.execute("INSERT INTO t (name) VALUES ('a'), ('ab'), ('c')")`,
}

/** At the first revision. */
let begun: string
beforeAll(async () => {
  begun = await createDatabase()
  const step = await start(writeProject({ scripts: [base] }), begun, { mode: 'apply' })
  expect(step.outputs.outcome, step.log).toBe('applied')
})

/** One batch with a revision for each of the scripts, by their names. */
function batchOf(names: string[]) {
  const revisions = new Map(names.map((name, at) => [`b${at}`, scripts[name]!]))
  const bodies = [...revisions].map(([id, { upgrade }]) => ({
    id,
    upgrade: upgrade.includes('names')
      ? `names = sa.table("t", sa.column("name", sa.Text))\n${upgrade.trim()}`
      : upgrade,
  }))
  return { revisions, project: writeProject({ scripts: [base, ...bodies] }) }
}

async function previewOf(project: string, url: string, ids: Iterable<string>): Promise<Step> {
  const preview = await start(project, url, {})
  expect(preview.outputs, preview.log).toMatchObject({ outcome: 'previewed', revisions: JSON.stringify([...ids]) })
  expect(preview.exitCode).toBe(0)
  return preview
}

const apart = 'a value that only the online run has'
const faithful = Object.keys(scripts).filter(name => !scripts[name]!.not)
const others = Object.keys(scripts).filter(name => scripts[name]!.not && name !== apart)

test(`The SQL of the dry run leaves what the online run leaves: ${faithful.join(', ')}`, async () => {
  const { project, revisions } = batchOf(faithful)
  const online = await createDatabase(begun)
  const preview = await previewOf(project, online, revisions.keys())
  const applied = await start(project, online, { mode: 'apply' })
  expect(applied.outputs.outcome, applied.log).toBe('applied')
  const sql = readFileSync(preview.outputs['sql-file']!, 'utf8')
  const rendered = await createDatabase(begun)
  await query(rendered, sql)
  expect(await contents(rendered), sql).toBe(await contents(online))
})

describe('The dry run tells that it cannot show', () => {
  let url: string
  let project: string
  let preview: Step
  const ids = new Map(others.map((name, at) => [name, `b${at}`]))
  beforeAll(async () => {
    url = await createDatabase(begun)
    const batch = batchOf(others)
    project = batch.project
    preview = await previewOf(project, url, batch.revisions.keys())
  })

  test.each(others)('%s', name => expectTold(preview, name, ids.get(name)!))

  test(`${apart}, which the online run has not either`, async () => {
    const { project, revisions } = batchOf([apart])
    expectTold(await previewOf(project, url, revisions.keys()), apart, 'b0')
  })

  test('any of these, and the online run applies all of them', async () => {
    const applied = await start(project, url, { mode: 'apply' })
    expect(applied.outputs.outcome, applied.log).toBe('applied')
  })

  function expectTold(preview: Step, name: string, id: string): void {
    const { not, line } = scripts[name]!
    expect(preview.outputs['sql-file']).toBe('')
    expect(preview.summary).toContain('not rendered')
    const all = preview.summary.match(/No SQL can be shown for this script: .*/g) ?? []
    const told = all.find(each => each.includes(`${id}.py:`)) ?? ''
    expect(told.replaceAll('\\', ''), preview.summary).toMatch(not!)
    expect(told).toMatch(line === undefined ? new RegExp(`/${id}\\.py:\\d+\``) : new RegExp(`/${id}\\.py:${line}\``))
  }
})
