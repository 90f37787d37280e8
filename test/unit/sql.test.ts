import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { ownStatements, sqlScript, terminated } from '../../src/plan/sql'
import { loadParser, splitStatements } from '../../src/plan/statements'
import { hostile, planOf, revision } from './hostile'

beforeAll(loadParser)

const statement = (sql: string, own = false) => ({ sql, line: null, own })
const split = (sql: string) => splitStatements(sql).map(each => each.sql)

describe('a terminator', () => {
  test('follows the statement, on a line of its own after a line comment', () => {
    expect(terminated('SELECT 1')).toBe('SELECT 1;')
    expect(terminated('SELECT 1 -- told')).toBe('SELECT 1 -- told\n;')
    expect(terminated('SELECT 1 -- told\nFROM t')).toBe('SELECT 1 -- told\nFROM t;')
  })

  test('ends the statement, whatever is in its last line', () => {
    for (const sql of ["SELECT '--'", 'SELECT 1 --', 'SELECT 1 /* -- */', "SELECT '\n--'", 'SELECT 1 -- a\rFROM t']) {
      expect(split(`${terminated(sql)}SELECT 2`), sql).toHaveLength(2)
    }
  })
})

test('what a person reads is the script’s own, without Alembic’s bookkeeping', () => {
  const statements = [statement('CREATE TABLE alembic_version (v text)', true), statement('CREATE TABLE t (id int)')]
  expect(ownStatements(revision({ id: 'a', statements })).map(({ sql }) => sql)).toEqual(['CREATE TABLE t (id int)'])
  expect(ownStatements(revision({ id: 'a', notRenderable: { reason: 'x', line: 1 } }))).toEqual([])
})

describe('the SQL script', () => {
  test('is the whole batch in one transaction, bookkeeping included', () => {
    const first = revision({
      id: 'a1',
      statements: [statement('CREATE TABLE t (id int)'), statement('INSERT 1', true)],
    })
    const second = revision({ id: 'b2', message: '', statements: [] })
    expect(sqlScript(planOf([first, second], { priorHeads: [], newHeads: ['b2'] }))).toBe(
      [
        '-- base -> b2',
        'BEGIN;',
        '-- upgrade a1: create customers',
        'CREATE TABLE t (id int);',
        'INSERT 1;',
        '-- upgrade b2',
        '',
        'COMMIT;',
        '',
      ].join('\n\n'),
    )
  })

  test('cannot be made of a batch that is not rendered', () => {
    const unseen = revision({ id: 'a1', notRenderable: { reason: 'it reads the database', line: 1 } })
    expect(() => sqlScript(planOf([unseen]))).toThrow('revision a1 is not rendered')
  })

  test('runs the statements and nothing else, whatever ids, messages and heads say', () => {
    fc.assert(
      fc.property(hostile, hostile, hostile, (id, message, head) => {
        const [line, ...rest] = [id, message, head].map(text => text.replaceAll('\0', ''))
        const plan = planOf([revision({ id: line!, message: rest[0]!, statements: [statement('SELECT 1 -- x')] })], {
          priorHeads: [rest[1]!],
          newHeads: [`${rest[1]}\nDROP TABLE users;`],
        })
        expect(split(sqlScript(plan)).map(sql => sql.replaceAll(/\s+/g, ' '))).toEqual([
          'BEGIN',
          'SELECT 1 -- x',
          'COMMIT',
        ])
      }),
      { numRuns: 1_000 },
    )
  })
})
