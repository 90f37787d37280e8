import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/failure'
import type { Outcome } from '../../src/plan/result'
import { headline } from '../../src/report/outcomes'
import { explain, stateOf } from '../../src/report/state'
import { clip, count, describeStatement, seconds } from '../../src/report/words'
import { hostile, planOf, resultOf, revision } from './hostile'
import { type Flat, nested } from './result'

const describeAt = (sql: string, position?: number) =>
  describeStatement({
    sql,
    code: '42601',
    message: 'syntax error',
    ...(position !== undefined && { position }),
  }).split('\n')

/** What stands above the caret, without the line's head. */
function pointedAt(sql: string, position: number): string {
  const [, line = '', caret = ''] = describeAt(sql, position)
  expect(caret.trim()).toBe('^')
  return [...line].slice(caret.length - 1).join('')
}

describe('the caret', () => {
  test('stands under the character that PostgreSQL counts to', () => {
    expect(describeAt('SELECT a FROM b', 8)).toEqual([
      'ERROR 42601: syntax error',
      'LINE 1: SELECT a FROM b',
      '               ^',
    ])
    expect(pointedAt('SELECT a FROM b', 1)).toBe('SELECT a FROM b')
  })

  test('finds its line in SQL of several, whatever their line ends', () => {
    for (const end of ['\n', '\r\n']) {
      const sql = ['CREATE TABLE t (', '  id int,', '  name txt', ')'].join(end)
      const [, line, caret] = describeAt(sql, sql.indexOf('txt') + 1)
      expect(line).toBe('LINE 3:   name txt')
      expect(caret).toBe('               ^')
    }
  })

  test('counts characters and not UTF-16 units, before it and on its line', () => {
    const sql = "-- 😀😀😀\nSELECT '😀', nope"
    const position = [...sql].join('').split('nope')[0]!
    expect(pointedAt(sql, [...position].length + 1)).toBe('nope')
  })

  test('is not moved by tabs, which are shown as spaces', () => {
    const sql = '\t\tSELECT\tnope'
    const [, line] = describeAt(sql, 10)
    expect(line).toBe('LINE 1:   SELECT nope')
    expect(pointedAt(sql, 10)).toBe('nope')
  })

  test('stands at the end where the input ended too early', () => {
    const sql = 'SELECT (1'
    expect(pointedAt(sql, sql.length + 1)).toBe('')
    expect(pointedAt('SELECT 1\nFROM', 14)).toBe('')
    expect(pointedAt('a\n', 3)).toBe('')
  })

  test('shows a piece of a long line, marked where it is cut, no character in halves', () => {
    const sql = `SELECT ${'😀'.repeat(400)}, nope, ${'😀'.repeat(400)}`
    const [, line = ''] = describeAt(sql, 410)
    expect(line).toMatch(/^LINE 1: …😀+, nope, 😀+…$/u)
    expect(pointedAt(sql, 410)).toMatch(/^nope/)
    expect([...line].length).toBeLessThan(180)
  })

  test('points at the right character of any text', () => {
    fc.assert(
      fc.property(hostile, hostile, (before, after) => {
        // Halves that become a whole would be counted as one.
        const [left, right] = [before, after].map(each => Buffer.from(each).toString())
        const sql = `${left}\u2603${right}`
        const [, line = '', caret = ''] = describeAt(sql, [...left!].length + 1)
        expect([...line][caret.length - 1]).toBe('\u2603')
        expect(line).toMatch(new RegExp(`^LINE ${left!.split('\n').length}: `))
      }),
      { numRuns: 2_000 },
    )
  })

  test('is drawn within a statement of 2 MB', () => {
    const sql = `SELECT\n${'x'.repeat(2 * 1024 * 1024)}`
    const lines = describeAt(sql, 1_000_000)
    expect(lines[1]!.length).toBeLessThan(200)
    expect(lines[2]!.indexOf('^')).toBe('LINE 2: …'.length + 80)
  })
})

describe('a statement without a position', () => {
  test('is shown from its start, and says when there is more', () => {
    expect(describeAt('SELECT 1\r\nFROM t')).toEqual(['ERROR 42601: syntax error', '  SELECT 1', '  FROM t'])
    const lines = describeAt(Array.from({ length: 20 }, (_, i) => `line ${i}`).join('\n'))
    expect(lines).toHaveLength(10)
    expect(lines.at(-1)).toBe('  …')
    expect(describeAt('x'.repeat(1_000))[1]).toBe(`  ${'x'.repeat(160)}…`)
  })

  test('comes with detail and hint where PostgreSQL gave them', () => {
    const statement = { sql: 'SELECT 1', code: '23505', message: 'duplicate', detail: 'Key (id)=(1)', hint: 'Choose.' }
    expect(describeStatement(statement)).toBe('ERROR 23505: duplicate\nDETAIL: Key (id)=(1)\nHINT: Choose.\n  SELECT 1')
  })

  test('is bounded, whatever a script raises', () => {
    const long = 'x'.repeat(1_000_000)
    const told = describeStatement({ sql: long, code: 'P0001', message: long, detail: long, hint: long })
    expect(told.length).toBeLessThan(5_000)
  })
})

describe('clip', () => {
  test('marks what it cuts, and cuts no character in two', () => {
    expect(clip('abc', 3)).toBe('abc')
    expect(clip('abcd', 3)).toBe('abc…')
    expect(clip('ab😀', 3)).toBe('ab…')
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.nat(20), (text, length) => {
        expect(Buffer.from(clip(text, length)).toString()).toBe(clip(text, length))
        expect(clip(text, length).length).toBeLessThanOrEqual(length + 1)
      }),
    )
  })
})

test('numbers and durations read as a person would write them', () => {
  expect([count(0, 'revision'), count(1, 'revision'), count(2, 'revision')]).toEqual([
    '0 revisions',
    '1 revision',
    '2 revisions',
  ])
  expect([seconds(4), seconds(9_949), seconds(9_950), seconds(61_400)]).toEqual(['0.00 s', '9.95 s', '10 s', '61 s'])
})

const cancelled = new Failure('cancelled', 'The step was cancelled.')
const broken = new Failure('migration-failed', 'Revision bbb failed: no.')
const none = (key: keyof Flat) => (result: Flat) => {
  const { [key]: _, ...rest } = result
  return rest as Flat
}

/** Every outcome with what it says in one line, and of the database. */
const situations: Record<string, { result: Flat; line: string; state: string }> = {
  'under way, to be applied': {
    result: none('outcome')(resultOf({ mode: 'apply' })),
    line: 'upgrading by 1 revision',
    state: 'The database is at aaa.',
  },
  'under way, to be rehearsed': {
    result: none('outcome')(resultOf({ mode: 'rehearse' })),
    line: 'rehearsing the upgrade by 1 revision',
    state: 'The database is at aaa.',
  },
  'up to date': {
    result: resultOf({ outcome: 'up-to-date', plan: planOf([]), priorHeads: ['bbb'] }),
    line: 'nothing to do',
    state: 'The database is at bbb.',
  },
  'up to date, and no database': {
    result: resultOf({ outcome: 'up-to-date', plan: planOf([]), priorHeads: ['bbb'], database: '' }),
    line: 'nothing to do',
    state: 'No database was asked; the batch from bbb is empty.',
  },
  previewed: {
    result: resultOf(),
    line: 'upgrade by 1 revision',
    state: 'The database is at aaa; nothing was written to it.',
  },
  'previewed from base': {
    result: resultOf({ priorHeads: [] }),
    line: 'upgrade by 1 revision',
    state: 'The database is at base; nothing was written to it.',
  },
  'previewed, and no database': {
    result: resultOf({ database: '', direction: 'downgrade' }),
    line: 'downgrade by 1 revision',
    state: 'No database was asked.',
  },
  rehearsed: {
    result: resultOf({ outcome: 'rehearsed' }),
    line: 'upgrade by 1 revision rehearsed, nothing of it kept',
    state: 'The database is at aaa, as before.',
  },
  applied: {
    result: resultOf({ outcome: 'applied', newHeads: ['bbb', 'ccc'] }),
    line: 'upgraded by 1 revision',
    state: 'The database is at bbb, ccc.',
  },
  'applied, downwards to base': {
    result: resultOf({ outcome: 'applied', direction: 'downgrade', newHeads: [] }),
    line: 'downgraded by 1 revision',
    state: 'The database is at base.',
  },
  'rolled back': {
    result: resultOf({ outcome: 'rolled-back', failure: broken, newHeads: ['aaa'], reread: true }),
    line: 'failed, everything rolled back',
    state: 'The database is at aaa, as before.',
  },
  'rolled back, and the database is gone': {
    result: resultOf({ outcome: 'rolled-back', failure: broken, newHeads: ['aaa'], reread: false }),
    line: 'failed, everything rolled back',
    state: 'The database is at aaa, as before (not re-read: it could not be reached).',
  },
  'rolled back, and somebody else was there': {
    result: resultOf({ outcome: 'rolled-back', failure: broken, newHeads: ['ccc'], reread: true }),
    line: 'failed, everything rolled back',
    state: 'The database is now at ccc; this step changed nothing in it.',
  },
  'rolled back, heads unknown': {
    result: none('newHeads')(resultOf({ outcome: 'rolled-back', failure: broken })),
    line: 'failed, everything rolled back',
    state: 'The database is as it was before.',
  },
  'cancelled while it ran': {
    result: resultOf({ outcome: 'rolled-back', failure: cancelled, newHeads: ['aaa'], reread: true }),
    line: 'cancelled, everything rolled back',
    state: 'The database is at aaa, as before.',
  },
  'cancelled before it ran': {
    result: resultOf({ outcome: 'refused', failure: cancelled, newHeads: ['aaa'], reread: true }),
    line: 'cancelled before anything ran',
    state: 'The database is at aaa, as before.',
  },
  refused: {
    result: none('newHeads')(resultOf({ outcome: 'refused', failure: broken })),
    line: 'refused, nothing ran',
    state: 'The database was not touched.',
  },
  'refused, and no database': {
    result: resultOf({ outcome: 'refused', failure: broken, database: '' }),
    line: 'refused, nothing ran',
    state: '',
  },
  'applied in part': {
    result: resultOf({ outcome: 'partly-applied', failure: broken, newHeads: ['bbb'] }),
    line: 'partly applied, some databases have moved and others have not',
    state: 'The database is at bbb.',
  },
  'in doubt': {
    result: none('newHeads')(resultOf({ outcome: 'in-doubt', failure: broken })),
    line: 'in doubt, no answer to the COMMIT',
    state: 'The database is wholly at aaa or wholly at bbb.',
  },
}

describe('headline and state', () => {
  for (const [name, { result, line, state }] of Object.entries(situations)) {
    test(`${name}: “${line}”`, () => {
      expect(headline(nested(result))).toBe(line)
      expect(stateOf(nested(result))).toBe(state)
    })
  }

  test('know every outcome', () => {
    const all: Record<Outcome, true> = {
      'up-to-date': true,
      previewed: true,
      rehearsed: true,
      applied: true,
      'rolled-back': true,
      refused: true,
      'in-doubt': true,
      'partly-applied': true,
    }
    const told = new Set(Object.values(situations).map(({ result }) => result.outcome))
    expect([...told].filter(outcome => outcome !== undefined).sort()).toEqual(Object.keys(all).sort())
  })

  test('count the batch’s revisions', () => {
    const plan = planOf([revision({ id: 'a' }), revision({ id: 'b' })])
    expect(headline(nested(resultOf({ plan })))).toBe('upgrade by 2 revisions')
    expect(headline(nested(none('plan')(resultOf({ outcome: 'applied' }))))).toContain('0 revisions')
  })
})

test('the state of the database names its heads as it is told to', () => {
  const state = stateOf(nested(resultOf({ outcome: 'in-doubt' })), heads => `<${heads}>`)
  expect(state).toBe('The database is wholly at <aaa> or wholly at <bbb>.')
})

test('an explanation tells what happened, the statement, the state of the database and what to do', () => {
  const failure = new Failure('migration-failed', 'Revision bbb failed: no such table.', {
    advice: 'Mend the script.',
    statement: { sql: 'DROP TABLE x', code: '42P01', message: 'no such table', position: 12 },
  })
  expect(explain({ ...nested(resultOf({ outcome: 'rolled-back', newHeads: ['aaa'], reread: true })), failure })).toBe(
    [
      'Revision bbb failed: no such table.',
      'ERROR 42P01: no such table',
      'LINE 1: DROP TABLE x',
      '                   ^',
      'The database is at aaa, as before.',
      'Mend the script.',
    ].join('\n'),
  )
  const plain = new Failure('invalid-input', 'mode is “x”.')
  expect(explain({ ...nested(resultOf({ outcome: 'refused', database: '' })), failure: plain })).toBe('mode is “x”.')
})
