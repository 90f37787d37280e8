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
