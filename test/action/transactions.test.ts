import { beforeAll, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { type ProjectOptions, writeProject } from '../support/project.mts'
import { withDriver } from '../support/shapes.mts'

/** Python that ends or leaves the transaction, and what the table that it makes holds when the batch was applied. */
interface Way {
  upgrade: (table: string) => string
  rows: number[]
}

/** Every way in which a script is known to end or to leave the transaction of a raw `flask db upgrade`. */
const ways: Record<string, Way> = {
  'op.execute("COMMIT")': {
    rows: [1],
    upgrade: table => `
op.execute("CREATE TABLE ${table} (id int)")
op.execute("COMMIT")
op.execute("INSERT INTO ${table} VALUES (1)")`,
  },
  'several statements with a COMMIT among them': {
    rows: [1],
    upgrade: table =>
      `op.get_bind().exec_driver_sql("CREATE TABLE ${table} (id int); COMMIT; INSERT INTO ${table} VALUES (1); BEGIN")`,
  },
  'a COMMIT on the DBAPI connection': {
    rows: [1],
    upgrade: table => `
op.execute("CREATE TABLE ${table} (id int)")
op.get_bind().connection.commit()
op.execute("INSERT INTO ${table} VALUES (1)")`,
  },
  'autocommit_block()': {
    rows: [1, 2],
    upgrade: table => `
op.execute("CREATE TABLE ${table} (id int)")
with op.get_context().autocommit_block():
    op.execute("INSERT INTO ${table} VALUES (1)")
op.execute("INSERT INTO ${table} VALUES (2)")`,
  },
  'a second connection while the first is in its transaction': {
    rows: [1],
    upgrade: table => `
op.execute("CREATE TABLE ${table} (id int)")
with db.engine.begin() as other:
    other.execute(sa.text("CREATE TABLE aside (id int)"))
    other.execute(sa.text("INSERT INTO aside VALUES (1)"))
op.execute("INSERT INTO ${table} VALUES (1)")`,
  },
  'a second connection that stays open, having read': {
    rows: [1],
    upgrade: table => `
op.execute("CREATE TABLE ${table} (id int)")
other = db.engine.connect()
count = other.execute(sa.text("SELECT count(*) FROM first")).scalar()
op.execute("INSERT INTO ${table} VALUES (%d)" % count)
other.close()`,
  },
  begin_nested: {
    rows: [1],
    upgrade: table => `
bind = op.get_bind()
op.execute("CREATE TABLE ${table} (id int)")
with bind.begin_nested():
    bind.execute(sa.text("INSERT INTO ${table} VALUES (1)"))
undone = bind.begin_nested()
bind.execute(sa.text("INSERT INTO ${table} VALUES (2)"))
undone.rollback()`,
  },
  'an error that the script catches inside of a savepoint': {
    rows: [1],
    upgrade: table => `
bind = op.get_bind()
op.execute("CREATE TABLE ${table} (id int)")
try:
    with bind.begin_nested():
        bind.execute(sa.text("INSERT INTO nowhere VALUES (1)"))
except sa.exc.ProgrammingError:
    bind.execute(sa.text("INSERT INTO ${table} VALUES (1)"))`,
  },
  'a session of its own': {
    rows: [1],
    upgrade: table => `
op.execute("CREATE TABLE ${table} (id int)")
session = sa.orm.Session(bind=op.get_bind())
session.execute(sa.text("INSERT INTO ${table} VALUES (1)"))
session.commit()`,
  },
  'COPY and SET LOCAL': {
    rows: [1, 2, 2],
    upgrade: table => `
op.execute("CREATE TABLE ${table} (id int)")
op.execute("SET LOCAL lock_timeout = '1s'")
cursor = op.get_bind().connection.cursor()
if hasattr(cursor, "copy_expert"):
    import io
    cursor.copy_expert("COPY ${table} FROM STDIN", io.StringIO("1\\n2\\n"))
else:
    with cursor.copy("COPY ${table} FROM STDIN") as copy:
        copy.write_row((1,))
        copy.write_row((2,))
op.execute("INSERT INTO ${table} SELECT count(*) FROM ${table}")`,
  },
}

/** The ways of a project: its scripts are plain ones. */
const options: Record<string, Omit<ProjectOptions, 'scripts'>> = {
  transaction_per_migration: { migrate: 'transaction_per_migration=True' },
  'isolation_level="AUTOCOMMIT"': { engineOptions: '{"isolation_level": "AUTOCOMMIT"}' },
}
const plain: Way = {
  rows: [1],
  upgrade: table => `op.execute("CREATE TABLE ${table} (id int)")\nop.execute("INSERT INTO ${table} VALUES (1)")`,
}

/** One revision for each way, between a first one and a last one. */
const scripts = (ways: Way[], last: string) => [
  { id: 'aaa1', upgrade: 'op.execute("CREATE TABLE first (id int)")\nop.execute("INSERT INTO first VALUES (7)")' },
  ...ways.map(({ upgrade }, at) => ({ id: `bbb${at}`, upgrade: upgrade(`way_${at}`) })),
  { id: 'ccc3', upgrade: last },
]

/** At the first revision. */
let begun: string
beforeAll(async () => {
  begun = await createDatabase()
  await query(
    begun,
    `CREATE TABLE first (id int); INSERT INTO first VALUES (7);
     CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY);
     INSERT INTO alembic_version VALUES ('aaa1')`,
  )
})

/** When the last revision fails, nothing of any way may be left; without the failure all of it is there. */
async function expectAllOrNothing(driver: string, ways: Way[], more: Omit<ProjectOptions, 'scripts'> = {}) {
  const url = await createDatabase(begun)
  const driverUrl = withDriver(url, driver)
  const before = await contents(url)

  const failing = writeProject({ scripts: scripts(ways, 'op.execute("SELECT 1/0")'), ...more })
  const failed = await start(failing, driverUrl, { mode: 'apply' })
  expect(failed.outputs, failed.log).toMatchObject({
    outcome: 'rolled-back',
    'failure-reason': 'migration-failed',
    'prior-head': 'aaa1',
    'new-head': 'aaa1',
  })
  expect(failed.log).toContain('division by zero')
  expect(await contents(url)).toBe(before)

  const working = writeProject({ scripts: scripts(ways, 'op.execute("CREATE TABLE third (id int)")'), ...more })
  const applied = await start(working, driverUrl, { mode: 'apply' })
  expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'ccc3' })
  const after = await contents(url)
  for (const table of ['first', 'third']) expect(after).toContain(`public | ${table} | r`)
  const found = ways.map((_, at) => query(url, `SELECT id FROM way_${at} ORDER BY id`))
  const rows = (await Promise.all(found)).map(({ rows }) => rows.map(row => row.id))
  expect(rows).toEqual(ways.map(({ rows }) => rows))
  expect(await leftovers(url)).toEqual([])
}

describe('all or nothing, whatever the scripts do', () => {
  const names = Object.keys(ways)
  // In both orders, so that no way stands only behind another one.
  for (const [driver, order] of [
    ['psycopg', names],
    ['psycopg2', names.toReversed()],
  ] as const)
    test(`${order.join(', ')} (${driver})`, () =>
      expectAllOrNothing(
        driver,
        order.map(name => ways[name]!),
      ))
})

describe('all or nothing, however the project has it', () => {
  for (const [name, more] of Object.entries(options))
    for (const driver of ['psycopg', 'psycopg2'])
      test(`${name} (${driver})`, () => expectAllOrNothing(driver, [plain], more))
})
