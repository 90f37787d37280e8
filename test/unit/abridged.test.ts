import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { abridged } from '../../src/plan/abridged'
import { hideLiterals } from '../../src/plan/literals'
import { loadParser, splitStatements } from '../../src/plan/statements'

beforeAll(() => loadParser())

const numbers = (length: number) => Array.from({ length }, (_, i) => i + 1)
const insert = (rows: number, { into = 't (id, name)', tail = '' } = {}) =>
  `INSERT INTO ${into} VALUES ${numbers(rows)
    .map(i => `(${i}, coalesce('(né, VALUES (${i})', upper('/*')))`)
    .join(', ')}${tail}`

describe('Rows that fill more than a screen are shown by the first five and a count:', () => {
  test.each([
    ['one INSERT', insert(1000), insert(5), ''],
    [
      'with what follows its rows',
      insert(200, { tail: ' ON CONFLICT (id) DO NOTHING' }),
      insert(5),
      'ON CONFLICT (id) DO NOTHING',
    ],
    [
      'into a table of an awkward name',
      insert(200, { into: 'values (a, b)' }),
      insert(5, { into: 'values (a, b)' }),
      '',
    ],
    ['into a quoted one', insert(200, { into: '"values" (a, b)' }), insert(5, { into: '"values" (a, b)' }), ''],
    [
      'behind a WITH of VALUES',
      `WITH w AS (VALUES (1), (2)) ${insert(200)} RETURNING id`,
      `WITH w AS (VALUES (1), (2)) ${insert(5)}`,
      'RETURNING id',
    ],
  ])('%s', (_, sql, first, rest) => {
    const rows = sql.includes('(1000,') ? 1000 : 200
    expect(abridged([sql])).toEqual([`${first}\n-- … and ${rows - 5} more rows, ${rows} in all\n${rest};`])
  })

  test('INSERTs of one row that follow each other', () => {
    const rows = numbers(100).map(i => `INSERT INTO t (id) VALUES (${i})`)
    const other = numbers(3).map(i => `INSERT INTO t (name) VALUES ('${i}')`)
    expect(abridged(['CREATE TABLE t (id int, name text)', ...rows, ...other, 'DROP TABLE u'])).toEqual([
      'CREATE TABLE t (id int, name text);',
      ...rows.slice(0, 5).map(each => `${each};`),
      '-- … and 95 more rows, 100 in all',
      ...other.map(each => `${each};`),
      'DROP TABLE u;',
    ])
  })

  test('without their constants', () => {
    const shown = abridged([hideLiterals(insert(1000))])
    expect(shown).toHaveLength(1)
    expect(shown[0]).toMatch(/^INSERT INTO t \(id, name\) VALUES \(\$1, coalesce\(\$2, upper\(\$3\)\)\), /)
    expect(shown[0]).toMatch(/\$15\)\)\)\n-- … and 995 more rows, 1000 in all\n;$/)
  })
})

test.each([
  ['what fits on a screen', [insert(20)]],
  ['few rows, however long', [insert(5, { tail: ` RETURNING '${'x'.repeat(9_000)}'` })]],
  ['rows of a query', [`INSERT INTO t SELECT * FROM (${insert(900).replace('INSERT INTO t (id, name) ', '')}) AS v`]],
  ['other statements', numbers(90).map(i => `UPDATE t SET a = ${i} WHERE id = ${i}`)],
  ['rows for different tables in turn', numbers(90).map(i => `INSERT INTO t${i % 2} VALUES (${i})`)],
  ['what our parser cannot read', [`${insert(900)} ON MISTAKE`]],
  ['several statements in one', [`${insert(900)}; ${insert(900)}`]],
])('is shown as it is: %s', (_, statements: string[]) => {
  expect(abridged(statements)).toEqual(statements.map(each => `${each};`))
})

test('whatever the rows hold, what is left is the start of the statement, and SQL', () => {
  const text = fc.string({ unit: 'grapheme' }).map(each => each.replaceAll('\0', ''))
  fc.assert(
    fc.property(fc.array(text, { minLength: 6, maxLength: 20 }), text, (texts, long) => {
      const literal = (each: string) => `('${each.replaceAll("'", "''")}')`
      const rows = [...texts, `${long}${'x'.repeat(4_100)}`].map(literal)
      const [shown] = abridged([`INSERT INTO t VALUES ${rows.join(',')} ON CONFLICT DO NOTHING`])
      const expected = `INSERT INTO t VALUES ${rows.slice(0, 5).join(',')}\n-- … and ${rows.length - 5} more rows`
      expect(shown!.startsWith(expected)).toBe(true)
      expect(splitStatements(shown!)).toHaveLength(1)
    }),
    { numRuns: 500 },
  )
})
