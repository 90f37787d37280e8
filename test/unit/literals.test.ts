import fc from 'fast-check'
import { beforeAll, expect, test } from 'vitest'
import { hideLiterals } from '../../src/plan/literals'
import { loadParser } from '../../src/plan/statements'

beforeAll(() => loadParser())

test.each([
  [
    "INSERT INTO t VALUES (1, 'Ada', 2.5, E'a\\'b', U&'d', b'01', x'1F')",
    'INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7)',
  ],
  ["UPDATE tä SET a = 'ö' WHERE b = 7", 'UPDATE tä SET a = $1 WHERE b = $2'],
  ["CREATE TABLE t (a varchar(32) DEFAULT 'secret')", 'CREATE TABLE t (a varchar(32) DEFAULT $1)'],
  ["COMMENT ON TABLE t IS 'secret'", 'COMMENT ON TABLE t IS $1'],
  ['DO $$ BEGIN PERFORM 1; END $$', 'DO $1'],
  ["SELECT 1 -- 'secret'\n, 2 /* secret */", 'SELECT $1 \n, $2'],
  ['DELETE FROM t', 'DELETE FROM t'],
  ['CREATE TABLE t AS SELECT 4111', 'CREATE TABLE t AS SELECT $1'],
  ['CREATE TABLE t (a int); INSERT INTO t VALUES (4111)', 'CREATE TABLE t (a int); INSERT INTO t VALUES ($1)'],
  ['(SELECT 4111)', '(SELECT $1)'],
  ['EXPLAIN ANALYZE INSERT INTO t VALUES (4111)', 'EXPLAIN ANALYZE INSERT INTO t VALUES ($1)'],
  [
    'CREATE TABLE t (a numeric(10, 2) DEFAULT 4111, b character varying(40), c bit varying(3), d time(3), CHECK (e IN (4, 5)))',
    'CREATE TABLE t (a numeric(10, 2) DEFAULT $1, b character varying(40), c bit varying(3), d time(3), CHECK (e IN ($2, $3)))',
  ],
  [
    'ALTER TABLE t ALTER a TYPE varchar(9) USING CASE a WHEN 4111 THEN 1 END',
    'ALTER TABLE t ALTER a TYPE varchar(9) USING CASE a WHEN $1 THEN $2 END',
  ],
  ['CREATE TABLE p PARTITION OF t FOR VALUES IN (4111)', 'CREATE TABLE p PARTITION OF t FOR VALUES IN ($1)'],
  ['SET my.pin = 4111', 'SET my.pin = $1'],
])('%s', (sql, shown) => {
  expect(hideLiterals(sql)).toBe(shown)
})

test('what the scanner cannot read is not shown at all', () => {
  expect(hideLiterals("SELECT 'secret")).not.toContain('secret')
})

test('no constant is left, whatever it is', () => {
  const text = fc.string({ unit: 'grapheme', minLength: 1 }).map(each => `secret${each.replaceAll('\0', '')}`)
  fc.assert(
    fc.property(text, each => {
      const sql = `INSERT INTO t (a) VALUES ('${each.replaceAll("'", "''")}')`
      expect(hideLiterals(sql)).toBe('INSERT INTO t (a) VALUES ($1)')
    }),
  )
})
