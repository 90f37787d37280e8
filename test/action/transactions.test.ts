import { beforeAll, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { type ProjectOptions, writeProject } from '../support/project.mts'

/**
 * Every way in which a script or env.py is known to end or to leave the transaction of a raw `flask db upgrade`, in the
 * second of three revisions, of which the third fails: nothing of it may be left. Without the failure all of it is there.
 */
/** `rows` is what the table `second` holds when the batch was applied. */
const ways: Record<string, { second: string; rows: number[] } & Omit<ProjectOptions, 'scripts'>> = {
  transaction_per_migration: {
    rows: [],
    second: 'op.execute("CREATE TABLE second (id int)")',
    migrate: 'transaction_per_migration=True',
  },
  'op.execute("COMMIT")': {
    rows: [1],
    second: `
op.execute("CREATE TABLE second (id int)")
op.execute("COMMIT")
op.execute("INSERT INTO second VALUES (1)")`,
  },
  'several statements with a COMMIT among them': {
    rows: [1],
    second:
      'op.get_bind().exec_driver_sql("CREATE TABLE second (id int); COMMIT; INSERT INTO second VALUES (1); BEGIN")',
  },
  'a COMMIT on the DBAPI connection': {
    rows: [1],
    second: `
op.execute("CREATE TABLE second (id int)")
op.get_bind().connection.commit()
op.execute("INSERT INTO second VALUES (1)")`,
  },
  'autocommit_block()': {
    rows: [1, 2],
    second: `
op.execute("CREATE TABLE second (id int)")
with op.get_context().autocommit_block():
    op.execute("INSERT INTO second VALUES (1)")
op.execute("INSERT INTO second VALUES (2)")`,
  },
  'isolation_level="AUTOCOMMIT"': {
    rows: [1],
    second: `
op.execute("CREATE TABLE second (id int)")
op.execute("INSERT INTO second VALUES (1)")`,
    engineOptions: '{"isolation_level": "AUTOCOMMIT"}',
  },
  'a second connection while the first is in its transaction': {
    rows: [1],
    second: `
op.execute("CREATE TABLE second (id int)")
with db.engine.begin() as other:
    other.execute(sa.text("CREATE TABLE aside (id int)"))
    other.execute(sa.text("INSERT INTO aside VALUES (1)"))
op.execute("INSERT INTO second VALUES (1)")`,
  },
  'a second connection that stays open, having read': {
    rows: [1],
    second: `
op.execute("CREATE TABLE second (id int)")
other = db.engine.connect()
count = other.execute(sa.text("SELECT count(*) FROM first")).scalar()
op.execute("INSERT INTO second VALUES (%d)" % count)
other.close()`,
  },
  begin_nested: {
    rows: [1],
    second: `
bind = op.get_bind()
op.execute("CREATE TABLE second (id int)")
with bind.begin_nested():
    bind.execute(sa.text("INSERT INTO second VALUES (1)"))
undone = bind.begin_nested()
bind.execute(sa.text("INSERT INTO second VALUES (2)"))
undone.rollback()`,
  },
  'an error that the script catches inside of a savepoint': {
    rows: [1],
    second: `
bind = op.get_bind()
op.execute("CREATE TABLE second (id int)")
try:
    with bind.begin_nested():
        bind.execute(sa.text("INSERT INTO nowhere VALUES (1)"))
except sa.exc.ProgrammingError:
    bind.execute(sa.text("INSERT INTO second VALUES (1)"))`,
  },
  'a session of its own': {
    rows: [1],
    second: `
op.execute("CREATE TABLE second (id int)")
session = sa.orm.Session(bind=op.get_bind())
session.execute(sa.text("INSERT INTO second VALUES (1)"))
session.commit()`,
  },
  'COPY and SET LOCAL': {
    rows: [1, 2, 2],
    second: `
op.execute("CREATE TABLE second (id int)")
op.execute("SET LOCAL lock_timeout = '1s'")
cursor = op.get_bind().connection.cursor()
if hasattr(cursor, "copy_expert"):
    import io
    cursor.copy_expert("COPY second FROM STDIN", io.StringIO("1\\n2\\n"))
else:
    with cursor.copy("COPY second FROM STDIN") as copy:
        copy.write_row((1,))
        copy.write_row((2,))
op.execute("INSERT INTO second SELECT count(*) FROM second")`,
  },
}

const scripts = (second: string, third: string) => [
  { id: 'aaa1', upgrade: 'op.execute("CREATE TABLE first (id int)")\nop.execute("INSERT INTO first VALUES (7)")' },
  { id: 'bbb2', upgrade: second },
  { id: 'ccc3', upgrade: third },
]

/** At the first revision. */
let begun: string
beforeAll(async () => {
  begun = await createDatabase()
  const step = await start(writeProject({ scripts: scripts('pass', 'pass') }), begun, {
    mode: 'apply',
    revision: 'aaa1',
  })
  expect(step.outputs.outcome, step.log).toBe('applied')
})

for (const driver of ['psycopg', 'psycopg2']) {
  describe(`with ${driver}`, () => {
    for (const [name, { second, rows, ...options }] of Object.entries(ways)) {
      test(`${name}: all or nothing`, async () => {
        const url = await createDatabase(begun)
        const driverUrl = url.replace('postgresql:', `postgresql+${driver}:`)
        const before = await contents(url)

        const failing = writeProject({ scripts: scripts(second, 'op.execute("SELECT 1/0")'), ...options })
        const failed = await start(failing, driverUrl, { mode: 'apply' })
        expect(failed.outputs, failed.log).toMatchObject({
          outcome: 'rolled-back',
          'failure-reason': 'migration-failed',
          'prior-head': 'aaa1',
          'new-head': 'aaa1',
        })
        expect(failed.log).toContain('division by zero')
        expect(await contents(url)).toBe(before)

        const working = writeProject({
          scripts: scripts(second, 'op.execute("CREATE TABLE third (id int)")'),
          ...options,
        })
        const applied = await start(working, driverUrl, { mode: 'apply' })
        expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'ccc3' })
        const after = await contents(url)
        for (const table of ['first', 'second', 'third']) expect(after).toContain(`public | ${table} | r`)
        const found = await query(url, 'SELECT id FROM second ORDER BY id')
        expect(found.rows.map(row => row.id)).toEqual(rows)
        expect(await leftovers(url)).toEqual([])
      })
    }
  })
}
