import { describe, expect, test } from 'vitest'
import { failureOf } from '../../src/report/blame'
import { planOf, revision } from './hostile'

const plan = planOf([revision({ id: 'a1', message: 'create users' }), revision({ id: 'b2', message: '' })])
const place = { file: 'migrations/versions/a1.py', line: 12 }
const told = { message: 'ZeroDivisionError: division by zero', revision: 'a1', place, fromDatabase: false }
const refused = (code: string, message = 'it is refused') => ({
  sql: 'VACUUM t',
  error: { code, message, detail: 'some detail', hint: 'some hint', position: 3 },
})

describe('a script’s own error', () => {
  test('is told in Python’s words, with revision and place', () => {
    const failure = failureOf(told, undefined, plan)
    expect(failure.reason).toBe('migration-failed')
    expect(failure.message).toBe('Revision a1 (create users) failed: ZeroDivisionError: division by zero.')
    const quotes = [{ of: 'python', text: told.message }]
    expect(failure.details).toEqual({ revision: 'a1', place, quotes })
  })

  test('is not blamed on a statement that the script had caught before', () => {
    const failure = failureOf(told, refused('42P01'), plan)
    expect(failure.message).toContain('division by zero')
    expect(failure.details.statement).toBeUndefined()
  })

  test('names a revision without message, an unknown one, and env.py, as what they are', () => {
    const message = (id: string | null) => failureOf({ ...told, revision: id, message: 'no' }, undefined, plan).message
    expect(message('b2')).toBe('Revision b2 failed: no.')
    expect(message('c3')).toBe('Revision c3 failed: no.')
    expect(message(null)).toBe('env.py failed: no.')
    const { details } = failureOf({ ...told, revision: null, place: undefined }, undefined, plan)
    expect(Object.keys(details)).toEqual(['quotes'])
  })

  test('ends in one full stop', () => {
    const message = (text: string) => failureOf({ ...told, message: text }, undefined, plan).message
    expect(message('It cannot be.')).toMatch(/It cannot be\.$/)
    expect(message('Why?')).toMatch(/Why\?$/)
    expect(message('no')).toMatch(/no\.$/)
  })
})

describe('PostgreSQL’s error', () => {
  const fromDatabase = { ...told, fromDatabase: true }

  test('is told in PostgreSQL’s words, with the statement', () => {
    const failure = failureOf(fromDatabase, refused('42P01', 'relation "x" does not exist'), plan)
    expect(failure.reason).toBe('migration-failed')
    expect(failure.message).toBe('Revision a1 (create users) failed: relation "x" does not exist.')
    expect(failure.details).toMatchObject({
      revision: 'a1',
      place,
      statement: {
        sql: 'VACUUM t',
        code: '42P01',
        message: 'relation "x" does not exist',
        detail: 'some detail',
        hint: 'some hint',
        position: 3,
      },
      advice: 'Mend the script and run the step again: it will start from aaa, as this one did.',
    })
  })

  test('names base as what the next step starts from', () => {
    expect(failureOf(fromDatabase, refused('42P01'), { ...plan, priorHeads: [] }).details.advice).toContain(
      'start from base,',
    )
  })

  for (const code of ['25001', '2D000', '55P04', '55006']) {
    test(`${code} is a statement that cannot be in the transaction`, () => {
      const failure = failureOf(fromDatabase, refused(code), plan)
      expect(failure.reason).toBe('not-transactional')
      expect(failure.details.advice).toContain('`segments: true`')
      expect(failure.details.statement?.code).toBe(code)
    })
  }

  for (const code of ['55P03', '40P01', '40001']) {
    test(`${code} is a lock that was not had`, () => {
      const failure = failureOf(fromDatabase, refused(code), plan)
      expect(failure.reason).toBe('lock-timeout')
      expect(failure.details.advice).toContain('lock-timeout')
      expect(failure.details.statement?.code).toBe(code)
    })
  }

  for (const code of ['57014', '53200', '23505']) {
    test(`${code} is a migration that failed`, () => {
      expect(failureOf(fromDatabase, refused(code), plan).reason).toBe('migration-failed')
    })
  }

  test('is left to Python’s words where no statement is known to have failed', () => {
    for (const last of [undefined, { sql: 'SELECT 1', error: null }]) {
      const failure = failureOf({ ...fromDatabase, message: 'OperationalError: gone' }, last, plan)
      expect(failure.message).toContain('OperationalError: gone.')
      expect(failure.details.statement).toBeUndefined()
    }
  })
})
