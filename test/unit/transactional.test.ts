import { beforeAll, describe, expect, test } from 'vitest'
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

  test('of a type that the batch itself creates is left to the server, which may allow it', () => {
    expect(found("CREATE TYPE mood AS ENUM ('sad')", add, "SELECT 'it''s fine'::mood")).toEqual([])
  })
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
