import { beforeAll, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { flask, type Script, writeProject } from '../support/project.mts'
import { withDriver } from '../support/shapes.mts'

/** Scripts that use more connections than Alembic's own, as real ones do. */

const tables = `
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
INSERT INTO t SELECT i FROM generate_series(1, 40) i;
CREATE TABLE u (id int PRIMARY KEY);
CREATE TABLE log (line text);
CREATE SEQUENCE s;
CREATE TABLE child (t int REFERENCES t DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION notes(text) RETURNS text LANGUAGE sql AS 'INSERT INTO log VALUES ($1) RETURNING line'`

/** What raw runs, and how: each is a revision of one batch, and each is looked at. */
const carried: Record<string, string> = {
  'a writer inside of a reader that rolls back': `
engine = op.get_bind().engine
with engine.connect() as reader:
    ids = [row[0] for row in reader.execute(sa.text("SELECT id FROM t WHERE id <= 5"))]
    with engine.begin() as writer:
        for i in ids:
            writer.execute(sa.text("INSERT INTO u (id) VALUES (:i)"), {"i": i})`,
  'the same by sessions': `
from sqlalchemy.orm import Session
with Session(db.engine) as reader:
    ids = reader.execute(sa.text("SELECT id FROM t WHERE id BETWEEN 6 AND 9")).scalars().all()
    with Session(db.engine) as writer, writer.begin():
        for i in ids:
            writer.execute(sa.text("INSERT INTO u (id) VALUES (:i)"), {"i": i})`,
  'batches committed beside a reader on the server': `
with db.engine.connect().execution_options(yield_per=3) as reader, db.engine.connect() as writer:
    for part in reader.execute(sa.text("SELECT id FROM t WHERE id BETWEEN 11 AND 19 ORDER BY id")).partitions():
        for (i,) in part:
            writer.execute(sa.text("INSERT INTO u (id) VALUES (:i)"), {"i": i})
            writer.execute(sa.text("UPDATE t SET v = v + 1 WHERE id = :i"), {"i": i})
        writer.commit()`,
  'one transaction beside a reader of the same table': `
with db.engine.connect().execution_options(yield_per=2) as reader, db.engine.begin() as writer:
    for (i,) in reader.execute(sa.text("SELECT id FROM t WHERE id > 20 AND id < 30 ORDER BY id")):
        writer.execute(sa.text("UPDATE t SET v = v + id WHERE id = :i"), {"i": i})`,
  'a function that writes, by SELECT, rolled back and committed': `
with db.engine.connect() as c:
    c.execute(sa.text("SELECT notes('rolled back')"))
    c.rollback()
    c.execute(sa.text("SELECT notes('committed')"))
    c.commit()
    c.execute(sa.text("SELECT notes('closed')"))`,
  'a log that is committed beside what is open': `
with db.engine.connect() as work, db.engine.connect() as log:
    work.execute(sa.text("INSERT INTO u VALUES (101)"))
    log.execute(sa.text("INSERT INTO log VALUES ('one')"))
    log.commit()
    work.execute(sa.text("INSERT INTO u VALUES (102)"))
    log.execute(sa.text("INSERT INTO log VALUES ('two')"))
    log.commit()
    work.commit()`,
  'a savepoint that failed before the log was written': `
with db.engine.connect() as work, db.engine.connect() as log:
    work.execute(sa.text("SELECT count(*) FROM u"))
    try:
        with work.begin_nested():
            work.execute(sa.text("SELECT 1 / 0"))
    except sa.exc.DBAPIError:
        log.execute(sa.text("INSERT INTO log VALUES ('failed')"))
        log.commit()
    work.execute(sa.text("INSERT INTO u VALUES (103)"))
    work.commit()`,
  'threads that fill a column': `
from concurrent.futures import ThreadPoolExecutor
engine = db.engine
def fill(part):
    with engine.begin() as c:
        c.execute(sa.text("SELECT count(*) FROM t WHERE id % 4 = :p"), {"p": part})
        c.execute(sa.text("UPDATE t SET v = v + 1000 WHERE id % 4 = :p"), {"p": part})
        c.execute(sa.text("INSERT INTO log VALUES (:p)"), {"p": "part %d" % part})
with ThreadPoolExecutor(4) as pool:
    list(pool.map(fill, range(4)))`,
  'connections that one thread opens and others use': `
from concurrent.futures import ThreadPoolExecutor
connections = [db.engine.connect() for _ in range(3)]
def count(part):
    c = connections[part]
    for _ in range(3):
        c.execute(sa.text("UPDATE t SET v = v + 1 WHERE id % 3 = :p"), {"p": part})
        c.execute(sa.text("SELECT sum(v) FROM t WHERE id % 3 = :p"), {"p": part})
        c.commit()
with ThreadPoolExecutor(3) as pool:
    list(pool.map(count, range(3)))
for c in connections:
    c.close()`,
  'a row that threads lock before they change it': `
import time
from concurrent.futures import ThreadPoolExecutor
engine = db.engine
def add(_):
    with engine.begin() as c:
        v = c.execute(sa.text("SELECT v FROM t WHERE id = 40 FOR UPDATE")).scalar()
        time.sleep(0.05)
        c.execute(sa.text("UPDATE t SET v = :v WHERE id = 40"), {"v": v + 1})
with ThreadPoolExecutor(4) as pool:
    list(pool.map(add, range(4)))`,
  'a deferred constraint that one breaks while another has written': `
with db.engine.connect() as work, db.engine.connect() as other:
    work.execute(sa.text("INSERT INTO u VALUES (104)"))
    other.execute(sa.text("INSERT INTO child VALUES (999)"))
    try:
        other.commit()
    except sa.exc.IntegrityError:
        other.rollback()
        other.execute(sa.text("INSERT INTO log VALUES ('broken')"))
        other.commit()
    work.execute(sa.text("INSERT INTO t VALUES (999)"))
    work.commit()`,
  'a large answer that is read beside a writer': `
with db.engine.connect().execution_options(yield_per=1) as reader, db.engine.connect() as writer:
    source = reader.connection.cursor()
    source.execute("SELECT i, repeat('x', 1000) FROM generate_series(1, 3000) i")
    writer.execute(sa.text("INSERT INTO log VALUES ('beside')"))
    writer.commit()
    writer.execute(sa.text("INSERT INTO log VALUES (:n)"), {"n": str(len(source.fetchall()))})
    writer.commit()`,
  'a reader in one thread, and its writer in another': `
import queue, threading
lines = queue.Queue(2)
engine = db.engine
def write():
    with engine.begin() as c:
        while (line := lines.get()) is not None:
            c.execute(sa.text("INSERT INTO log VALUES (:l)"), {"l": line})
with engine.connect().execution_options(yield_per=2) as reader:
    rows = reader.execute(sa.text("SELECT id FROM t WHERE id < 20 ORDER BY id"))
    first = next(rows)
    writer = threading.Thread(target=write)
    writer.start()
    for row in rows:
        lines.put("row %d" % row[0])
    lines.put(None)
    writer.join()`,
  'engines of their own, one of which asks before each use, and one that connects anew': `
url = db.engine.url
e1 = sa.create_engine(url, pool_pre_ping=True); e2 = sa.create_engine(url, poolclass=sa.pool.NullPool)
for i in range(3):
    with e1.begin() as a: a.execute(sa.text("INSERT INTO log VALUES ('e1')"))
    with e2.begin() as b: b.execute(sa.text("UPDATE t SET v = v + 1 WHERE id = 1"))
    with e1.connect() as a, e2.connect() as b:
        rows = a.execute(sa.text("SELECT id FROM t ORDER BY id LIMIT 3")).scalars().all()
        for r in rows: b.execute(sa.text("INSERT INTO log VALUES (:r)"), {"r": "row %d" % r})
        b.commit()
e1.dispose(); e2.dispose()`,
  'an engine that is disposed of while a connection is open': `
e = db.engine
c = e.connect()
c.execute(sa.text("INSERT INTO log VALUES ('before dispose')"))
e.dispose()
with e.begin() as d: d.execute(sa.text("INSERT INTO log VALUES ('after dispose')"))
c.commit(); c.close()`,
  'a snapshot of one table beside the writer of another': `
snap = db.engine.execution_options(isolation_level="REPEATABLE READ")
with snap.connect() as r, db.engine.connect() as w:
    for (i,) in r.execute(sa.text("SELECT id FROM t WHERE id < 5 ORDER BY id")).fetchall():
        w.execute(sa.text("INSERT INTO log VALUES (:i)"), {"i": "snap %d" % i}); w.commit()
    w.execute(sa.text("INSERT INTO log VALUES (:n)"), {"n": str(r.execute(sa.text("SELECT count(*) FROM t")).scalar())}); w.commit()`,
  'an advisory lock that threads take before they read': `
from concurrent.futures import ThreadPoolExecutor
import time
e = db.engine
def add(_):
    with e.begin() as c:
        c.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('x'))"))
        v = c.execute(sa.text("SELECT v FROM t WHERE id = 40")).scalar()
        time.sleep(0.05)
        c.execute(sa.text("UPDATE t SET v = :v WHERE id = 40"), {"v": v + 1})
with ThreadPoolExecutor(4) as pool: list(pool.map(add, range(4)))`,
  'workers that share rows by SKIP LOCKED': `
from concurrent.futures import ThreadPoolExecutor
e = db.engine
def work(_):
    while True:
        with e.begin() as c:
            row = c.execute(sa.text("SELECT id FROM t WHERE v < 1000 ORDER BY id LIMIT 5 FOR UPDATE SKIP LOCKED")).scalars().all()
            if not row: return
            c.execute(sa.text("UPDATE t SET v = v + 1000 WHERE id = ANY(:r)"), {"r": row})
with ThreadPoolExecutor(3) as pool: list(pool.map(work, range(3)))`,
  'a SET that is rolled back beside a writer': `
with db.engine.connect() as r, db.engine.connect() as w:
    r.execute(sa.text("SET LOCAL work_mem = '2MB'"))
    r.execute(sa.text("SELECT 1"))
    w.execute(sa.text("INSERT INTO log VALUES (current_setting('work_mem'))")); w.commit()
    r.rollback()
    n = r.execute(sa.text("SHOW work_mem")).scalar()
    w.execute(sa.text("INSERT INTO log VALUES (:n)"), {"n": n}); w.commit()`,
  'one that looks at the catalog': `
op.execute("CREATE TABLE made (id int)")
sa.inspect(db.engine).has_table("t")`,
}

const first: Script = { id: 'aaa1', upgrade: 'pass' }
const scripts: Script[] = Object.entries(carried).map(([name, upgrade], i) => ({ id: `b${i}`, message: name, upgrade }))

/** Connections of env.py that are older than Alembic's own, and end after it. */
const withProbe = (stock: string): string =>
  stock
    .replace(
      '    with connectable.connect() as connection:\n',
      `    from sqlalchemy import text
    probe = connectable.connect()
    probe.execute(text("SELECT count(*) FROM t")).scalar()
    lock = connectable.connect()
    lock.execute(text("SELECT pg_advisory_xact_lock(42)"))
    import atexit
    atexit.register(probe.close)
    with connectable.connect() as connection:
`,
    )
    .replace(
      '            context.run_migrations()\n\n\nif',
      '            context.run_migrations()\n    lock.rollback()\n    probe.close()\n\n\nif',
    )

let begun: string

beforeAll(async () => {
  begun = await createDatabase()
  await query(begun, tables)
  const base = await flask(writeProject({ scripts: [first] }), withDriver(begun, 'psycopg'), 'db', 'upgrade')
  expect(base.failed, base.output).toBe(false)
})

/** Rows may lie in another order. */
const sorted = (text: string): string[] => text.split('\n').sort()

describe('what raw runs is run, with the same rows', () => {
  for (const driver of ['psycopg', 'psycopg2']) {
    test(`by ${driver}`, async () => {
      const [ours, raw] = [await createDatabase(begun), await createDatabase(begun)]
      const project = writeProject({ scripts: [first, ...scripts], env: withProbe })
      const step = await start(project, withDriver(ours, driver), { mode: 'apply' })
      expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', pending: String(scripts.length) })
      const upgrade = await flask(project, withDriver(raw, driver), 'db', 'upgrade')
      expect(upgrade.failed, upgrade.output).toBe(false)
      expect(sorted(await contents(ours))).toEqual(sorted(await contents(raw)))
      expect(step.log).toMatch(
        /looks into the catalog while “CREATE TABLE made .*” by Alembic’s own connection is not committed/,
      )
    })
  }
})

test('also where the batch is several transactions', async () => {
  const [ours, raw] = [await createDatabase(begun), await createDatabase(begun)]
  const index = `
with op.get_context().autocommit_block():
    op.create_index("t_v", "t", ["v"], postgresql_concurrently=True)`
  const middle = Math.floor(scripts.length / 2)
  const divided = [...scripts.slice(0, middle), { id: 'c1', upgrade: index }, ...scripts.slice(middle)]
  const project = writeProject({ scripts: [first, ...divided], env: withProbe })
  const step = await start(project, withDriver(ours, 'psycopg'), { mode: 'apply', segments: 'true' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', pending: String(divided.length) })
  expect(JSON.parse(step.outputs.segments ?? '').length).toBeGreaterThan(2)
  const alone = writeProject({ scripts: [first, ...divided] })
  const upgrade = await flask(alone, withDriver(raw, 'psycopg'), 'db', 'upgrade')
  expect(upgrade.failed, upgrade.output).toBe(false)
  expect(sorted(await contents(ours))).toEqual(sorted(await contents(raw)))
})

describe('what one transaction cannot say ends in words that name both places, and nothing is kept', () => {
  const cases: Record<string, { body: string; says: RegExp[]; inputs?: Record<string, string> }> = {
    'a log that was committed inside of what rolls back': {
      body: `
with db.engine.connect() as work, db.engine.connect() as log:
    work.execute(sa.text("INSERT INTO u VALUES (1)"))
    log.execute(sa.text("INSERT INTO log VALUES ('tried')"))
    log.commit()
    work.rollback()`,
      says: [
        /“INSERT INTO u VALUES \(1\)” by the connection that was opened at migrations\/versions\/bbb2\.py:12 was rolled back after “INSERT INTO log VALUES \('tried'\)” by the connection that was opened at migrations\/versions\/bbb2\.py:12/,
      ],
    },
    'a log that was committed inside of a savepoint that fails': {
      body: `
try:
    with op.get_bind().begin_nested():
        op.execute("INSERT INTO u VALUES (1)")
        with db.engine.begin() as log:
            log.execute(sa.text("INSERT INTO log VALUES ('tried')"))
        raise ValueError
except ValueError:
    op.execute("INSERT INTO u VALUES (2)")`,
      says: [/by Alembic’s own connection was rolled back after “INSERT INTO log VALUES \('tried'\)” by .*bbb2\.py:15/],
    },
    'rows that are not committed, read by another': {
      body: `
op.execute("INSERT INTO u VALUES (1)")
with db.engine.connect() as other:
    count = other.execute(sa.text("SELECT count(*) FROM u")).scalar()
op.execute("INSERT INTO log VALUES ('%d')" % count)`,
      says: [
        /“SELECT count\(\*\) FROM u” by .*bbb2\.py:13 has to do with rows of u that “INSERT INTO u VALUES \(1\)” by Alembic’s own/,
      ],
    },
    'a COPY of what another connection reads in the meantime': {
      body: `
with db.engine.connect().execution_options(yield_per=7) as reader:
    rows = reader.execute(sa.text("SELECT id FROM t"))
    copy = db.engine.raw_connection()
    with copy.cursor() as cursor, cursor.copy("COPY u FROM STDIN") as data:
        for row in rows:
            data.write_row(row)
    copy.commit()`,
      inputs: { 'lock-timeout': '700ms' },
      says: [
        /“FETCH .*” by .*bbb2\.py:12 waited for “COPY u FROM STDIN” by .*bbb2\.py:14, whose COPY has got no data for 0\.7 s/,
      ],
    },
    'a temporary table of another': {
      body: `
with db.engine.connect() as one, db.engine.connect() as two:
    one.execute(sa.text("CREATE TEMPORARY TABLE u (id int)"))
    one.commit()
    two.execute(sa.text("INSERT INTO u VALUES (1)"))
    two.commit()`,
      says: [
        /“INSERT INTO u VALUES \(1\)” by .*bbb2\.py:12 names u, and .*bbb2\.py:12 has a temporary table of that name/,
      ],
    },
    'the value of a sequence that another has drawn': {
      body: `
with db.engine.connect() as one, db.engine.connect() as two:
    one.execute(sa.text("INSERT INTO log VALUES (nextval('s')::text)"))
    two.execute(sa.text("INSERT INTO log VALUES (nextval('s')::text)"))
    two.commit()
    one.execute(sa.text("INSERT INTO u VALUES (currval('s'))"))
    one.commit()`,
      says: [/asks for the value that its session has drawn last, and .* has written as well/],
    },
    'rows that are newer than a snapshot': {
      body: `
snapshots = db.engine.execution_options(isolation_level="REPEATABLE READ")
with snapshots.connect() as reader, db.engine.connect() as writer:
    reader.execute(sa.text("SELECT count(*) FROM t"))
    writer.execute(sa.text("INSERT INTO u VALUES (1)"))
    writer.commit()
    reader.execute(sa.text("SELECT count(*) FROM u"))`,
      says: [/“SELECT count\(\*\) FROM u” by .*bbb2\.py:13 has to do with rows of u, .* by its snapshot/],
    },
    'an advisory lock that another holds': {
      body: `
with db.engine.connect() as one, db.engine.connect() as two:
    one.execute(sa.text("SELECT pg_advisory_lock(7)"))
    if two.execute(sa.text("SELECT pg_try_advisory_lock(7)")).scalar():
        two.execute(sa.text("INSERT INTO u VALUES (1)"))
        two.commit()`,
      says: [
        /“SELECT pg_try_advisory_lock\(7\)” by .*bbb2\.py:12 asks for an advisory lock, .* that .*bbb2\.py:12 holds/,
      ],
    },
    'rows that another has locked': {
      body: `
with db.engine.connect() as one, db.engine.connect() as two:
    one.execute(sa.text("SELECT id FROM t WHERE id = 1 FOR UPDATE"))
    row = two.execute(sa.text("SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")).scalar()
    two.execute(sa.text("INSERT INTO u VALUES (:i)"), {"i": row})
    two.commit()`,
      says: [
        /SKIP LOCKED” by .*bbb2\.py:12 passes rows by that are locked, and “SELECT id FROM t WHERE id = 1 FOR UPDATE”/,
      ],
    },
    'a thread that waits for a transaction which nobody ends': {
      body: `
import threading
engine = db.engine
def write():
    with engine.begin() as c:
        c.execute(sa.text("INSERT INTO log VALUES ('thread')"))
with engine.begin() as open:
    open.execute(sa.text("INSERT INTO u VALUES (1)"))
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()`,
      inputs: { 'lock-timeout': '700ms' },
      says: [
        /“INSERT INTO log VALUES \('thread'\)” by .*bbb2\.py:15 waited for the transaction of another thread, “INSERT INTO u VALUES \(1\)” by .*bbb2\.py:17, .* has sent nothing for 0\.7 s/,
      ],
    },
  }
  for (const [name, { body, says, inputs }] of Object.entries(cases)) {
    test(name, async () => {
      const url = await createDatabase(begun)
      const before = await contents(url)
      const project = writeProject({ scripts: [first, { id: 'bbb2', upgrade: body }] })
      const step = await start(project, withDriver(url, 'psycopg'), { mode: 'apply', ...inputs })
      expect(step.outputs, step.log).toMatchObject({
        outcome: 'rolled-back',
        'failure-reason': 'migration-failed',
        'new-head': 'aaa1',
      })
      for (const words of says) expect(step.log).toMatch(words)
      expect(await contents(url)).toBe(before)
    })
  }

  test('where the script fails by itself, that is the cause', async () => {
    const url = await createDatabase(begun)
    const upgrade = `
op.execute("INSERT INTO u VALUES (1)")
with db.engine.begin() as log:
    log.execute(sa.text("INSERT INTO log VALUES ('tried')"))
raise ValueError("by itself")`
    const project = writeProject({ scripts: [first, { id: 'bbb2', upgrade }] })
    const step = await start(project, withDriver(url, 'psycopg'), { mode: 'apply' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'migration-failed' })
    expect(step.log).toContain('by itself')
    expect(step.log).not.toContain('was rolled back after')
  })
})
