import { beforeAll, describe, expect, test } from 'vitest'
import { unfaithfulOf } from '../../src/plan/faithful'
import { NewEnumValues } from '../../src/plan/new-enum-values'
import { loadParser } from '../../src/plan/statements'

beforeAll(() => loadParser())

const unfaithful = (...statements: string[]) =>
  unfaithfulOf(
    {
      direction: 'upgrade',
      target: 'head',
      priorHeads: [],
      newHeads: ['b2'],
      revisions: [
        {
          id: 'b2',
          down: [],
          dependsOn: [],
          labels: [],
          message: '',
          path: 'b2.py',
          file: '/b2.py',
          created: '',
          digest: '',
          statements: statements.map((sql, at) => ({ sql, line: 10 + at, own: false })),
        },
      ],
    },
    new NewEnumValues('made'),
  ).map(({ revision, line, why }) => `${revision.id}:${line}: ${why}`)

describe('SQL that is not applied as it is shown', () => {
  test.each([
    ['a COMMIT', 'COMMIT', 'it holds a COMMIT'],
    ['a COMMIT among others', 'SELECT 1; /* ; */ END', 'it holds a COMMIT'],
    ['what cannot be in a transaction', 'VACUUM', 'VACUUM cannot run inside a transaction block'],
    ['COPY from nowhere', 'COPY t FROM STDIN', 'COPY FROM STDIN needs its data'],
    ['what changes how strings are read', 'SET standard_conforming_strings = off', 'it sets standard_conf'],
    ['what is no SQL', 'MAKE TABLE; t', 'PostgreSQL 18’s parser does not read it'],
  ])('%s', (_, sql, why) => {
    expect(unfaithful('CREATE TABLE t (id int)', sql)).toContainEqual(expect.stringMatching(`^b2:11: ${why}`))
  })

  test('and everything else is', () => {
    expect(unfaithful('CREATE TABLE t (id int)', 'SET standard_conforming_strings = on', "SELECT 'COMMIT'")).toEqual([])
  })
})
