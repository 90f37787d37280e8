import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { withTables } from '../../script/readme.mts'
import { root } from '../support/runner.mts'

const read = (name: string) => readFileSync(join(root, name), 'utf8')

test('the README’s tables are what action.yml says', () => {
  expect(read('README.md')).toBe(withTables(read('README.md'), read('action.yml')))
})

test('the two commands stand at the top of the README', () => {
  const top = read('README.md').split('\n').slice(0, 12).join('\n')
  expect(top).toMatch(/script\/demo[\s\S]*script\/test/)
})
