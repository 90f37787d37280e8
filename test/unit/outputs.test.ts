import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as core from '@actions/core'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Result } from '../../src/plan/result'
import { outputsOf } from '../../src/telling/outputs'
import { readOutputs } from '../support/output-file.mts'
import { hostile, planOf, revision } from './hostile'
import { databaseOf, nothing } from './result'

let folder: string
const given = process.env.GITHUB_OUTPUT
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-outputs-'))
  process.env.GITHUB_OUTPUT = join(folder, 'output')
})
afterEach(() => {
  if (given === undefined) delete process.env.GITHUB_OUTPUT
  else process.env.GITHUB_OUTPUT = given
  rmSync(folder, { recursive: true })
})

/** The outputs as the runner gets them: written as main.ts does, read as the runner does. */
function throughTheFile(outputs: Record<string, string>): Record<string, string> {
  writeFileSync(process.env.GITHUB_OUTPUT!, '')
  for (const [name, value] of Object.entries(outputs)) core.setOutput(name, value)
  return Object.fromEntries(readOutputs(readFileSync(process.env.GITHUB_OUTPUT!, 'utf8')))
}

/** Text that knows GitHub's format. */
const cunning = fc
  .array(
    fc.oneof(
      hostile,
      fc.constantFrom('\n', '\r\n', '\n\n', '<<', '=', '<<EOF', 'EOF', '\nEOF\n', 'outcome=applied', 'ghadelimiter_'),
      fc.constantFrom('\noutcome<<EOF\napplied\nEOF\n', '\nghadelimiter_00000000-0000-4000-8000-000000000000\n'),
    ),
    { maxLength: 6 },
  )
  .map(parts => parts.join(''))
/** What UTF-8 can say. */
const wellFormed = (text: string) => Buffer.from(text).toString()

test('what is written into the file of outputs is what the runner reads from it', () => {
  fc.assert(
    fc.property(cunning, cunning, (one, other) => {
      expect(throughTheFile({ one, other, last: 'x' })).toEqual({
        one: wellFormed(one),
        other: wellFormed(other),
        last: 'x',
      })
    }),
    { numRuns: 200 },
  )
})

describe('whatever the ids, the heads and the paths are,', () => {
  const result: fc.Arbitrary<Result> = fc
    .record({
      ids: fc.uniqueArray(cunning, { maxLength: 3 }),
      heads: fc.array(cunning, { maxLength: 2 }),
      file: cunning,
      binds: fc.uniqueArray(fc.constantFrom('default', 'audit', 'stock'), { minLength: 1 }),
    })
    .map(({ ids, heads, file, binds }) => ({
      ...nothing,
      mode: 'apply',
      outcome: 'rolled-back',
      sqlFile: file,
      databases: binds.map(bind =>
        databaseOf({
          bind,
          plan: planOf(ids.map(id => revision({ id }))),
          priorHeads: heads,
          newHeads: heads,
        }),
      ),
    }))

  test('each output is what it shall be, and no other one is there', () => {
    fc.assert(
      fc.property(result, result => {
        const outputs = outputsOf(result)
        const read = throughTheFile(outputs)
        expect(Object.keys(read)).toEqual(Object.keys(outputs))
        expect(read).toMatchObject({ outcome: 'rolled-back', 'failure-reason': '' })
        const ids = result.databases[0]!.plan!.revisions.map(({ id }) => id)
        expect(JSON.parse(read.revisions!)).toEqual(ids)
        expect(read.pending).toBe(String(ids.length))
        expect(read['sql-file']).toBe(wellFormed(result.sqlFile))
        expect(Object.keys(JSON.parse(read.databases!))).toEqual(result.databases.map(({ bind }) => bind))
      }),
      { numRuns: 200 },
    )
  })

  test('the heads of a database are one line, which begins with its bind where there are several', () => {
    fc.assert(
      fc.property(result, result => {
        const { databases } = result
        for (const name of ['prior-head', 'new-head']) {
          const lines = throughTheFile(outputsOf(result))[name]!.split(/\r\n|\r|\n/)
          expect(lines).toHaveLength(databases.length)
          if (databases.length === 1) continue
          for (const [i, { bind }] of databases.entries()) expect(lines[i]).toMatch(new RegExp(`^${bind}=`))
        }
      }),
      { numRuns: 200 },
    )
  })
})

test('the reader of the file is as strict as the runner', () => {
  expect(readOutputs('a=b\nc<<X\n1\n\n2\nX\n\na=d=e\n')).toEqual(
    new Map([
      ['a', 'd=e'],
      ['c', '1\n\n2'],
    ]),
  )
  expect(readOutputs('a<<X\nX\n').get('a')).toBe('')
  for (const broken of ['a', '<<X\nX\n', 'a<<\n\n', 'a<<X\n1\n', 'a<<X\nX \n'])
    expect(() => readOutputs(broken), broken).toThrow()
})
