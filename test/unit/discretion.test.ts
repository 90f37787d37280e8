import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { Failure, type FailureDetails } from '../../src/failure'
import { loadParser } from '../../src/plan/statements'
import { withoutConstants } from '../../src/report/discretion'
import { explain } from '../../src/report/state'
import { nothing } from './result'

beforeAll(() => loadParser())

const base = { ...nothing, mode: 'apply', outcome: 'rolled-back' } as const

/** What is told of a failure. */
const told = (message: string, details: FailureDetails = {}) =>
  explain(withoutConstants({ ...base, failure: new Failure('migration-failed', message, details) }))

/** What is told of a statement that PostgreSQL has refused. */
function refused(message: string, { sql = 'UPDATE t SET id = 1', code = '22P02', context = '' } = {}): string {
  const statement = { sql, code, message, context, detail: `Key (id)=(${message})`, hint: message, position: 3 }
  const [first = ''] = told(`Revision a1 failed: ${message}.`, { statement }).split('\n')
  return first
}

describe('Of PostgreSQL’s words those are told that cannot be a constant:', () => {
  test.each([
    ['invalid input syntax for type integer: "topsecret"', 'invalid input syntax for type integer: "…"'],
    ['invalid input syntax for type json', 'invalid input syntax for type json'],
    ['value "99999999999" is out of range for type integer', 'value "…" is out of range for type integer'],
    ['date/time field value out of range: "1999-13-45"', '… field value out of range: "…"'],
    [
      'null value in column "id" of relation "t" violates not-null constraint',
      'null value in column "id" of relation "t" violates … constraint',
    ],
    [
      'duplicate key value violates unique constraint "t_email_key"',
      'duplicate key value violates unique constraint "…"',
    ],
    ['setval: value 4711 is out of bounds for sequence "s" (1..10)', '…: value … is out of … for sequence "…" (…)'],
    ['invalid input syntax for type integer: "top"secret" and more"', 'invalid input syntax for type integer: "…"…"…"'],
    ['canceling statement due to statement timeout', 'canceling statement due to statement timeout'],
    ['division by zero', 'division by zero'],
  ])('%s', (message, shown) => expect(refused(message)).toBe(`Revision a1 failed: ${shown}.`))

  test('names of the statement, and of the fields of an error', () => {
    const sql = `INSERT INTO "Order" (no_such) VALUES ('x')`
    expect(refused('column "no_such" of relation "Order" does not exist', { sql })).toContain(
      'column "no_such" of relation "Order" does not exist',
    )
    const cause = Object.assign(
      new Error('insert or update on table "pair" violates foreign key constraint "pair_fkey"'),
      {
        code: '23503',
        severity: 'ERROR',
        table: 'pair',
        constraint: 'pair_fkey',
      },
    )
    expect(told(`A deferred constraint is violated: ${cause.message}.`, { cause })).toBe(
      `A deferred constraint is violated: ${cause.message}.`,
    )
  })

  test.each([
    { code: 'P0001' },
    { code: '23505', context: 'PL/pgSQL function f() line 3 at RAISE' },
    { code: '22000', context: 'PL/Python function "f"' },
    { code: '38000' },
  ])('none that a function says: %o', options => {
    expect(refused('the value is not unique', options)).toMatch(/^Revision a1 failed: \(its words are not shown/)
  })
})

test('Of a Python error the class is told, of a fault of ours as well', () => {
  const of = (text: string) => told(`Revision a1 failed: ${text}.`, { quotes: [{ of: 'python', text }] })
  expect(of("ValueError: invalid literal for int() with base 10: 'topsecret'")).toMatch(
    /^Revision a1 failed: ValueError \(its/,
  )
  expect(of('psycopg.errors.DataError: topsecret')).toMatch(/failed: psycopg.errors.DataError \(its/)
  expect(of('KeyError')).toMatch(/failed: KeyError \(its/)
  expect(of('The script ended Python with SystemExit(topsecret).')).toMatch(/failed: an error \(its/)
  const cause = new SyntaxError('Unexpected token: topsecret is not valid JSON')
  const failure = new Failure('internal', cause.message, { cause })
  expect(explain(withoutConstants({ ...base, failure }))).not.toContain('topsecret')
})

test('Of a session that was in the way it is told who it is, and not what it runs', () => {
  const text =
    "psql (pid 7, user ada, in a transaction since 2026-01-01, active): UPDATE t SET n = 'topsecret' WHERE (a): x"
  const shown = told(`Revision a1 did not get a lock: x. It waited for ${text}.`, { quotes: [{ of: 'session', text }] })
  expect(shown).toBe(
    'Revision a1 did not get a lock: x. It waited for psql (pid 7, user ada, in a transaction since 2026-01-01, active).',
  )
})

test('no constant is left, whatever it is, and whoever says it', () => {
  const constant = fc.string({ unit: 'grapheme', minLength: 1 }).map(each => `top secret${each.replaceAll('\0', '')}`)
  const templates = fc.constantFrom(
    (value: string) => `invalid input syntax for type integer: "${value}"`,
    (value: string) => `invalid value ${value} for the setting`,
    (value: string) => value,
    (value: string) => `'${value}' is not a valid ${value}`,
  )
  fc.assert(
    fc.property(constant, templates, (value, template) => {
      expect(refused(template(value))).not.toContain('secret')
    }),
  )
})
