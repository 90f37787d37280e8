import { beforeAll, expect, test } from 'vitest'
import { destructionsOf } from '../../src/plan/destructive'
import { loadParser } from '../../src/plan/statements'
import { planOf, revision } from './hostile'

beforeAll(() => loadParser())

const found = (sql: string) =>
  destructionsOf(planOf([revision({ id: 'a', statements: [{ sql, line: 7, own: false }] })])).map(({ what }) => what)

test.each([
  ['DROP TABLE a, shop.orders', ['drops the table a', 'drops the table shop.orders']],
  ['DROP SCHEMA shop CASCADE', ['drops the schema shop']],
  ['DROP TYPE mood', ['drops the type mood']],
  ['DROP MATERIALIZED VIEW v', ['drops the materialized view v']],
  ['ALTER TABLE t DROP COLUMN a, DROP COLUMN b', ['drops the column a of t', 'drops the column b of t']],
  ['ALTER TABLE shop.t ALTER COLUMN a TYPE int USING 1', ['changes the type of the column a of shop.t']],
  ['TRUNCATE a, b', ['empties the table a', 'empties the table b']],
  ['DELETE FROM t', ['deletes every row of t']],
  ['UPDATE ONLY t SET a = 1', ['changes every row of t']],
  ['WITH gone AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM gone', ['deletes every row of t']],
])('%s', (sql, what) => {
  expect(found(sql)).toEqual(what)
})

test.each([
  'DELETE FROM t WHERE a = 1',
  'DELETE FROM t USING u WHERE u.a = t.a',
  'UPDATE t SET a = 1 FROM u WHERE u.a = t.a',
  'DROP INDEX i',
  'DROP VIEW v',
  'ALTER TABLE t DROP CONSTRAINT c',
  'ALTER TABLE t ALTER COLUMN a DROP DEFAULT',
  "INSERT INTO notes VALUES ('DROP TABLE t')",
  'not SQL; DROP TABLE',
])('nothing is destroyed by: %s', sql => {
  expect(found(sql)).toEqual([])
})

test('Alembic’s own statements are its business', () => {
  const own = { sql: 'DELETE FROM alembic_version', line: null, own: true }
  expect(destructionsOf(planOf([revision({ id: 'a', statements: [own] })]))).toEqual([])
})
