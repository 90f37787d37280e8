import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import type { Plan } from '../../src/plan/plan.ts'
import { type PlanContent, readPlanFile, writePlanFile } from '../../src/plan/plan-file.ts'
import { countStatements, separate } from '../../src/plan/separate.ts'
import { loadParser } from '../../src/plan/statements.ts'
import { headsBehind, moveIn } from '../../src/plan/version-rows.ts'

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
      { numRuns: 800 },
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
      { numRuns: 800 },
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

describe('Statements that a script executes at once', () => {
  const sqls = fc.constantFrom(
    'SELECT 1',
    "SELECT '😀;', 1",
    '/* é */ SELECT 1 -- at the end; of it\n',
    "DO $$ BEGIN PERFORM ';'; END $$",
    '-- before\nSELECT 2',
  )

  test('are shown, kept and sent one by one, with all of their text', () => {
    fc.assert(
      fc.property(
        fc.array(sqls, { minLength: 1, maxLength: 8 }),
        fc.constantFrom('', ';', '; -- the end'),
        (list, end) => {
          const together = { sql: list.join(';') + end, line: 7, own: false }
          const revision = {
            id: 'a',
            down: [],
            dependsOn: [],
            labels: [],
            message: '',
            path: '',
            file: '',
            created: '',
            digest: '',
          }
          const plan: Plan = {
            direction: 'upgrade',
            target: 'a',
            priorHeads: [],
            newHeads: ['a'],
            revisions: [{ ...revision, statements: [together] }],
          }
          const { statements = [] } = separate(plan).revisions[0]!
          expect(statements).toHaveLength(list.length)
          expect(statements.map(({ sql }) => sql.replaceAll(/\s/g, '')).join(';')).toBe(
            together.sql.replaceAll(/\s/g, ''),
          )
          for (const { sql, line } of statements) expect([countStatements(sql), line]).toEqual([1, 7])
        },
      ),
    )
  })
})

describe('A statement of Alembic’s own', () => {
  const table = { name: 'alembic_version', schema: null }
  test.each([
    ["INSERT INTO alembic_version (version_num) VALUES ('a1')", { to: 'a1' }],
    ["INSERT INTO alembic_version (at, version_num) VALUES (now(), 'a1')", { to: 'a1' }],
    ["UPDATE alembic_version SET version_num='b2' WHERE alembic_version.version_num = 'a1'", { from: 'a1', to: 'b2' }],
    ["DELETE FROM alembic_version WHERE alembic_version.version_num = 'a1'", { from: 'a1' }],
    ['CREATE TABLE alembic_version (\n\tversion_num VARCHAR(32) NOT NULL, \n\tPRIMARY KEY (version_num)\n)', {}],
    ['DROP TABLE alembic_version', {}],
  ])('%s', (sql, move) => {
    expect(moveIn(sql, table)).toEqual(move)
    expect(moveIn(sql, { name: 'alembic_version', schema: 'other' })).toBeUndefined()
  })

  test.each([
    'DROP TABLE person',
    'DROP TABLE alembic_version, person',
    'DELETE FROM alembic_version',
    "DELETE FROM alembic_version WHERE version_num = 'a1' OR destroy()",
    "DELETE FROM alembic_version USING person WHERE version_num = 'a1'",
    "INSERT INTO alembic_version (version_num) VALUES (destroy('a1'))",
    "INSERT INTO alembic_version (version_num, x) VALUES ('a1', destroy())",
    "INSERT INTO alembic_version (version_num, x) VALUES ('a1', (SELECT 1))",
    "INSERT INTO alembic_version (version_num) VALUES ('a1'), ('b2')",
    "WITH d AS (DELETE FROM person) INSERT INTO alembic_version (version_num) VALUES ('a1')",
    "INSERT INTO alembic_version (version_num) VALUES ('a1') RETURNING destroy()",
    "UPDATE other SET version_num='b2' WHERE version_num = 'a1'",
    "SELECT 1; INSERT INTO alembic_version (version_num) VALUES ('a1')",
    '',
    'SELECT destroy()',
    'nonsense',
  ])('is not %s', sql => {
    expect(moveIn(sql, table)).toBeUndefined()
  })

  test('moves the heads', () => {
    expect(headsBehind(['a'], [{ from: 'a', to: 'b' }, { to: 'c' }, {}, { from: 'c' }])).toEqual(new Set(['b']))
    expect(headsBehind([], [{ from: 'a', to: 'b' }])).toBeUndefined()
  })
})
