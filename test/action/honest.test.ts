import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { type Script, writeProject } from '../support/project.mts'
import { anyDriver, has } from '../support/stack.mts'

const offline = { 'from-revision': 'base', comment: 'false' }

/** One script of each, in a row: an id is `r` and its number. */
const inARow = (bodies: Omit<Script, 'id'>[]): Script[] => bodies.map((body, n) => ({ id: `r${n}`, ...body }))

/** Why each revision is not shown, by its id. */
const reasonsIn = (log: string): Record<string, string> =>
  Object.fromEntries([...log.matchAll(/^(r\d+) .*?: not rendered, (.*)$/gm)].map(([, id, why]) => [id, why]))

const driver = anyDriver

const hasColumn = `def has_column(bind):
    try:
        return "name" in [each["name"] for each in sa.inspect(bind).get_columns("t")]
    except Exception:
        return False`
const branch = `op.execute("UPDATE t SET name = 'x'" if there else "DELETE FROM t")`

/** Scripts that ask the database something and go on without an answer. */
const swallowed: [what: string, upgrade: string, why: RegExp, module?: string][] = [
  ['the inspector, in a helper', `there = has_column(op.get_bind())\n${branch}`, /reads the database/, hasColumn],
  [
    'a bare except',
    `there = True\ntry:\n    op.get_bind().scalar(sa.text("SELECT 1"))\nexcept:\n    there = False\n${branch}`,
    /reads the database/,
  ],
  [
    'a BaseException',
    `there = True\ntry:\n    op.get_bind().execute(sa.text("SELECT 1")).fetchall()\nexcept BaseException:\n    there = False\n${branch}`,
    /reads the result/,
  ],
  [
    'a loop over rows that is suppressed',
    `import contextlib
there = False
with contextlib.suppress(Exception):
    for row in op.get_bind().execute(sa.text("SELECT 1")):
        there = True
${branch}`,
    /reads the result/,
  ],
  [
    'finally: return',
    `def rows():
    try:
        return op.get_bind().execute(sa.text("SELECT 1")).rowcount
    finally:
        return 0
there = rows()
${branch}`,
    /reads the result/,
  ],
  [
    'an exception of its own in its place',
    `try:
    there = op.get_bind().execute(sa.text("SELECT 1")).first()
except Exception:
    try:
        raise ValueError("no such thing")
    except ValueError:
        there = False
${branch}`,
    /reads the result/,
  ],
  [
    'a session',
    `from sqlalchemy.orm import Session
try:
    there = Session(bind=op.get_bind()).execute(sa.text("SELECT 1")).all()
except Exception:
    there = False
${branch}`,
    /reads the database/,
  ],
  [
    'the app’s session',
    `try:\n    there = db.session.execute(sa.text("SELECT 1")).all()\nexcept Exception:\n    there = False\n${branch}`,
    /connects to the database/,
  ],
  [
    'the connection of the context',
    `try:\n    there = sa.inspect(op.get_context().bind).has_table("t")\nexcept Exception:\n    there = False\n${branch}`,
    /reads the database/,
  ],
  [
    'has_table of the dialect',
    `try:\n    there = op.get_bind().dialect.has_table(op.get_bind(), "t")\nexcept Exception:\n    there = False\n${branch}`,
    /reads|parameters/,
  ],
  [
    'an engine beside',
    `try:\n    with db.engine.connect() as c:\n        there = c.scalar(sa.text("SELECT 1"))\nexcept Exception:\n    there = False\n${branch}`,
    /connects to the database/,
  ],
  [
    'an engine beside, in a thread',
    `from concurrent.futures import ThreadPoolExecutor
engine = db.engine
def ask():
    with engine.connect() as c:
        return c.scalar(sa.text("SELECT 1"))
with ThreadPoolExecutor() as pool:
    there = pool.submit(ask).exception() is None
${branch}`,
    /connects to the database/,
  ],
  [
    'the driver itself',
    `import os, ${driver}\ntry:\n    there = ${driver}.connect(os.environ["DATABASE_URL"])\nexcept Exception:\n    there = False\n${branch}`,
    /connects to the database/,
  ],
  [
    'an engine with a creator',
    `import ${driver}
try:
    there = sa.create_engine("postgresql+${anyDriver}://", creator=lambda: ${driver}.connect("dbname=x")).connect()
except Exception:
    there = False
${branch}`,
    /connects to the database/,
  ],
  [
    'reflection',
    `try:\n    there = sa.Table("t", sa.MetaData(), autoload_with=op.get_bind())\nexcept Exception:\n    there = False\n${branch}`,
    /reads the database/,
  ],
  [
    'reflection of a batch operation',
    `there = False
try:
    with op.batch_alter_table("t", recreate="always") as batch:
        batch.add_column(sa.Column("x", sa.Text))
    there = True
except Exception:
    pass
${branch}`,
    /reads the database/,
  ],
  [
    'parameters',
    `try:\n    op.get_bind().execute(sa.text("SELECT :a"), {"a": 1})\n    there = True\nexcept Exception:\n    there = False\n${branch}`,
    /statement with parameters/,
  ],
  [
    'checkfirst',
    `try:\n    sa.Enum("a", name="e").create(op.get_bind(), checkfirst=True)\n    there = True\nexcept Exception:\n    there = False\n${branch}`,
    /checkfirst/,
  ],
  [
    'whether it is offline',
    `from alembic import context
try:
    there = not context.is_offline_mode()
except Exception:
    there = False
${branch}`,
    /asks whether it runs offline/,
  ],
  ['the heads', `there = op.get_context().get_current_heads()\n${branch}`, /reads the database|heads/],
  [
    'the version of the server',
    `there = (op.get_bind().dialect.server_version_info or ()) >= (12,)\n${branch}`,
    /version of the server/,
  ],
  [
    'the version of the server, as a construct of its own is compiled',
    'op.execute(Mine())',
    /version of the server/,
    `from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable
class Mine(Executable, ClauseElement):
    inherit_cache = False
@compiles(Mine)
def compile_mine(element, compiler, **options):
    return "UPDATE t SET name = 'x'" if compiler.dialect.server_version_info else "DELETE FROM t"`,
  ],
  [
    'a look at what a result has',
    `there = hasattr(op.get_bind().execute(sa.text("SELECT 1")), "rowcount")\n${branch}`,
    /reads the result/,
  ],
  [
    'a result as a context manager',
    `try:\n    with op.get_bind().execute(sa.text("SELECT 1")) as result:\n        there = True\nexcept Exception:\n    there = False\n${branch}`,
    /reads the result/,
  ],
  ...[
    ['isinstance', 'isinstance(bind, sa.engine.Connection)'],
    ['__class__', 'bind.__class__ is sa.engine.Connection'],
    ['issubclass', 'issubclass(bind.__class__, sa.engine.Connection)'],
    ['singledispatch', 'dispatched(bind)'],
    ['connect', 'hasattr(bind, "connect")'],
    ['in_transaction', 'hasattr(bind, "in_transaction")'],
    ['the URL', 'bool(getattr(bind.engine, "url", None))'],
    ['the pool', 'hasattr(bind.engine, "pool")'],
    ['closed', 'getattr(bind, "closed", None) is False'],
    ['the connection of the context', 'isinstance(op.get_context().connection, sa.engine.Connection)'],
    ['the bind of the context', 'hasattr(op.get_context().bind, "info")'],
    ['the DBAPI', 'bind.dialect.dbapi is not None'],
    ['how parameters are written', 'bind.dialect.paramstyle != "named"'],
    ['the options of env.py', 'not op.get_context().environment_context.context_opts.get("as_sql")'],
    ['an inspection that need not succeed', 'sa.inspect(bind, raiseerr=False) is not None'],
    ['the inspector of an engine', 'sa.inspect(bind.engine, raiseerr=False) is not None'],
  ].map(([what, there]): (typeof swallowed)[number] => [
    `what its bind is: ${what}`,
    `bind = op.get_bind()\ntry:\n    there = ${there}\nexcept Exception:\n    there = False\n${branch}`,
    /reads the database|asks whether it runs offline/,
    `import functools
@functools.singledispatch
def dispatched(bind):
    return False
@dispatched.register(sa.engine.Connection)
def _(bind):
    return True`,
  ]),
  [
    'as it is imported',
    branch,
    /connects to the database/,
    `try:\n    db_there = sa.create_engine("postgresql+${anyDriver}://nobody@127.0.0.1:9/x").connect()\nexcept Exception:\n    db_there = None\nthere = bool(db_there)`,
  ],
]

test('A script that asks the database is not shown, whatever it does with our refusal', async () => {
  const scripts = inARow(swallowed.map(([message, upgrade, , module]) => ({ message, upgrade, module: module ?? '' })))
  const step = await start(writeProject({ scripts }), '', offline)
  expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'plan-file': '', 'sql-file': '' })
  const reasons = reasonsIn(step.log)
  const named = swallowed.map(([what], n) => [what, reasons[`r${n}`] ?? 'shown'])
  expect(named).toEqual(swallowed.map(([what, , why]) => [what, expect.stringMatching(why)]))
  expect(step.summary).not.toContain('DELETE FROM t')
})

test('A script that only looks at what a dry run knows is shown', async () => {
  const scripts = inARow([
    { upgrade: `if op.get_bind().dialect.name == "postgresql":\n    op.execute("CREATE TABLE t (name text)")` },
    { upgrade: `bind = op.get_bind()\nbind.execute(sa.text("UPDATE t SET name = 'y'"))\nbind.engine.dialect.name` },
    { upgrade: `sa.Enum("a", name="e").create(op.get_bind(), checkfirst=False)` },
    { upgrade: `try:\n    import not_there\nexcept ImportError:\n    op.execute("SELECT 1")` },
    { upgrade: `with op.batch_alter_table("t") as batch:\n    batch.add_column(sa.Column("x", sa.Text))` },
  ])
  // Two that load it at the same time would both make the folder.
  const app = `import time\nmade = os.path.exists("made")\ntime.sleep(0.2)\nmade or os.mkdir("made")`
  const step = await start(writeProject({ scripts, app }), '', offline)
  expect(reasonsIn(step.log), step.log).toEqual({})
  expect(step.outputs['plan-file']).not.toBe('')
})

const insert = (value: string) => `op.execute("INSERT INTO t (name) VALUES ('%s')" % ${value})`

/** Scripts that write something else every time. */
const varying: [what: string, upgrade: string, module?: string][] = [
  ['a module-level uuid4()', insert('ID'), 'import uuid\nID = uuid.uuid4()'],
  ['a module-level now()', insert('NOW'), 'import datetime\nNOW = datetime.datetime.now()'],
  ['a module-level random value', insert('R'), 'import random\nR = random.random()'],
  ['a value of a helper’s module', insert('stamps.TOKEN'), 'import stamps'],
  ['a default argument', insert('at()'), 'import time\ndef at(at=time.time_ns()):\n    return at'],
  ['the number of the process', insert('os.getpid()'), 'import os'],
  ['today', insert('datetime.date.today()'), 'import datetime'],
  [
    'today in UTC, to the day',
    insert('datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d 00:00:00")'),
    'import datetime',
  ],
  ['a table of the day', `op.execute("CREATE TABLE t_%s (id int)" % time.strftime("%Y%m%d"))`, 'import time'],
  ['the second', insert('datetime.datetime.now().strftime("%H:%M:%S")'), 'import datetime'],
  [
    'the hour and minute, as a bound value',
    `op.bulk_insert(sa.table("t", sa.column("at", sa.DateTime)), [{"at": datetime.datetime.now().replace(second=0, microsecond=0)}])`,
    'import datetime',
  ],
  ['seconds since 1970', insert('(int(time.time()) // 60 * 60)'), 'import time'],
  ['today in words', insert('datetime.date.today().strftime("%d %B %Y")'), 'import datetime'],
  ['today in short', insert('TODAY.strftime("%b %d, %Y")'), 'import datetime\nTODAY = datetime.datetime.utcnow()'],
  ['the year', insert('datetime.date.today().year'), 'from datetime import date, datetime as now\nimport datetime'],
  ['the first of the month', insert('datetime.date.today().replace(day=1)'), 'import datetime'],
  ['another day', insert('(datetime.date.today() - datetime.timedelta(days=90))'), 'import datetime'],
  ['the day of the week', insert('time.strftime("%A")'), 'import time'],
  ['the month', insert('time.localtime().tm_mon'), 'import time'],
  ['the day of a helper that it imports', insert('days.TODAY.day'), 'import days'],
  ['what a helper of the app’s says', insert('year()'), 'from app import year'],
  [
    'a partition of the month',
    `op.execute("CREATE TABLE p_%d_%d (id int)" % (now.year, now.month))`,
    'import datetime\nnow = datetime.datetime.now(datetime.timezone.utc)',
  ],
  [
    'a branch',
    `op.execute("SELECT 1" if time.time() < ${Math.floor(Date.now() / 1000)} + 86400 else "SELECT 2")`,
    'import time',
  ],
]

test('A script that writes something else every time is not shown as if it were fixed', async () => {
  const fixed: Omit<Script, 'id'> = {
    module: `import datetime, pickle, time\nassert type(datetime.datetime.now()) is datetime.datetime`,
    upgrade: `${insert('"2020-02-29 12:00"')}\nop.execute("SELECT 1700000000")
${insert('datetime.date(2020, 2, 29).strftime("%d %B %Y")')}
${insert('pickle.loads(pickle.dumps(datetime.datetime(2020, 2, 29)))')}
${insert('time.strftime("%Y", time.gmtime(0))')}
assert time.monotonic() - time.monotonic() < 1 and datetime.datetime.now() > datetime.datetime(2020, 1, 1)`,
  }
  const scripts = inARow([...varying.map(([message, upgrade, module = '']) => ({ message, upgrade, module })), fixed])
  // As the app is loaded it has the time of everybody, for it may do something about what has expired.
  const app = `import datetime, time
def year():
    return datetime.date.today().year
assert abs(time.time() - os.stat(__file__).st_mtime) < 86400`
  const project = writeProject({ scripts, app })
  writeFileSync(join(project, 'days.py'), 'from datetime import date\nTODAY = date.today()\n')
  writeFileSync(join(project, 'stamps.py'), 'import secrets\nTOKEN = secrets.token_hex()\n')
  const url = await createDatabase()
  for (const step of [await start(project, '', offline), await start(project, url, { comment: 'false' })]) {
    expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'plan-file': '', 'sql-file': '' })
    const reasons = reasonsIn(step.log)
    const named = varying.map(([what], n) => [what, reasons[`r${n}`] ?? 'shown'])
    const why = expect.stringMatching(/something else every time|of today|last minutes/)
    expect(named).toEqual(varying.map(([what]) => [what, why]))
    expect(reasons[`r${varying.length}`]).toBeUndefined()
  }
})

/** What a column of that type is given, in Python; `twin: false` where it may be named instead. */
const values: [type: string, ...values: string[]][] = [
  ['LargeBinary', String.raw`b"a\\b\x00\xff'%:x"`, 'b""', String.raw`b"\\x41"`, String.raw`memoryview(b"\\101")`],
  [
    'Interval',
    '-timedelta(seconds=1)',
    'timedelta(days=-3, hours=5)',
    'timedelta(days=40, microseconds=1)',
    '-timedelta(microseconds=1)',
    'timedelta(0)',
  ],
  [
    'DateTime',
    'datetime(2020, 2, 29, 12, 0, 0, 123456)',
    'datetime(1, 1, 1)',
    'datetime(2020, 7, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))',
  ],
  [
    'DateTime(timezone=True)',
    'datetime(2020, 7, 1, 12, tzinfo=timezone(timedelta(hours=-9, minutes=-30)))',
    'datetime(2020, 7, 1, 12, tzinfo=timezone.utc)',
    'datetime(2020, 1, 1)',
  ],
  ['Date', 'date(2020, 2, 29)', 'date(9999, 12, 31)'],
  ['Time', 'time(23, 59, 59, 999999)', 'time(0)'],
  ['Time(timezone=True)', 'time(12, 0, tzinfo=timezone(timedelta(hours=2)))'],
  [
    'Numeric',
    'Decimal("NaN")',
    'Decimal("1.10")',
    'Decimal("-1E+5")',
    'Decimal("0E-8")',
    'Decimal("12345678901234567890.123456789")',
    '0.1 + 0.2',
    '7',
  ],
  ['Float', 'float("nan")', 'float("inf")', 'float("-inf")', '1e300', '-0.1', '-0.0', '5e-324'],
  ['REAL', '0.1', '1e-40', '16777217.0'],
  ['Integer', '-2147483648', '0'],
  ['BigInteger', '-9223372036854775808', '9223372036854775807'],
  ['Boolean', 'True', 'False'],
  [
    'Text',
    String.raw`"back\\slash '\" % %% :name ::x \t \n \r é 😀 $1 $$ -- /* ; COMMIT; ?"`,
    '""',
    String.raw`"\\"`,
    String.raw`"a\\'b"`,
    '" "',
  ],
  ['String(9)', '"it’s"', String.raw`"C:\\new\\t"`],
  ['JSON', String.raw`{"a": [1, 2.5, None, "it's \\ é \" %"]}`, 'None', '"text"', '[]', 'True'],
  ['JSON(none_as_null=True)', 'None', '{}'],
  ['JSONB', String.raw`{"a": {"b": "\\"}}`, 'None', '3'],
  ['Enum("fi’ne", "50%", "a\\\\b", name="mood")', '"50%"', '"a\\\\b"', '"fi’ne"'],
  ['Uuid', 'uuid.UUID(int=1)'],
  ['Uuid(as_uuid=False)', '"00000000-0000-0000-0000-000000000002"'],
  ['ARRAY(Integer)', '[1, -2, None]', '[]'],
  ['ARRAY(Text)', String.raw`["a'b", "c\\d", "{,}", "NULL", "", "%"]`, '[]'],
  ['ARRAY(Text, dimensions=2)', '[["a", "b"], ["c", "d"]]'],
  ['ARRAY(Numeric)', '[Decimal("1.10"), Decimal("NaN")]'],
  ['ARRAY(LargeBinary)', String.raw`[b"\\", b"\x00"]`],
  ['ARRAY(DateTime(timezone=True))', '[datetime(2020, 7, 1, tzinfo=timezone.utc)]'],
  ['INET', '"10.0.0.1"'],
  ['INT4RANGE', 'Range(1, 5)', 'Range(None, 5, bounds="(]")', 'Range(empty=True)'],
  ['TSTZRANGE', 'Range(datetime(2020, 1, 1, tzinfo=timezone.utc), None)'],
  ['DATERANGE', 'Range(date(2020, 1, 1), date(2020, 2, 1), bounds="[]")'],
]

const imports = `from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
import enum
import uuid
from sqlalchemy.types import *
from sqlalchemy.dialects.postgresql import ARRAY, INET, JSONB, REAL
${has.psycopg3 ? 'from sqlalchemy.dialects.postgresql import DATERANGE, INT4RANGE, Range, TSTZRANGE' : ''}

class Color(enum.Enum):
    RED = 1

class Upper(TypeDecorator):
    impl = Text
    cache_ok = True
    def process_bind_param(self, value, dialect):
        return value.upper()

class Packed(TypeDecorator):
    impl = LargeBinary
    cache_ok = True
    def process_bind_param(self, value, dialect):
        return value.encode() + b"\\\\"
`
const decorated: typeof values = [
  ['Upper', `"it's"`],
  ['Packed', '"x"'],
  ['Enum(Color)', 'Color.RED'],
]

/** What came with SQLAlchemy 2.0. */
const newer = has.psycopg3 ? [] : ['Uuid', 'Uuid(as_uuid=False)', 'INT4RANGE', 'TSTZRANGE', 'DATERANGE']

/** Writes the values of each type by bulk_insert, by values(), and as a condition. */
function scriptOf([type, ...given]: (typeof values)[number], n: number): Omit<Script, 'id'> {
  const column = `sa.Column("v", ${type})`
  return {
    module: imports,
    message: type,
    upgrade: `
op.create_table("t${n}", sa.Column("id", sa.Integer, primary_key=True), ${column}, sa.Column("w", sa.Text))
t = sa.table("t${n}", sa.column("id", sa.Integer), sa.column("v", ${type}), sa.column("w", sa.Text))
values = [${given.join(', ')}]
op.bulk_insert(t, [{"id": i, "v": v} for i, v in enumerate(values)])
for i, v in enumerate(values):
    op.execute(t.insert().values(id=100 + i, v=v))
    op.execute(t.update().where(t.c.id == i).values(v=v, w="%d" % i))`,
  }
}

describe('What is shown is the value that the online run stores, or the script is named', () => {
  test.each(['psycopg', 'psycopg2'].slice(has.psycopg3 ? 0 : 1))('by %s', async driver => {
    const all = [...values, ...decorated].filter(([type]) => !newer.includes(type))
    const project = writeProject({ scripts: inARow(all.map(scriptOf)) })
    const environment = { DATABASE_URL: `postgresql+${driver}://nobody@nowhere/x` }
    const online = await createDatabase()
    const preview = await start(project, online, { comment: 'false' }, { environment })
    expect(preview.outputs.outcome, preview.log).toBe('previewed')
    expect.soft(reasonsIn(preview.log), preview.log).toEqual({})
    const applied = await start(project, online, { mode: 'apply', comment: 'false' }, { environment })
    expect(applied.outputs.outcome, applied.log).toBe('applied')
    const byFile = await createDatabase()
    await query(byFile, readFileSync(preview.outputs['sql-file']!, 'utf8'))
    expect((await contents(byFile)).split('\n')).toEqual((await contents(online)).split('\n'))
  })

  test('rows that differ in their columns, and text that PostgreSQL cannot store', async () => {
    const t = 't = sa.table("t", sa.column("a", sa.Text), sa.column("b", sa.Text))\n'
    const scripts = inARow([
      { upgrade: `${t}op.bulk_insert(t, [{"a": "x"}, {"a": "y", "b": "z"}])` },
      { upgrade: `${t}op.execute(t.insert().values(a="\\0"))` },
      { upgrade: `${t}op.execute(t.insert().values(a="\\ud800"))` },
      { upgrade: `${t}op.bulk_insert(t, [{"a": "x"}, {"a": "y", "b": "z"}], multiinsert=False)` },
    ])
    const step = await start(writeProject({ scripts }), '', offline)
    expect(reasonsIn(step.log), step.log).toEqual({
      r0: expect.stringContaining('columns'),
      r1: expect.stringContaining('null'),
      r2: expect.stringContaining('surrogate'),
    })
  })
})
