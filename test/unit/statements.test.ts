import fc from 'fast-check'
import { SqlError } from 'libpg-query'
import { beforeAll, describe, expect, test } from 'vitest'
import { type Effect, effectOf, loadParser, splitStatements } from '../../src/plan/statements'
import { hostile } from './hostile'

beforeAll(loadParser)

const split = (sql: string) => splitStatements(sql).map(statement => statement.sql)
const effects = (sql: string) => splitStatements(sql).map(({ tree }) => effectOf(tree))
const effect = (sql: string) => effects(sql)[0]!

describe('splitting', () => {
  test('takes statements apart, without terminators and leading comments', () => {
    expect(split('SELECT 1; SELECT 2')).toEqual(['SELECT 1', 'SELECT 2'])
    expect(split('-- first\nSELECT 1;\n/* second */ SELECT 2;\n')).toEqual(['SELECT 1', 'SELECT 2'])
    expect(split('SELECT 1 -- told\n, 2;')).toEqual(['SELECT 1 -- told\n, 2'])
  })

  test('finds nothing where there is nothing', () => {
    for (const sql of ['', ' \n\t', ';', ';;;', '-- only a comment', '/* nested /* comment */ */ ;']) {
      expect(split(sql), sql).toEqual([])
    }
  })

  test('is not led astray by semicolons within a statement', () => {
    for (const statement of [
      "SELECT ';'",
      "SELECT E'\\';'",
      'SELECT 1 AS ";"',
      'DO $$ BEGIN PERFORM 1; END $$',
      "DO $a$ BEGIN PERFORM '$$;$$'; END $a$",
      'CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END',
      'CREATE RULE r AS ON INSERT TO t DO (INSERT INTO u VALUES (1); INSERT INTO v VALUES (2))',
      'SELECT 1 /* ; */',
    ]) {
      expect(split(`${statement};SELECT 2`)).toEqual([statement, 'SELECT 2'])
      expect(split(`SELECT 2;${statement}`)).toEqual(['SELECT 2', statement])
    }
  })

  test('counts bytes as the parser does, whatever characters the text has', () => {
    expect(split("SELECT '😀é日'; SELECT 'ß' AS \"ü\"; SELECT 'x'")).toEqual([
      "SELECT '😀é日'",
      'SELECT \'ß\' AS "ü"',
      "SELECT 'x'",
    ])
    fc.assert(
      fc.property(fc.array(hostile, { minLength: 1, maxLength: 5 }), texts => {
        const clean = texts.map(text => Buffer.from(text.replaceAll('\0', '').replaceAll("'", "''")).toString())
        const statements = clean.map((text, i) => `SELECT '${text}' AS "ä${i}"`)
        expect(split(statements.join(';\n'))).toEqual(statements)
        expect(split(statements.map(each => `/* é */ ${each} ;`).join('-- 日\n'))).toEqual(statements)
      }),
      { numRuns: 1_000 },
    )
  })

  test('finds the same statements whatever stands between them', () => {
    const text = fc
      .array(hostile, { maxLength: 3 })
      .map(parts => Buffer.from(parts.join('').replaceAll('\0', '')).toString())
    const tag = fc.constantFrom('', 'a', 'ä', '_1')
    const statement = fc.oneof(
      text.map(each => `SELECT '${each.replaceAll("'", "''")}'`),
      text.map(each => `SELECT E'${each.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`),
      text.map(each => `SELECT 1 AS "${each.replaceAll('"', '""')}é"`),
      fc.tuple(text, tag).map(([each, name]) => `DO $${name}$ ${each.replaceAll('$', '')};COMMIT; $${name}$`),
      text.map(each => `SELECT 1 -- ${each.replaceAll(/[\r\n]/g, ' ')}\n, 2`),
      text.map(each => `SELECT /* ${each.replaceAll(/[/*]/g, '')} /* ; */ */ 3`),
      fc.constantFrom('COMMIT', "PREPARE TRANSACTION 'a;b'", 'COPY t FROM STDIN', 'CREATE TABLE "T;" (a int)'),
      fc.constant('CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END'),
    )
    const between = fc.tuple(
      fc.constantFrom('', ' ', '\n', ' /* ; */ '),
      fc.constantFrom(';', ';;', '; ;', ';\n'),
      fc.constantFrom('', ' ', '\t', '-- é;\n', '/* /* ; */ */', '\f'),
    )
    fc.assert(
      fc.property(fc.array(fc.tuple(statement, between), { maxLength: 6 }), parts => {
        const sql = parts.map(([each, [before, end, after]]) => each + before + end + after).join('')
        const found = split(sql)
        expect(found).toHaveLength(parts.length)
        for (const [i, [each]] of parts.entries()) {
          // What stands before the semicolon is still the statement's.
          expect(found[i]!.startsWith(each)).toBe(true)
          expect(found[i]!.slice(each.length)).toMatch(/^( \/\* ; \*\/)?$/)
          expect(split(found[i]!)).toEqual([found[i]])
        }
      }),
      { numRuns: 2_000 },
    )
  })

  test('of any bytes gives statements that are in them, or an SqlError', () => {
    const bytes = fc.oneof(
      hostile,
      fc.uint8Array({ maxLength: 40 }).map(each => Buffer.from(each).toString('latin1')),
      fc
        .array(
          fc.oneof(
            hostile,
            fc.constantFrom('SELECT', ' 1', ';', "'", "E'", 'U&', '$$', '$a$', '/*', '*/', '--', '\\', '(', ')', '"'),
          ),
        )
        .map(parts => parts.join('')),
    )
    fc.assert(
      fc.property(bytes, sql => {
        let found: string[]
        try {
          found = split(sql)
        } catch (error) {
          if (!(error instanceof SqlError)) throw error
          return
        }
        let from = 0
        for (const each of found) {
          const at = Buffer.from(sql).toString().indexOf(each, from)
          expect(at).toBeGreaterThanOrEqual(from)
          from = at + each.length
        }
      }),
      { numRuns: 5_000 },
    )
  })

  test('keeps its place where half a surrogate pair is in the text', () => {
    expect(split("SELECT '\ud83dé'; SELECT '\ude00'; SELECT 'ok'")).toEqual([
      "SELECT '\ufffdé'",
      "SELECT '\ufffd'",
      "SELECT 'ok'",
    ])
  })

  test('refuses a null byte, behind which the parser would overlook the rest', () => {
    expect(() => split('SELECT 1;\0COMMIT')).toThrow('null byte')
  })

  test('throws where PostgreSQL’s grammar does not accept the text', () => {
    expect(() => split('SELEKT 1')).toThrow(/syntax error/)
    expect(() => split("SELECT 'x")).toThrow(/unterminated/)
  })

  test('takes 3,000 statements and one of 2 MB', () => {
    const many = Array.from({ length: 3_000 }, (_, i) => `INSERT INTO t VALUES (${i}, 'é')`)
    expect(split(many.join(';'))).toEqual(many)
    const long = `SELECT '${'é'.repeat(1024 * 1024)}'`
    expect(split(`${long};SELECT 1`)).toEqual([long, 'SELECT 1'])
  })
})

describe('the effect', () => {
  const known: [string, Effect][] = [
    ['BEGIN', { kind: 'begin' }],
    ['BEGIN ISOLATION LEVEL SERIALIZABLE', { kind: 'begin' }],
    ['START TRANSACTION READ ONLY', { kind: 'begin' }],
    ['COMMIT', { kind: 'commit', chain: false }],
    ['END', { kind: 'commit', chain: false }],
    ['COMMIT WORK AND CHAIN', { kind: 'commit', chain: true }],
    ['ROLLBACK', { kind: 'rollback', chain: false }],
    ['ABORT AND CHAIN', { kind: 'rollback', chain: true }],
    ['SAVEPOINT a', { kind: 'savepoint', name: 'a' }],
    ['SAVEPOINT "A b"', { kind: 'savepoint', name: 'A b' }],
    ['RELEASE a', { kind: 'release', name: 'a' }],
    ['ROLLBACK TO SAVEPOINT a', { kind: 'rollback-to', name: 'a' }],
    ["PREPARE TRANSACTION 'x'", { kind: 'prepare', gid: 'x' }],
    ["COMMIT PREPARED 'x'", { kind: 'commit-prepared', gid: 'x' }],
    ["ROLLBACK PREPARED 'x'", { kind: 'rollback-prepared', gid: 'x' }],
    ['DEALLOCATE p', { kind: 'deallocate', name: 'p' }],
    ['DEALLOCATE ALL', { kind: 'deallocate', name: '' }],
    ['COPY t FROM STDIN', { kind: 'copy-in' }],
    ["SET LOCAL lock_timeout = '1s'", { kind: 'set-local', name: 'lock_timeout' }],
    ['SET LOCAL ROLE somebody', { kind: 'set-local', name: 'role' }],
    ['RESET ALL', { kind: 'reset' }],
    ['RESET search_path', { kind: 'reset' }],
    ['SHOW search_path', { kind: 'read' }],
    ['SELECT 1', { kind: 'read' }],
    ['SELECT * FROM a UNION SELECT * FROM b EXCEPT SELECT * FROM c', { kind: 'read' }],
    ['VALUES (1), (2)', { kind: 'read' }],
    ['TABLE t', { kind: 'read' }],
  ]
  for (const [sql, expected] of known) {
    test(`of ${sql} is ${expected.kind}`, () => {
      expect(effects(sql)).toEqual([expected])
    })
  }

  for (const sql of [
    'INSERT INTO t VALUES (1)',
    'CREATE TABLE t (id int)',
    'SELECT 1 INTO t',
    'SELECT 1 INTO t UNION SELECT 2',
    'SELECT 1 INTO t UNION SELECT 2 UNION ALL SELECT 3',
    'SELECT * FROM t FOR UPDATE',
    'SELECT 1 UNION (SELECT * FROM t FOR SHARE)',
    'WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone',
    'EXPLAIN ANALYZE DELETE FROM t',
    'COPY t TO STDOUT',
    "COPY t FROM '/tmp/x'",
    'DISCARD ALL',
    'SET TRANSACTION READ ONLY',
    'LISTEN x',
  ]) {
    test(`of ${sql} is no mere reading`, () => {
      expect(effect(sql).kind).not.toMatch(/^(read|begin|commit|rollback|copy-in|set-local)$/)
    })
  }

  test('is told for each statement of several', () => {
    expect(effects('BEGIN; SELECT 1; INSERT INTO t VALUES (1); COMMIT').map(({ kind }) => kind)).toEqual([
      'begin',
      'read',
      'other',
      'commit',
    ])
  })
})
