import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { messageOf, refusedIn } from '../../src/plan/message.ts'
import { type PlanContent, readPlanFile, writePlanFile } from '../../src/plan/plan-file.ts'
import { loadParser } from '../../src/plan/statements.ts'

beforeAll(loadParser)

const text = fc.string({ unit: 'binary', maxLength: 40 })
const heads = fc.array(text, { maxLength: 3 })
const statement = fc.record({ sql: text, line: fc.option(fc.integer({ min: 1 })), own: fc.boolean() })
const revision = fc.record({
  id: text,
  message: text,
  path: text,
  digest: text,
  statements: fc.array(statement, { maxLength: 4 }),
})
const database = fc.record({
  bind: text,
  database: fc.option(fc.record({ name: text, 'system-identifier': text })),
  'version-table': fc.record({ name: text, schema: fc.option(text), exists: fc.boolean() }),
  'prior-heads': heads,
  'new-heads': heads,
  revisions: fc.array(revision, { maxLength: 4 }),
})
const content: fc.Arbitrary<PlanContent> = fc.record({
  repository: text,
  label: text,
  digest: text,
  direction: fc.constantFrom('upgrade', 'downgrade'),
  databases: fc.array(database, { minLength: 1, maxLength: 3 }),
})

const refused = expect.objectContaining({ reason: 'plan-changed' })

describe('A plan file', () => {
  test('holds any plan, signed or not', () => {
    const keys = fc.constantFrom('', 'a key')
    fc.assert(
      fc.property(content, keys, (plan, key) => {
        const { repository, label } = plan
        expect(readPlanFile(writePlanFile(plan, key), { repository, label, key })).toEqual(plan)
      }),
      { numRuns: 2_000 },
    )
  })

  test('is refused with any character of it changed, unless it says the same', () => {
    fc.assert(
      fc.property(content, fc.nat(), fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }), (plan, at, by) => {
        const { repository, label } = plan
        const file = writePlanFile(plan, 'a key')
        const index = at % file.length
        const other = file.slice(0, index) + by + file.slice(index + 1)
        let read: PlanContent | undefined
        try {
          read = readPlanFile(other, { repository, label, key: 'a key' })
        } catch (error) {
          expect(error).toEqual(refused)
        }
        // White space, or an escape written otherwise.
        if (read) expect(read).toEqual(plan)
      }),
      { numRuns: 2_000 },
    )
  })

  test('is refused, whatever else is in its place', () => {
    const given = { repository: '', label: '', key: '' }
    fc.assert(
      fc.property(fc.json(), json => {
        expect(() => readPlanFile(json, given)).toThrow(refused)
      }),
    )
    for (const plan of [null, [], {}, { databases: [{}] }]) {
      const file = JSON.stringify({ format: 'atomic-upgrade/plan', version: 1, plan, checksum: '' })
      expect(() => readPlanFile(file, given)).toThrow('The plan file was altered: #/plan')
    }
  })
})

describe('The message of a revision', () => {
  const sqls = fc.constantFrom(
    'SELECT 1',
    "SELECT '😀;', 1",
    'SELECT 1; SELECT 2',
    '-- nothing',
    'SELECT 1 -- at the end; of it',
    "DO $$ BEGIN PERFORM ';'; END $$",
    '/* ; */',
    '',
  )
  const commandsIn = (sql: string) => (/^(--|\/\*|$)/.test(sql) ? 0 : /; SELECT 2/.test(sql) ? 2 : 1)

  test('finds the statement of each command and of each character', () => {
    fc.assert(
      fc.property(fc.array(sqls, { minLength: 1, maxLength: 8 }), list => {
        const statements = list.map((sql, line) => ({ sql, line, own: false }))
        const message = messageOf(statements)
        const commands = statements.flatMap(each => Array.from({ length: commandsIn(each.sql) }, () => each))
        expect(message.commands).toEqual(commands)
        for (const [index, statement] of commands.entries()) {
          expect(refusedIn(message, undefined, index)).toEqual({ statement })
        }
        const characters = [...message.text]
        let before = 0
        for (const statement of statements) {
          const length = [...statement.sql].length
          for (let at = 0; at < length; at++) {
            expect(characters[before + at]).toBe([...statement.sql][at])
            expect(refusedIn(message, before + at + 1, 0)).toEqual({ statement, position: at + 1 })
          }
          before = characters.indexOf('\n', characters.indexOf(';', before + length)) + 1
        }
      }),
    )
  })
})
