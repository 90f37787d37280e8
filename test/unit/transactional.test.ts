import { beforeAll, describe, expect, test } from 'vitest'
import { NewEnumValues } from '../../src/plan/new-enum-values'
import type { Plan, Revision } from '../../src/plan/plan'
import { loadParser } from '../../src/plan/statements'
import { obstaclesOf } from '../../src/plan/transactional'

beforeAll(() => loadParser())

const revision = (id: string, ...statements: string[]): Revision => ({
  id,
  down: [],
  dependsOn: [],
  labels: [],
  message: '',
  path: `${id}.py`,
  file: `/${id}.py`,
  created: '',
  digest: '',
  statements: statements.map((sql, index) => ({ sql, line: 10 + index, own: false })),
})

const plan = (...revisions: Revision[]): Plan => ({
  direction: 'upgrade',
  target: 'head',
  priorHeads: [],
  newHeads: ['z'],
  revisions,
})

const found = (...statements: string[]) => obstaclesOf(plan(revision('a', ...statements))).map(({ why }) => why)

describe('What PostgreSQL does not run in a transaction', () => {
  test.each([
    ['CREATE INDEX CONCURRENTLY i ON t (a)', 'CREATE INDEX CONCURRENTLY'],
    ['create unique index concurrently if not exists i on t (a)', 'CREATE INDEX CONCURRENTLY'],
    ['DROP INDEX CONCURRENTLY i', 'DROP INDEX CONCURRENTLY'],
    ['REINDEX TABLE CONCURRENTLY t', 'REINDEX CONCURRENTLY'],
    ['REINDEX (VERBOSE, CONCURRENTLY) INDEX i', 'REINDEX CONCURRENTLY'],
    ['REINDEX SCHEMA s', 'REINDEX SCHEMA'],
    ['VACUUM (ANALYZE) t', 'VACUUM'],
    ['ALTER SYSTEM SET work_mem = 1', 'ALTER SYSTEM'],
    ['CREATE DATABASE d', 'CREATE DATABASE'],
    ['DROP DATABASE IF EXISTS d', 'DROP DATABASE'],
    ['ALTER DATABASE d SET TABLESPACE x', 'ALTER DATABASE SET TABLESPACE'],
    ["CREATE TABLESPACE t LOCATION '/x'", 'CREATE TABLESPACE'],
    ['DROP TABLESPACE t', 'DROP TABLESPACE'],
    ['ALTER TABLE p DETACH PARTITION c CONCURRENTLY', 'ALTER TABLE ... DETACH CONCURRENTLY'],
    ['CLUSTER', 'CLUSTER'],
    ['DISCARD ALL', 'DISCARD ALL'],
    ["CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p", 'CREATE SUBSCRIPTION ... WITH (create_slot = true)'],
  ])('%s', (sql, name) => {
    expect(found(sql)).toEqual([`${name} cannot run inside a transaction block`])
  })

  test.each([
    'CREATE INDEX i ON t (a)',
    'REINDEX TABLE t',
    'REINDEX (CONCURRENTLY false) TABLE t',
    'ANALYZE t',
    'CLUSTER t USING i',
    'DISCARD TEMP',
    'REFRESH MATERIALIZED VIEW CONCURRENTLY m',
    "INSERT INTO notes VALUES ('CREATE INDEX CONCURRENTLY i ON t (a)')",
    'COMMENT ON TABLE t IS $$VACUUM nightly$$',
    "ALTER DATABASE d SET work_mem = '1MB'",
    "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)",
    "ALTER TYPE mood RENAME VALUE 'a' TO 'b'",
    'COMMIT',
    'this is not SQL, whatever CONCURRENTLY says',
  ])('but: %s', sql => {
    expect(found(sql)).toEqual([])
  })
})

describe('A new value of an enum', () => {
  const add = "ALTER TYPE mood ADD VALUE 'it''s fine' AFTER 'sad'"
  const why = ["the value 'it's fine' is new in the enum mood, and it must be committed before it can be used"]

  test('used later in the batch, in another revision too', () => {
    expect(found(add, "UPDATE people SET mood = 'it''s fine'")).toEqual(why)
    const found2 = obstaclesOf(plan(revision('a', add), revision('b', "SELECT 'it''s fine'::mood")))
    expect(found2.map(({ revision, line }) => [revision.id, line])).toEqual([['b', 10]])
  })

  test('not used, used before, or only a name that reads the same', () => {
    expect(found(add)).toEqual([])
    expect(found("UPDATE people SET mood = 'it''s fine'", add)).toEqual([])
    expect(found("ALTER TYPE mood ADD VALUE 'calm'", 'ALTER TABLE people ADD COLUMN calm int')).toEqual([])
  })

  describe('of a type that the batch itself makes', () => {
    const made = "CREATE TYPE mood AS ENUM ('sad')"
    const table = 'CREATE TABLE people (mood mood, name text)'
    const use = "INSERT INTO people (mood) VALUES ('it''s fine')"
    const but = `${why[0]} (by a plan file, PostgreSQL 17 and later can use it, since the batch makes the type as well)`

    test.each([
      ['in a cast', [made, add, "SELECT 'it''s fine'::mood"]],
      ['in a column', [made, table, add, use]],
      ['in a column that was added', [made, 'ALTER TABLE people ADD COLUMN mood mood', add, use]],
      [
        'in an array of it',
        [made, 'CREATE TABLE people (mood mood[])', add, "UPDATE people SET mood[1] = 'it''s fine'"],
      ],
      ['in a default', [made, add, "CREATE TABLE people (mood mood DEFAULT 'it''s fine')"]],
      [
        'by way of a view',
        [made, table, 'CREATE VIEW v AS SELECT * FROM people', add, "SELECT * FROM v WHERE mood = 'it''s fine'"],
      ],
      ['by way of a domain', [made, 'CREATE DOMAIN d AS mood', add, "SELECT 'it''s fine'::d"]],
      [
        'of a table that was renamed',
        [made, table, 'ALTER TABLE people RENAME TO persons', add, "UPDATE persons SET mood = 'it''s fine'"],
      ],
    ])('is as unusable, %s', (_, sql) => expect(found(...sql)).toEqual([but]))

    test('under another name, of the type or of the value', () => {
      const typed = [
        made,
        'ALTER TYPE mood RENAME TO state',
        add.replace('mood', 'state'),
        "SELECT 'it''s fine'::state",
      ]
      expect(found(...typed)).toEqual([but.replace('enum mood', 'enum state')])
      const renamed = "ALTER TYPE mood RENAME VALUE 'it''s fine' TO 'well'"
      expect(found(made, table, add, renamed, "INSERT INTO people VALUES ('well')")).toEqual([
        but.replace("it's fine", 'well'),
      ])
      expect(found(add, renamed, "UPDATE people SET mood = 'well'")).toEqual([why[0]!.replace("it's fine", 'well')])
    })

    test('but not where the same text is no value of it, or the value is as old as the type', () => {
      expect(found(made, table, add, "INSERT INTO notes VALUES ('it''s fine')")).toEqual([])
      expect(found(made.replace("'sad'", "'sad', 'calm'"), table, "INSERT INTO people VALUES ('calm')")).toEqual([])
      const again = "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'sad'"
      expect(found(made, table, again, "INSERT INTO people VALUES ('sad')")).toEqual([])
      const anew = ['ALTER TYPE mood RENAME TO old', made.replace("'sad'", "'sad', 'it''s fine'"), table, use]
      expect(found(...anew)).toEqual([])
    })

    test('but not in a table of another type that the batch makes, or of one made anew under its name', () => {
      const other = ["CREATE TYPE state AS ENUM ('it''s fine')", 'CREATE TABLE orders (state state)']
      expect(found(made, table, ...other, add, "INSERT INTO orders VALUES ('it''s fine')")).toEqual([])
      const anew = ['DROP TYPE mood', made.replace("'sad'", "'sad', 'it''s fine'"), table, use]
      expect(found(made, add, ...anew)).toEqual([])
    })

    test('also where two types get the same value', () => {
      const other = ["CREATE TYPE state AS ENUM ('new')", 'CREATE TABLE orders (state state)']
      const both = [made, table, ...other, add, add.replace('mood', 'state')]
      expect(found(...both, use)).toEqual([but])
      expect(found(...both, "INSERT INTO orders VALUES ('it''s fine')")).toEqual([
        but.replace('enum mood', 'enum state'),
      ])
    })

    test('but not outside of savepoints on PostgreSQL 17 and later', () => {
      const batch = plan(revision('a', made, table, add, use))
      expect(obstaclesOf(batch, new NewEnumValues('made'))).toEqual([])
      expect(obstaclesOf(plan(revision('a', add, use)), new NewEnumValues('made'))).toHaveLength(1)
    })
  })
})

describe('What is set of the transaction', () => {
  test.each([
    'SET TRANSACTION ISOLATION LEVEL SERIALIZABLE',
    "SET transaction_isolation = 'repeatable read'",
    'SET LOCAL transaction_isolation TO serializable',
    'SET TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ',
    'SET TRANSACTION DEFERRABLE',
    'SET TRANSACTION NOT DEFERRABLE',
    "SET TRANSACTION SNAPSHOT '00000003-0000001B-1'",
  ])('cannot be, since the transaction has begun: %s', sql => {
    expect(obstaclesOf(plan(revision('a', sql)))).toMatchObject([
      { ofTheTransaction: true, why: expect.stringMatching(/must be called before any query/) },
    ])
  })

  test.each([
    'SET TRANSACTION ISOLATION LEVEL READ COMMITTED',
    'SET TRANSACTION READ ONLY',
    'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE',
    "SET default_transaction_isolation = 'serializable'",
    'BEGIN ISOLATION LEVEL SERIALIZABLE',
    "COMMENT ON TABLE t IS 'SET TRANSACTION ISOLATION LEVEL SERIALIZABLE'",
  ])('but: %s', sql => expect(found(sql)).toEqual([]))
})

test('a script without SQL is judged by what Alembic is told in it', () => {
  const { statements: _, ...unseen } = revision('a')
  const concurrently = [{ line: 7, text: "op.create_index('i', 't', ['a'], postgresql_concurrently=True)" }]
  const mentions = [{ line: 9, text: 'VACUUM' }]
  const [obstacle, ...more] = obstaclesOf(
    plan({ ...unseen, notRenderable: { reason: 'it reads', line: 5 }, concurrently, mentions }),
  )
  expect(obstacle).toMatchObject({
    line: 7,
    text: concurrently[0]!.text,
    why: 'CONCURRENTLY cannot run inside a transaction block',
  })
  expect(more).toEqual([])
})
