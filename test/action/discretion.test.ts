import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { type GitHub, startGitHub } from '../support/github.mts'
import { query } from '../support/postgres.mts'
import { type ProjectOptions, writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

let github: GitHub
beforeEach(async () => {
  github = await startGitHub()
})
afterEach(() => github.stop())

const event = { name: 'pull_request', payload: { pull_request: { number: 7 } } }

/** What the pull request shows of a step: comments, summary, annotations. */
const seenOf = ({ commands, summary }: Step) => [
  ...github.written,
  summary,
  ...commands.filter(({ name }) => ['error', 'warning', 'notice'].includes(name)).map(({ text }) => text),
]

const execute = (sql: string) => `op.execute(sa.text(${JSON.stringify(sql)}))`
const online = (script: string) => `if not op.get_context().as_sql:\n${script.replaceAll(/^/gm, '    ')}`
const table = execute('CREATE TABLE t (id int, email text UNIQUE, born date, CONSTRAINT grown CHECK (id > 0))')
const failing = (sql: string) => `${table}\n${execute(sql)}`

/** What fails, in which words that is told, and where nothing may be told of the constant. */
const failures: Record<string, { upgrade: string; module?: string; words: RegExp } & Partial<ProjectOptions>> = {
  'a value of another type': {
    upgrade: failing("INSERT INTO t (id) VALUES ('topsecret')"),
    words: /22P02: invalid input syntax for type integer: "…".*INSERT INTO t \(id\) VALUES \(\$1\)/s,
  },
  'a key that is there already, whose detail has it': {
    upgrade: failing("INSERT INTO t (email) VALUES ('topsecret'), ('topsecret')"),
    words: /23505: duplicate key value violates unique constraint "…"/,
  },
  'a parameter': {
    upgrade: online(`op.get_bind().execute(sa.text("SELECT CAST(:v AS text)::int"), {"v": "topsecret"})`),
    words: /22P02: invalid input syntax for type integer: "…"/,
  },
  'words of RAISE, with any SQLSTATE and hint': {
    upgrade: execute(
      "DO $$ BEGIN RAISE unique_violation USING MESSAGE = 'the value topsecret', DETAIL = 'topsecret', HINT = 'topsecret'; END $$",
    ),
    words: /23505: \(its words are not shown/,
  },
  'a Python error of several words': {
    upgrade: online('raise RuntimeError("the row is topsecret\\ntopsecret")'),
    words: /failed: RuntimeError \(its words are not shown/,
  },
  'a token of JSON, whose detail and context have it': {
    upgrade: execute(`SELECT '{"a": topsecret}'::json`),
    words: /22P02: invalid input syntax for type json\n/,
  },
  'parameters as SQLAlchemy repeats them': {
    upgrade: online(`op.get_bind().execute(sa.text("SELECT :v, :w"), {"v": "topsecret"})`),
    words: /failed: StatementError \(its words are not shown/,
  },
  'what is printed and raised as a notice': {
    upgrade: `print("topsecret")\n${execute("DO $$ BEGIN RAISE WARNING 'topsecret'; PERFORM 'topsecret'::int; END $$")}`,
    words: /22P02: invalid input syntax for type integer: "…"/,
  },
  'a script that does not import': {
    upgrade: 'pass',
    module: '{}["topsecret"]',
    words: /^Revision a1 \(.*a1\.py\) does not import: KeyError \(its words are not shown/,
  },
  'an app that does not import': {
    upgrade: 'pass',
    app: 'raise ValueError("topsecret")',
    words: /^ValueError \(its words are not shown/,
  },
  'a trigger that is checked at the end': {
    upgrade: `${table}
${execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'topsecret'; END $$")}
${execute('CREATE CONSTRAINT TRIGGER c AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()')}
${execute('INSERT INTO t (id) VALUES (1)')}`,
    words: /(A deferred constraint is violated|Revision a1).*\(its words are not shown/,
  },
}

describe('With hide-literals, neither comment nor summary nor annotation has the constant of', () => {
  test.each(Object.entries(failures))('%s', async (_, { words, upgrade, module = '', ...options }) => {
    const url = await createDatabase()
    const before = await contents(url)
    const project = writeProject({ ...options, scripts: [{ id: 'a1', upgrade, module }] })
    const inputs = { mode: 'apply', 'hide-literals': 'true' }
    const step = await start(project, url, inputs, { github: github.url, event })
    expect(step.exitCode).toBe(1)
    const seen = seenOf(step)
    expect(seen.length).toBeGreaterThan(2)
    for (const text of seen) expect(text).not.toContain('topsecret')
    const [error = ''] = step.commands.filter(({ name }) => name === 'error').map(({ text }) => text)
    expect(error).toMatch(words)
    // For whoever may read the log it is there, as the statements are.
    expect(step.log).toContain('The error in full')
    expect(await contents(url)).toBe(before)
  })

  test('a new value of an enum, an index of Python’s and what comes before it, in preview and segments', async () => {
    const url = await createDatabase()
    await query(url, "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (m mood, n text)")
    const block = 'with op.get_context().autocommit_block():\n    '
    const index = `op.create_index("i", "t", ["n"], postgresql_where=sa.text("n = 'topsecret'"), postgresql_concurrently=True)`
    const scripts = [
      { id: 'a1', upgrade: execute("ALTER TYPE mood ADD VALUE 'topsecret'") },
      { id: 'b2', upgrade: execute("INSERT INTO t (m) VALUES ('topsecret')") },
      { id: 'c3', upgrade: `${execute("INSERT INTO t (n) VALUES ('topsecret')")}\n${block}${index}` },
      {
        id: 'd4',
        upgrade: `op.get_bind().execute(sa.text("SELECT 1")).scalar()\n${block}${index.replace('"i"', '"j"')}`,
      },
      { id: 'e5', upgrade: `int("topsecret")` },
    ]
    const project = writeProject({ scripts })
    for (const inputs of [
      { segments: 'true', 'plan-key': 'a key' },
      { mode: 'apply' },
      { mode: 'apply', segments: 'true' },
    ]) {
      const step = await start(project, url, { 'hide-literals': 'true', ...inputs }, { github: github.url, event })
      for (const text of seenOf(step)) expect(text).not.toContain('topsecret')
      if ('mode' in inputs) expect(step.exitCode).toBe(1)
    }
    expect((await query(url, 'SELECT version_num FROM alembic_version')).rows).toEqual([{ version_num: 'c3' }])
  })
})
