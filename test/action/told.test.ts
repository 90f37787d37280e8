import { describe, expect, inject, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

const offline = { 'from-revision': 'base', comment: 'false' }
const apply = { mode: 'apply', comment: 'false' }
const a1 = { id: 'a1', upgrade: 'op.execute("CREATE TABLE first (id int)")' }

const errorOf = ({ commands }: Step) => commands.find(({ name }) => name === 'error')?.text ?? ''

test('Why a script has no SQL to show, where SQLAlchemy has no literal or Python was to end', async () => {
  const column = (type: string) => `sa.table("t", sa.column("a"${type && `, ${type}`}))`
  const cases: [upgrade: string, reason: string][] = [
    [`op.bulk_insert(${column('postgresql.HSTORE')}, [{"a": {"k": "topsecret"}}])`, 'type dict as HSTORE'],
    [`op.bulk_insert(${column('')}, [{"a": ["topsecret"]}])`, 'type list to what has no type'],
    [`op.bulk_insert(${column('')}, [{"a": {"k": "topsecret"}}])`, 'type dict to what has no type'],
    [`op.execute(${column('sa.Integer')}.insert().values(a=object()))`, 'type object as Integer'],
    ['raise KeyboardInterrupt', 'KeyboardInterrupt'],
    ['raise SystemExit(3)', 'SystemExit: 3'],
  ]
  const module = 'from sqlalchemy.dialects import postgresql'
  const scripts = cases.map(([upgrade], n) => ({ id: `r${n}`, upgrade, module }))
  const step = await start(writeProject({ scripts }), '', offline)
  expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'plan-file': '' })
  const reasons = [...step.log.matchAll(/^r\d .*?: not rendered, (.*)$/gm)].map(([, reason]) => reason)
  expect(reasons).toEqual(cases.map(([, reason]) => expect.stringContaining(reason)))
  expect(step.log).not.toContain('topsecret')
})

describe('The script in which Python ends is named, where that is', () => {
  const ends: [how: string, code: string, where: 'upgrade' | 'module', words: RegExp][] = [
    [
      'os._exit, in a dry run',
      'import os; os._exit(7)',
      'upgrade',
      /exit code 7 .* Revision b2 \(.*b2\.py\) was at work/,
    ],
    [
      'a crash, as it is imported',
      'import os; os.kill(os.getpid(), 11)',
      'module',
      /SIGSEGV .* Revision b2 \(.*b2\.py\)/,
    ],
    [
      'SystemExit, as it is imported',
      'raise SystemExit(3)',
      'module',
      /^Revision b2 \(.*b2\.py\) does not import: Syst/,
    ],
    [
      'an interrupt, as it is imported',
      'raise KeyboardInterrupt',
      'module',
      /^Revision b2 \(.*b2\.py\) does not import: K/,
    ],
  ]
  test.each(ends)('%s', async (_, code, where, words) => {
    const step = await start(writeProject({ scripts: [a1, { id: 'b2', upgrade: 'pass', [where]: code }] }), '', offline)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'render-failed' })
    expect(errorOf(step)).toMatch(words)
  })

  test('a kill and an interrupt, in the run itself', async () => {
    const url = await createDatabase()
    const before = await contents(url)
    // Nobody can show it, and so it is not ended before.
    const asks = 'op.get_bind().execute(sa.text("SELECT 1")).scalar()'
    for (const code of ['import os; os.kill(os.getpid(), 9)', 'raise KeyboardInterrupt']) {
      const project = writeProject({ scripts: [a1, { id: 'b2', upgrade: `${asks}\n${code}` }] })
      const step = await start(project, url, apply)
      expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'migration-failed' })
      expect(errorOf(step)).toMatch(/SIGKILL .* Revision b2 |Revision b2 .* KeyboardInterrupt/)
      expect(await contents(url)).toBe(before)
    }
  })
})

describe('What keeps us from the database', () => {
  test('a value of the environment is told as such', async () => {
    const url = await createDatabase()
    const without = (part: RegExp, by = '') => url.replace(part, by)
    const nobody = 'postgresql://nobody:x@127.0.0.1:9/x'
    const cases: [url: string, environment: Record<string, string>, words: RegExp][] = [
      [url, { PGSSLMODE: 'require' }, /sslmode is require, and .* TLS switched off\. What .* look at PGSSLMODE\./],
      [url, { PGSSLMODE: 'nonsense' }, /^PGSSLMODE in the environment is “nonsense”/],
      [without(/@[^/]*\//, '@/'), { PGHOST: '127.0.0.1', PGPORT: '9' }, /look at PGHOST, PGPORT\./],
      [without(/:[^:]*@/, '@'), { PGPASSWORD: 'wrong' }, /look at PGPASSWORD\./],
      [without(/\/\/.*@/, '//'), { PGUSER: 'somebody' }, /asks for a password, and there is none.*look at PGUSER\./s],
      // What the URL says goes before.
      [nobody, { PGHOST: 'x', PGPORT: '1', PGUSER: 'x', PGDATABASE: 'x' }, /^(?!.*look at).*ECONNREFUSED/s],
    ]
    for (const [url, environment, words] of cases) {
      const step = await start(writeProject({ scripts: [a1] }), url, apply, { environment })
      expect(step.outputs.outcome, step.log).toBe('refused')
      expect(errorOf(step)).toMatch(words)
    }
  })

  test('an empty secret, as in a pull request from a fork', async () => {
    for (const url of ['', 'default=']) {
      const step = await start(writeProject({ scripts: [a1] }), url, apply)
      expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'invalid-input' })
      expect(errorOf(step)).toContain('GitHub hands none to a pull request from a fork')
    }
  })

  test('a schema that the role may not use, named or in the search path: no preview as if nothing were there', async () => {
    const url = await createDatabase()
    const role = `reader_${url.slice(-6)}`
    const table = "alembic_version (version_num) AS SELECT text 'a1'"
    await query(
      url,
      `CREATE ROLE ${role} LOGIN PASSWORD 'hunter2hunter2'; CREATE SCHEMA s; CREATE TABLE s.${table};
      CREATE TABLE public.${table}; REVOKE USAGE ON SCHEMA public FROM PUBLIC; GRANT SELECT ON public.alembic_version TO ${role}`,
    )
    try {
      const project = writeProject({ scripts: [a1, { id: 'b2', upgrade: 'pass' }] })
      const as = url.replace(/\/\/[^@]*@/, `//${role}:hunter2hunter2@`)
      for (const [schema, inputs] of [
        ['s', { 'version-table-schema': 's' }],
        ['public', {}],
      ] as const) {
        const step = await start(project, as, { comment: 'false', ...inputs })
        expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-permitted' })
        expect(errorOf(step)).toContain(`GRANT USAGE ON SCHEMA "${schema}" to the role`)
      }
      // Where it may use another schema, the name means nothing there, as to Alembic.
      await query(url, `CREATE SCHEMA ${role} AUTHORIZATION ${role}`)
      const step = await start(project, as, { comment: 'false' })
      expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'prior-head': '', 'new-head': 'b2' })
    } finally {
      await query(url, `DROP OWNED BY ${role} CASCADE; DROP ROLE ${role}`)
    }
  })
})

describe('A transaction_timeout (PostgreSQL 17)', async () => {
  const { rows } = await query(inject('postgres'), "SELECT current_setting('server_version_num')::int >= 170000 AS has")
  const when = test.skipIf(!rows[0].has)
  const sleep = 'op.execute("SELECT pg_sleep(0.7)")'
  const block = 'with op.get_context().autocommit_block():'

  when('of the database is for others, in every transaction of ours', async () => {
    const url = await createDatabase()
    await query(url, `ALTER DATABASE ${new URL(url).pathname.slice(1)} SET transaction_timeout = '600ms'`)
    const scripts = [
      { id: 'a1', upgrade: `${a1.upgrade}\nop.execute("RESET ALL")\n${sleep}` },
      { id: 'b2', upgrade: `${block}\n    op.execute("CREATE INDEX CONCURRENTLY i ON first (id)")` },
      { id: 'c3', upgrade: sleep },
    ]
    const step = await start(writeProject({ scripts }), url, { ...apply, segments: 'true' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'c3' })
  })

  when('of a script is its own, and named where it fires', async () => {
    const url = await createDatabase()
    const upgrade = `op.execute("SET transaction_timeout = '100ms'")\n${sleep}`
    const step = await start(writeProject({ scripts: [{ id: 'a1', upgrade }] }), url, apply)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'connection-failed' })
    expect(errorOf(step)).toMatch(/transaction timeout.*The database is at base, as before/s)
  })
})
