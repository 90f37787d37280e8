import type { ProjectOptions, Script } from '../support/project.mts'
import type { Chapter, Scenario } from './scenario.mts'

const before: Script = {
  id: 'a1',
  upgrade: `op.create_table("t", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
op.execute("INSERT INTO t (name) VALUES ('a'), ('ab'), ('c')")`,
  downgrade: 'op.drop_table("t")',
}
const names = 'SELECT name FROM t ORDER BY id'

/** One revision on top of `a1`, and what `rows` gives when it has run. */
function difference(
  name: string,
  upgrade: string,
  are: string,
  { rows = names, ...more }: Partial<Scenario> & Partial<ProjectOptions> & { rows?: string } = {},
): Scenario {
  const { app, migrate, ...scenario } = more
  const project = { scripts: [before, { id: 'b2', upgrade }], ...(app && { app }), ...(migrate && { migrate }) }
  return { name, project, from: 'a1', expected: { head: 'b2', rows: [rows], are: [are] }, ...scenario }
}

/** A revision that can be rendered, and one that cannot. */
function notRendered(name: string, upgrade: string, are: string): Scenario {
  const scripts = [
    before,
    { id: 'b2', upgrade: `op.execute("INSERT INTO t (name) VALUES ('b2')")` },
    { id: 'c3', upgrade },
  ]
  return { name, project: { scripts }, from: 'a1', expected: { head: 'c3', rows: [names], are: [are] } }
}

const insert = (name: string) => `op.execute("INSERT INTO t (name) VALUES ('${name}')")`

export const offline: Chapter = {
  title: 'Where the SQL of offline mode is not what the scripts do',
  text: 'Every script here works online. The first rows are differences without a word: the SQL runs, and the exit code is 0.',
  scenarios: [
    difference('A percent sign', 'op.add_column("t", sa.Column("share", sa.Text, server_default="50%"))', '50%', {
      rows: 'SELECT DISTINCT share FROM t',
    }),
    difference(
      'Parameters of a statement on the connection',
      'op.get_bind().execute(sa.text("DELETE FROM t WHERE name IS DISTINCT FROM :kept"), {"kept": "a"})',
      'a',
    ),
    difference('A colon in a string', `op.execute("INSERT INTO t (name) VALUES ('{\\"open\\":true}')")`, '', {
      expected: 'unchanged',
      shown: `SELECT string_agg(name, ',' ORDER BY id) FROM t`,
    }),
    difference(
      'bulk_insert() with a default that Python computes',
      `op.add_column("t", sa.Column("extra", sa.Text))
stamped = sa.table("t", sa.Column("name", sa.Text), sa.Column("extra", sa.Text, default="given"))
op.bulk_insert(stamped, [{"name": "x"}])`,
      'given',
      { rows: `SELECT coalesce(extra, 'NULL') FROM t WHERE name = 'x'` },
    ),
    difference('A tab in a string', insert('x\\ty'), 'x<tab>y', {
      rows: `SELECT replace(name, chr(9), '<tab>') FROM t WHERE name LIKE 'x%'`,
    }),
    difference(
      'A result as a condition',
      `if op.get_bind().execute(sa.text("SELECT 1 FROM t")):\n    ${insert('x')}`,
      'a,ab,c,x',
    ),
    difference(
      'is_offline_mode()',
      `from alembic import context\nif not context.is_offline_mode():\n    ${insert('x')}`,
      'a,ab,c,x',
    ),
    difference(
      'A value that Python makes anew (uuid4), and what a preview has shown before',
      `import uuid\nop.execute(f"INSERT INTO t (name) VALUES ('{uuid.uuid4()}')")`,
      'nothing else was shown',
      { rows: 'SELECT name FROM t WHERE length(name) = 36', shows: /\w{8}(-\w{4}){3}-\w{12}/ },
    ),
    difference('Migrate(version_table=…)', insert('x'), 'a,ab,c,x', {
      migrate: 'version_table="schema_version"',
      versionTable: 'schema_version',
      before: [],
      from: '',
    }),
    difference(
      'A comment at the end of a statement',
      `op.execute("INSERT INTO t (name) VALUES ('x') -- why not")`,
      'a,ab,c,x',
    ),
    difference(
      'An enum that may be there already (checkfirst)',
      `op.execute("CREATE TYPE color AS ENUM ('red')")
sa.Enum("red", name="color").create(op.get_bind(), checkfirst=True)
op.add_column("t", sa.Column("color", sa.Text, server_default="red"))`,
      'red,red,red',
      { rows: 'SELECT color FROM t' },
    ),
    difference(
      'Several rows of parameters',
      `op.get_bind().execute(sa.text("INSERT INTO t (name) VALUES (:name)"), [{"name": "x"}, {"name": "y"}])`,
      'a,ab,c,x,y',
    ),
    difference('An app that prints', insert('x'), 'a,ab,c,x', { app: 'print("Starting the shop")' }),
    difference('After a downgrade to base', insert('x'), 'a,ab,c,x', {
      before: ['upgrade a1', 'downgrade base'],
      from: '',
    }),
    {
      name: 'Two current heads and their merge',
      project: {
        scripts: [
          before,
          { id: 'b1', down: 'a1', upgrade: insert('b1') },
          { id: 'c1', down: 'a1', upgrade: insert('c1') },
          { id: 'd1', down: ['b1', 'c1'], upgrade: insert('d1') },
        ],
      },
      before: ['upgrade b1', 'upgrade c1'],
      from: 'b1',
      expected: { head: 'd1', rows: [names], are: ['a,ab,c,b1,c1,d1'] },
    },
    notRendered(
      'fetchall() in the second revision',
      `for (name,) in op.get_bind().execute(sa.text("SELECT name FROM t ORDER BY id")).fetchall():
    op.execute(f"INSERT INTO t (name) VALUES ('{name}2')")`,
      'a,ab,c,b2,a2,ab2,c2,b22',
    ),
    notRendered(
      'sa.inspect() in the second revision',
      `if "t" in sa.inspect(op.get_bind()).get_table_names():\n    ${insert('c3')}`,
      'a,ab,c,b2,c3',
    ),
    notRendered(
      'A session in the second revision',
      `session = sa.orm.Session(bind=op.get_bind())
session.execute(sa.text("INSERT INTO t (name) VALUES ('c3')"))
session.commit()`,
      'a,ab,c,b2,c3',
    ),
    notRendered(
      'exec_driver_sql() in the second revision',
      `op.get_bind().exec_driver_sql("INSERT INTO t (name) VALUES ('c3')")`,
      'a,ab,c,b2,c3',
    ),
    notRendered(
      'A column without a type in the second revision',
      `op.bulk_insert(sa.table("t", sa.column("name")), [{"name": "c3"}])`,
      'a,ab,c,b2,c3',
    ),
  ],
}
