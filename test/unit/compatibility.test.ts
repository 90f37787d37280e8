import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { allRuns, inShort, type Runs, withPart } from '../../script/compatibility.mts'
import { root } from '../support/runner.mts'

const read = (path: string) => readFileSync(join(root, path), 'utf8')
const runs = JSON.parse(read('docs/compatibility.json')) as Runs

test('the tables of README.md and docs/compatibility.md are those of the runs', () => {
  expect(read('README.md')).toBe(withPart(read('README.md'), 'compatibility', inShort(runs)))
  const page = read('docs/compatibility.md')
  expect(page).toBe(withPart(page, 'runs', allRuns(runs)))
})

test('what is called the newest is what the tests have now', () => {
  const pinned = ['migrations-fixture/requirements.txt', 'test/requirements.txt'].flatMap(path =>
    [...read(path).matchAll(/^([\w-]+)(?:\[\w+\])?==(\S+)$/gm)].map(([, name, version]) => [name, version]),
  )
  // What checks the workflows and the driver is in no stack.
  const packaged = pinned.filter(([name]) => !['zizmor', 'mypy', 'ruff'].includes(name!))
  const newest = Object.entries(runs).filter(([name]) => name.endsWith('newest packages'))
  expect(newest.length).toBeGreaterThan(0)
  for (const [, { packages }] of newest) expect(packages).toMatchObject(Object.fromEntries(packaged))
})

test('what fails does not get into the README', () => {
  const [name, run] = Object.entries(runs)[0]!
  expect(() => inShort({ ...runs, [name]: { ...run, failed: 1 } })).toThrow(`These combinations fail: ${name}`)
  expect(allRuns({ [name]: { ...run, passed: 38, failed: 1 } })).toContain('1 of 39 failed')
})
