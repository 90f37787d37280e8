import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Digested, digestOf } from '../../src/plan/digest'
import { changesBetween, listed } from '../../src/report/changes'
import { hiddenPlan, planHiddenIn } from '../../src/report/hidden'
import { hostile } from './hostile'

type Scripts = [string, string][]
const planned = (
  binds: Record<string, [string[], string[], Scripts]>,
  direction: 'upgrade' | 'downgrade' = 'upgrade',
) =>
  ({
    format: 'atomic-upgrade/digest',
    version: 1,
    direction,
    databases: Object.entries(binds).map(([bind, [prior, target, revisions]]) => {
      return { bind, 'prior-heads': prior, 'new-heads': target, revisions }
    }),
  }) satisfies Digested
const one = (prior: string[], target: string[], revisions: Scripts) => planned({ default: [prior, target, revisions] })

const expected = one(['a0'], ['b2'], [['a1', '1'], ['b2', '2']]) // biome-ignore format: a table

describe('What differs from the plan that was expected', () => {
  // biome-ignore format: a table
  const cases: [string, Digested, string[]][] = [
    ['a script', one(['a0'], ['b2'], [['a1', '1'], ['b2', '3']]), ['the script of revision b2 changed']],
    ['scripts', one(['a0'], ['b2'], [['a1', '2'], ['b2', '3']]), ['the scripts of revisions a1 and b2 changed']],
    ['a head more', one(['a0'], ['c3'], [['a1', '1'], ['b2', '2'], ['c3', '3']]), ['revision c3 came to it', 'it leads to c3 and not b2']],
    ['a database that has gone on', one(['a1'], ['b2'], [['b2', '2']]), ['revision a1 went from it', 'it starts from a1 and not a0']],
    ['a database that is empty', one([], ['b2'], [['a1', '1'], ['b2', '2']]), ['it starts from base and not a0']],
    ['the order', one(['a0'], ['b2'], [['b2', '2'], ['a1', '1']]), ['the revisions run in another order']],
    ['the direction', { ...expected, direction: 'downgrade' }, ['it is a downgrade and not an upgrade']],
    ['nothing', expected, []],
  ]
  for (const [name, now, clauses] of cases) {
    test(`is told: ${name}`, () => expect(changesBetween(expected, now).clauses).toEqual(clauses))
  }

  test('names the database where there are several', () => {
    const was = planned({ default: [['a0'], ['a1'], [['a1', '1']]], zones: [[], ['z'], [['z', '1']]] })
    const is = planned({ accounts: [[], [], []], default: [['a0'], ['a1'], [['a1', '2']]] })
    expect(changesBetween(was, is)).toEqual({
      clauses: [
        'in default the script of revision a1 changed',
        'the database zones is no part of it any more',
        'the database accounts has come to it',
      ],
      changed: ['a1'],
    })
  })

  test('does not name hundreds of revisions', () => {
    const ids = Array.from({ length: 300 }, (_, i) => `r${i}`)
    expect(listed(ids)).toMatch(/^revisions r0, .*, r19 and 280 more$/)
  })
})

describe('A plan that a comment hides', () => {
  test('is found again, whatever is in it, and is one line that ends nowhere else', () => {
    fc.assert(
      fc.property(hostile, hostile, hostile, (bind, head, id) => {
        const digested = planned({ [bind]: [[head], [], [[id, '--->']]] })
        const line = hiddenPlan(digested)
        expect(line).toMatch(/^<!-- [\x20-\x7e]* -->$/)
        expect(line.slice(4, -3)).not.toMatch(/--|[<>@#&]/)
        expect(planHiddenIn(`<!-- marker -->\r\n${line}\r\n\r\n### text`, digestOf(digested))).toEqual(digested)
      }),
      { numRuns: 1_000 },
    )
  })

  test('is not believed when its digest is another', () => {
    expect(planHiddenIn(hiddenPlan(expected), digestOf(one([], [], [])))).toBeUndefined()
    expect(planHiddenIn('### no plan', digestOf(expected))).toBeUndefined()
    expect(planHiddenIn('<!-- atomic-upgrade-plan {"format": -->', digestOf(expected))).toBeUndefined()
  })
})
