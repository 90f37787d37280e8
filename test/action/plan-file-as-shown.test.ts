import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { altered, apply, forged, planOf } from '../support/plan-file.mts'
import { query } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'

/** Texts that are two statements, or others, to a server that reads a backslash in strings as an escape. */
const texts = [String.raw`\'; COMMIT; --`, String.raw`C:\new\table`, String.raw`\\`, String.raw`it's \' é 😀`]
const inserts = texts
  .map(text => `op.execute(r"""INSERT INTO t (name) VALUES ('${text.replaceAll("'", "''")}')""")`)
  .join('\n')

const off = ['standard_conforming_strings', 'off'] as const

/** How an earlier revision, or the database, may make the server read another text. */
const readers: [how: string, upgrade: string, database?: string][] = [
  ['set_config', `op.execute("SELECT set_config('${off[0]}', '${off[1]}', false)")`],
  ['set_config for the transaction', `op.execute("SELECT set_config('${off[0]}', '${off[1]}', true)")`],
  ['DO', `op.execute("DO $$ BEGIN EXECUTE 'SET ' || 'standard_conforming' || '_strings = off'; END $$")`],
  ['pg_settings', `op.execute("UPDATE pg_settings SET setting = 'off' WHERE name = '${off[0]}'")`],
  ['the encoding', `op.execute("SELECT set_config('client_encoding', 'LATIN1', false)")`],
  ['the database', 'pass', 'SET standard_conforming_strings = off'],
  ['the database, and its quotes', 'pass', 'SET backslash_quote = on'],
]

/** The rows of t, read by somebody else. */
async function rowsOf(url: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<{ name: string }>('SELECT name FROM t ORDER BY id')).rows.map(({ name }) => name)
  } finally {
    await client.end()
  }
}

describe('What a plan file shows is what it stores, and nothing ends its transaction, where strings are read otherwise by', () => {
  test.each(readers)('%s', async (how, upgrade, database) => {
    const folder = writeProject({
      scripts: [
        { id: 'a1', upgrade: 'op.execute("CREATE TABLE t (id serial, name text)")' },
        { id: 'b2', upgrade },
        { id: 'c3', upgrade: `${inserts}\nop.execute("CREATE TABLE last (id int)")` },
      ],
    })
    const url = await createDatabase()
    if (database) await query(url, `ALTER DATABASE ${new URL(url).pathname.slice(1)} ${database}`)
    const key = { 'plan-key': 'a key' }
    const planFile = await planOf(folder, url, key)
    const before = await contents(url)
    if (how === 'DO') {
      const rehearsed = await apply(url, planFile, { ...key, mode: 'rehearse' })
      expect(rehearsed.outputs, rehearsed.log).toMatchObject({ outcome: 'rehearsed', 'failure-reason': '' })
      expect(await contents(url)).toBe(before)
    }
    const applied = await apply(url, planFile, key)
    expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'c3' })
    expect(await rowsOf(url)).toEqual(texts)
  })
})

test('Settings of the scripts that say nothing about text are theirs, in every later revision too', async () => {
  const folder = writeProject({
    scripts: [
      {
        id: 'a1',
        upgrade: `op.execute("CREATE SCHEMA s; SET search_path = public, s")
op.execute("SET TIME ZONE 'Asia/Tokyo'; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard'")
op.execute("SET standard_conforming_strings = on; SET client_encoding = 'UTF8'")`,
      },
      {
        id: 'b2',
        upgrade: `op.execute("CREATE TABLE s.u (at timestamptz, d date, i interval, p text)")
op.execute("INSERT INTO u VALUES ('2020-01-01 00:00', '01/02/2020', '-1 2:00', current_setting('search_path'))")
op.execute("SET LOCAL transform_null_equals = on")
op.execute("INSERT INTO u SELECT WHERE NULL = NULL")`,
      },
    ],
  })
  const [url, twin] = [await createDatabase(), await createDatabase()]
  const planFile = await planOf(folder, url)
  expect((await apply(url, planFile)).outputs.outcome).toBe('applied')
  expect((await start(folder, twin, { mode: 'apply', comment: 'false' })).outputs.outcome).toBe('applied')
  expect(await contents(url)).toBe(await contents(twin))
})

describe('A plan file is read by the rules by which it was written', () => {
  let url: string
  let folder: string
  let planFile: string
  let untouched: string
  beforeAll(async () => {
    folder = writeProject({
      scripts: [
        {
          id: 'a1',
          upgrade:
            'op.execute("CREATE TABLE t (id int)")\nop.execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")',
        },
        { id: 'b2', upgrade: 'op.execute("-- nothing")' },
      ],
    })
    url = await createDatabase()
    planFile = await planOf(folder, url, { 'plan-key': 'a key' })
    untouched = await contents(url)
  })

  // biome-ignore lint/suspicious/noExplicitAny: whatever somebody writes into it.
  type Edit = (database: any, plan: any) => void
  const setting =
    (name: string, value: unknown): Edit =>
    database =>
      Object.assign(database, { [name]: value })
  const sql =
    (text: string): Edit =>
    database =>
      Object.assign(database.revisions[0].statements[1], { sql: text })
  const hidden =
    (text: string): Edit =>
    database =>
      database.revisions[1].statements.unshift({ sql: text, line: null, own: true })

  test.each<[string, Edit, string]>([
    ['a COMMIT behind a statement', sql('INSERT INTO t VALUES (1); COMMIT; BEGIN'), 'it holds a COMMIT'],
    ['a COMMIT alone', sql('/**/COMMIT'), 'it holds a COMMIT'],
    ['END', sql('end'), 'it holds a COMMIT'],
    ['a PREPARE TRANSACTION', sql("PREPARE TRANSACTION 'x'"), 'it holds a PREPARE'],
    ['two statements in one', sql('INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)'), 'several statements in one'],
    ['what cannot be in a transaction', sql('VACUUM'), 'VACUUM cannot run inside a transaction block'],
    ['a COPY without data', sql('COPY t FROM STDIN'), 'COPY FROM STDIN needs its data'],
    ['another way to read strings', sql('SET standard_conforming_strings = off'), 'it sets standard_conf'],
    ['what is no SQL', sql('MAKE; TABLE'), 'parser does not read it'],
    ['a null character', sql('INSERT INTO t VALUES (1)\0; COMMIT'), 'a null character'],
    [
      'a null character elsewhere',
      setting('version-table', { name: 'a\0b', schema: null, exists: false }),
      'a null character',
    ],
    ['a statement that is not Alembic’s own', hidden('DROP TABLE t'), 'said to be Alembic’s own, and is not'],
    [
      'a function in Alembic’s own',
      hidden('DELETE FROM alembic_version WHERE version_num = f()'),
      'said to be Alembic’s own',
    ],
    [
      'a default in Alembic’s own table',
      hidden('CREATE TABLE alembic_version (version_num varchar(32), x text DEFAULT f())'),
      'said to be Alembic’s own',
    ],
    [
      'a temporary table in its place',
      hidden('CREATE TEMPORARY TABLE alembic_version (version_num varchar(32))'),
      'said to be Alembic’s own',
    ],
    [
      'an operator in Alembic’s own',
      hidden("INSERT INTO alembic_version (version_num) VALUES ('b2') RETURNING 1 OPERATOR(public.+) 1"),
      'said to be Alembic’s own',
    ],
    [
      'a row of Alembic’s own too many',
      hidden("INSERT INTO alembic_version (version_num) VALUES ('x')"),
      'do not follow',
    ],
    ['other new heads', setting('new-heads', ['zz']), 'do not follow'],
    ['other heads and no revisions', setting('revisions', []), 'do not follow'],
    [
      'another digest',
      (_, plan) => setting('digest', `sha256:${'0'.repeat(64)}`)(plan, plan),
      'its digest is not that',
    ],
    ['a database twice', (database, plan) => plan.databases.push(database), 'names a database twice'],
    ['a revision twice', ({ revisions }) => revisions.push(revisions[1]), 'a revision twice'],
  ])('%s is refused before anything runs, signed or not', async (_, edit, words) => {
    const signed = ['a key', 'rehearse'] as const
    for (const [key, mode] of [['', 'apply'] as const, ...(words === 'it holds a COMMIT' ? [signed] : [])]) {
      const edited = (plan: Parameters<Parameters<typeof forged>[1]>[0]) => {
        const { digest } = plan
        edit(plan.databases[0], plan)
        if (plan.digest === digest) plan.digest = digestIn(plan)
      }
      const file = forged(planFile, edited, key)
      const step = await apply(url, file, { 'plan-key': key, mode })
      expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'plan-changed' })
      expect(step.log).toContain(words)
    }
    expect(await contents(url)).toBe(untouched)
  })

  // biome-ignore lint/suspicious/noExplicitAny: see above.
  function digestIn(plan: any): string {
    const databases = plan.databases.map((each: Record<string, unknown>) => ({
      bind: each.bind,
      'prior-heads': each['prior-heads'],
      'new-heads': each['new-heads'],
      revisions: (each.revisions as { id: string; digest: string }[]).map(({ id, digest }) => [id, digest]),
    }))
    const digested = { format: 'atomic-upgrade/digest', version: 1, direction: plan.direction, databases }
    return `sha256:${createHash('sha256').update(JSON.stringify(digested)).digest('hex')}`
  }

  test('what is no file, has no end, or is not text', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-odd-'))
    const path = (name: string) => join(folder, name)
    execFileSync('mkfifo', [path('fifo')])
    writeFileSync(path('large'), '')
    truncateSync(path('large'), 300 * 1024 * 1024)
    writeFileSync(path('empty'), '')
    const deep = `${'['.repeat(200_000)}${']'.repeat(200_000)}`
    const cases: [string, string, string][] = [
      ['/dev/zero', 'invalid-input', 'it is not a regular file'],
      [path('fifo'), 'invalid-input', 'it is not a regular file'],
      [folder, 'invalid-input', 'it is not a regular file'],
      [path('large'), 'invalid-input', 'it is over 256 MiB'],
      [path('empty'), 'plan-changed', 'is not one of Atomic Upgrade'],
      [altered(planFile, text => `${text}\0`), 'plan-changed', 'is not one of Atomic Upgrade'],
      [altered(planFile, text => text.replace('"version": 1', `"version": ${deep}`)), 'plan-changed', 'is of version'],
      [altered(planFile, text => text.replace('"plan": {', `"plan": { "x": ${deep},`)), 'plan-changed', 'was altered'],
    ]
    const latin = path('latin')
    writeFileSync(
      latin,
      Buffer.from(readFileSync(planFile, 'utf8').replace('CREATE TABLE t', 'CREATE TABLE é'), 'latin1'),
    )
    cases.push([latin, 'plan-changed', 'it is not UTF-8'])
    for (const [file, reason, words] of cases) {
      const step = await apply(url, file)
      expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': reason })
      expect(step.log).toContain(words)
    }
    expect(await contents(url)).toBe(untouched)
  })

  test('what is shown of it is what was shown when it was made', async () => {
    const made = await start(folder, url, { comment: 'false' })
    const shown = await apply(url, made.outputs['plan-file']!, { mode: 'preview' })
    const [before, now] = [made, shown].map(({ outputs }) => readFileSync(outputs['sql-file']!, 'utf8'))
    expect(now).toBe(before)
    const { plan } = JSON.parse(readFileSync(made.outputs['plan-file']!, 'utf8'))
    for (const { statements } of plan.databases[0].revisions)
      for (const { sql } of statements) expect(before).toContain(sql)
  })
})
