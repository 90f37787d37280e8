import { beforeAll, describe, expect, test } from 'vitest'
import type { Plan, Revision } from '../../src/plan/plan'
import { canRunAgain, isDivided, segmentsOf } from '../../src/plan/segments'
import { loadParser } from '../../src/plan/statements'

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
  statements: [
    ...statements.map((sql, index) => ({ sql, line: 10 + index, own: false })),
    { sql: `UPDATE alembic_version SET version_num = '${id}'`, line: null, own: true },
  ],
})

const plan = (...revisions: Revision[]): Plan => ({
  direction: 'upgrade',
  target: 'head',
  priorHeads: [],
  newHeads: ['z'],
  revisions,
})

const index = 'CREATE INDEX CONCURRENTLY i ON t (a)'
/** As an autocommit_block is rendered. */
const block = (...statements: string[]) => ['COMMIT', ...statements, 'BEGIN']
const table = 'CREATE TABLE t (a int)'
const add = "ALTER TYPE mood ADD VALUE 'calm'"
const use = "UPDATE people SET mood = 'calm'"

/** Each segment as its revisions, the one that stands alone with a mark. */
const shape = (...revisions: Revision[]) =>
  segmentsOf(plan(...revisions)).segments.map(({ revisions, alone }) => (alone ? '!' : '') + revisions.join(' '))

describe('A batch is divided', () => {
  test('not at all, where nothing needs it', () => {
    const whole = segmentsOf(plan(revision('a', table), revision('b', ...block('ANALYZE t')), revision('c', add)))
    expect(whole).toEqual({
      segments: [{ revisions: ['a', 'b', 'c'] }],
      obstacles: [],
      endsBefore: [],
      endsBehind: [],
      halves: [],
    })
    expect(isDivided(whole)).toBe(false)
  })

  test('around a statement that must stand alone, whose version row moves behind it', () => {
    expect(shape(revision('a', table), revision('b', ...block(index)), revision('c', table))).toEqual([
      'a',
      '!b',
      'b c',
    ])
  })

  test('around several at once, without a transaction between them', () => {
    const found = segmentsOf(plan(revision('a', ...block(index, 'VACUUM t'))))
    expect(found.segments.map(({ alone }) => alone)).toEqual([
      { line: 11, text: index },
      { line: 12, text: 'VACUUM t' },
      undefined,
    ])
    expect(isDivided(found)).toBe(true)
  })

  test('before the revision that uses a new enum value, and as late as that', () => {
    const found = segmentsOf(plan(revision('a', add), revision('b', table), revision('c', table, use), revision('d')))
    expect(found.segments.map(({ revisions }) => revisions)).toEqual([
      ['a', 'b'],
      ['c', 'd'],
    ])
    expect(found).toMatchObject({ endsBefore: ['c'], endsBehind: [], obstacles: [], halves: [] })
  })

  test('not for a new enum value that a statement between has committed', () => {
    expect(shape(revision('a', add), revision('b', ...block(index)), revision('c', use))).toEqual(['a', '!b', 'b c'])
  })

  test('once for several values', () => {
    const other = "ALTER TYPE mood ADD VALUE 'glad'"
    const both = "UPDATE people SET mood = 'calm' WHERE mood <> 'glad'"
    expect(shape(revision('a', add), revision('b', other), revision('c', both, "SELECT 'glad'::mood"))).toEqual([
      'a b',
      'c',
    ])
  })

  test('inside of a script that adds a value in its autocommit_block and then uses it', () => {
    const found = segmentsOf(plan(revision('a'), revision('b', ...block(add), use)))
    expect(found.segments).toEqual([{ revisions: ['a', 'b'] }, { revisions: ['b'] }])
    expect(found).toMatchObject({ endsBefore: [], endsBehind: [{ revision: 'b', value: 'calm' }], obstacles: [] })
  })
})

describe('Not even segments help', () => {
  test.each([
    ['a statement inside of the script’s transaction', [index], 'CREATE INDEX CONCURRENTLY cannot run'],
    ['what comes behind the block', [...block('ANALYZE t'), index], 'CREATE INDEX CONCURRENTLY cannot run'],
    ['several statements in one text', block(`${index}; SELECT 1`), 'CREATE INDEX CONCURRENTLY cannot run'],
    ['DISCARD ALL', block('DISCARD ALL'), 'DISCARD ALL cannot run'],
    ['a value added and used in one transaction', [add, use], "the value 'calm' is new"],
  ])('%s', (_, statements, why) => {
    const { obstacles, segments } = segmentsOf(plan(revision('a', ...statements)))
    expect(obstacles.map(each => each.why)).toEqual([expect.stringContaining(why)])
    expect(segments).toEqual([{ revisions: ['a'] }])
  })
})

describe('A script may stand half', () => {
  const halves = (...statements: string[]) =>
    segmentsOf(plan(revision('a', ...statements))).halves.map(({ statements }) => statements)

  test('where it does something else before', () => {
    expect(halves(table, ...block(index))).toEqual([[table, index]])
    expect(halves(...block(add), use)).toEqual([[add]])
  })

  test('or where what stands alone cannot run again', () => {
    expect(halves(...block('DROP INDEX CONCURRENTLY i'))).toEqual([['DROP INDEX CONCURRENTLY i']])
  })

  test('and not where all of it can run again, or comes behind', () => {
    expect(halves(...block(index))).toEqual([])
    expect(
      halves('CREATE TABLE IF NOT EXISTS t (a int)', ...block('DROP INDEX CONCURRENTLY IF EXISTS i', index)),
    ).toEqual([])
    expect(halves(...block(index), table)).toEqual([])
    expect(halves(...block("ALTER TYPE mood ADD VALUE IF NOT EXISTS 'calm'"), use)).toEqual([])
  })
})

test.each([
  ['ALTER TABLE t ADD COLUMN IF NOT EXISTS a int', true],
  ['ALTER TABLE t ADD COLUMN a int', false],
  ['SELECT 1', true],
  ["SET lock_timeout = '1s'", true],
  ['UPDATE t SET a = 1', false],
  ['no SQL', false],
])('runs again: %s, %s', (sql, again) => expect(canRunAgain(sql)).toBe(again))

test('a script without SQL is divided by what Alembic is told in it', () => {
  const { statements: _, ...unseen } = revision('b')
  const concurrently = [{ line: 7, text: "op.create_index('i', 't', ['a'], postgresql_concurrently=True)" }]
  const found = segmentsOf(
    plan(revision('a'), { ...unseen, notRenderable: { reason: 'it reads', line: 5 }, concurrently }, revision('c')),
  )
  expect(found.segments).toEqual([
    { revisions: ['a'] },
    { revisions: ['b'], alone: { line: 7, text: concurrently[0]!.text } },
    { revisions: ['b', 'c'] },
  ])
  expect(found.halves).toEqual([])
})
