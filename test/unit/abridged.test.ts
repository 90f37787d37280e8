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

  test('also where constants are of different kinds', () => {
    const kinds = ['NULL', '-7', 'true', "'x'", "CAST('{}' AS jsonb)", "'2026-01-01'::date", 'DEFAULT', "B'1'"]
    const values = numbers(400).map(i => `(${i}, ${kinds[i % kinds.length]})`)
    const first = `INSERT INTO t VALUES ${values.slice(0, 5).join(', ')}`
    expect(abridged([`INSERT INTO t VALUES ${values.join(', ')}`])).toEqual([
      `${first}\n-- … and 395 more rows, 400 in all\n;`,
    ])
    const single = values.map(each => `INSERT INTO t VALUES ${each}`)
    expect(abridged(single)).toHaveLength(6)
  })

  test('INSERTs up to the one that does something else, which is shown', () => {
    const row = (i: number, value = `'${i}'`) => `INSERT INTO t (id, name) VALUES (${i}, ${value})`
    for (const other of [
      row(60, 'current_setting($$x$$)'),
      `${row(60)} ON CONFLICT (id) DO UPDATE SET name = 'x'`,
      `${row(60)} RETURNING pg_sleep(10)`,
      `WITH gone AS (DELETE FROM account) ${row(60)}`,
    ]) {
      const shown = abridged([...numbers(59).map(i => row(i)), other, ...numbers(60).map(i => row(i + 60))])
      expect(shown).toHaveLength(13)
      expect(shown[6]).toBe(`${other};`)
    }
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
  [
    'a row that does something else than the first ones',
    [insert(900).replace(/\(800, .*?\)\)\)/, "(800, (SELECT string_agg(mail, ',') FROM account))")],
  ],
  [
    'a row that does the same to something else',
    [insert(900).replace(/\(800, coalesce/, '(800, pg_catalog.coalesce_all')],
  ],
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
    { numRuns: 200 },
  )
})
