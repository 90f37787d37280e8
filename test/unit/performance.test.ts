import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type Figures, median, type Race } from '../bench/figures.mts'
import { page, raceTable } from '../bench/page.mts'
import { plot } from '../bench/plot.mts'
import { isMet, judge, lapsed, ratio } from '../bench/targets.mts'
import { root } from '../support/runner.mts'

const race: Race = {
  title: 'A batch',
  text: 'Of one revision.',
  rows: [
    { name: 'raw | <psql>', times: [1000, 1200, 1100] },
    { name: 'the action: apply', times: [1320, 1310, 1400] },
    { name: 'start only', times: [500] },
  ],
  targets: [
    { what: 'whole', of: 'the action: apply', to: 'raw | <psql>', limit: 1.2 },
    { what: 'rest', of: { of: 'the action: apply', without: 'start only' }, to: 'start only', limit: 1.7, at: 'least' },
  ],
}
const small = { batch: '1 revision', statements: 3, cpu: [290, 280], memory: [100, 151], wall: [1000, 1000] }
const data = { batch: '1 revision with data', statements: 50, cpu: [900], memory: [399], wall: [4000] }
const figures: Figures = {
  machine: { CPU: 'of some kind' },
  versions: { PostgreSQL: '18.4' },
  races: [race],
  own: [small, data],
  dist: { 'dist/index.js': 2_200_000, 'dist/driver/main.py': 900 },
}

test('the median is the middle one, or the mean of the two in the middle', () => {
  expect(median([3, 1, 2])).toBe(2)
  expect(median([4, 1, 2, 3])).toBe(2.5)
})

test('a target is a ratio of medians, or of what one takes longer than another', () => {
  expect(race.targets.map(target => ratio(race, target))).toEqual([1.2, 1.64])
  expect(race.targets.map(target => isMet(race, target))).toEqual([true, false])
  expect(() => ratio(race, { ...race.targets[0]!, of: 'nobody' })).toThrow('“nobody” did not run')
})

test('a target that was met and no longer is has lapsed, others not', () => {
  const before = judge(figures)
  const slower = { ...race, rows: race.rows.map(row => (row.name === 'start only' ? { ...row, times: [100] } : row)) }
  expect(lapsed(before, judge({ races: [slower], own: [{ ...small, cpu: [301] }, data] }))).toEqual([
    { target: 'own CPU time (1 revision)', wanted: '≤ 300 ms', measured: '301 ms', met: false },
  ])
  expect(lapsed(before, before)).toEqual([])
})

describe('the page', () => {
  test('has each contestant with its spread and its ratio', () => {
    expect(raceTable(race)).toContain('| raw \\| <psql> | 1,100 ms | 1,000 ms … 1,200 ms | 3 | 1.00 × |')
    expect(raceTable(race)).toContain('| the action: apply | 1,320 ms | 1,310 ms … 1,400 ms | 3 | 1.20 × |')
  })

  test('says of each target whether it is met', () => {
    const told = page(figures)
    expect(told).toContain('| whole (A batch) | ≤ 1.2 × | 1.20 × | ✓ |')
    expect(told).toContain('| rest (A batch) | ≥ 1.7 × | 1.64 × | ✗ |')
    expect(told).toContain('| own CPU time (1 revision) | ≤ 300 ms | 285 ms | ✓ |')
    expect(told).toContain('| memory at peak (1 revision) | ≤ 150 MiB | 151 MiB | ✗ |')
    expect(told).toContain('| memory at peak (1 revision with data) | ≤ 400 MiB | 399 MiB | ✓ |')
  })

  test('says of a race that was profiled where its time goes', () => {
    const load = { name: 'the action: apply', wall: [900, 2000], python: [700, 720], node: [310, 300], postgres: [95] }
    const sampled = [
      { name: 'preview', parts: { waits: 500 } },
      { name: 'apply', parts: { waits: 610, 'V8: garbage collection': 12.4 } },
    ]
    const told = page({ ...figures, races: [{ ...race, loads: [load], sampled }] })
    expect(told).toContain('| the action: apply | 710 ms | 305 ms | 95 ms | 1,110 ms | 1,450 ms |')
    expect(told).toContain('|  | preview | apply |')
    expect(told).toContain('| V8: garbage collection | 0 ms | 12 ms |\n| waits | 500 ms | 610 ms |')
    expect(page(figures)).not.toContain('Where the time goes')
  })
})

test('the plot has a bar for each, as long as its median, and no text that is markup', () => {
  const svg = plot(figures)
  expect(svg).toContain('raw | &lt;psql&gt;')
  const widths = [...svg.matchAll(/<rect x="270" y="\d+" width="([\d.]+)"/g)].map(([, width]) => Number(width))
  expect(widths).toHaveLength(5)
  expect(widths[1]! / widths[0]!).toBeCloseTo(1.2, 2)
})

test('docs/performance.md and its plot are what docs/performance.json says', () => {
  const [json, markdown, svg] = ['performance.json', 'performance.md', 'images/performance.svg'].map(name => {
    const path = join(root, 'docs', name)
    return existsSync(path) ? readFileSync(path, 'utf8') : undefined
  })
  const measured = json === undefined ? undefined : (JSON.parse(json) as Figures)
  expect(markdown).toBe(measured && page(measured))
  expect(svg).toBe(measured && plot(measured))
})
