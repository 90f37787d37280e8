import { readFileSync } from 'node:fs'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, secondProject, seedProject, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { altered, apply, forged, planOf } from '../support/plan-file.mts'
import { query } from '../support/postgres.mts'
import { type Script, writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

const first: Script = {
  id: 'a1',
  message: 'people',
  upgrade: `op.create_table("person", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
op.execute("INSERT INTO person (name) VALUES ('Zoë; \\\\ 😀'), ('O''Brien')")`,
  downgrade: 'op.drop_table("person")',
}
const second: Script = {
  id: 'b2',
  upgrade: `op.execute("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$; SELECT f()")
op.execute("-- a remark")
op.add_column("person", sa.Column("age", sa.Integer, server_default="7"))`,
  downgrade: 'op.drop_column("person", "age")\nop.execute("DROP FUNCTION f()")',
}
const scripts = [first, second]

function errorOf({ commands, log }: Step): string {
  const errors = commands.filter(({ name }) => name === 'error')
  expect(errors, log).toHaveLength(1)
  return errors[0]!.text
}

describe('A plan file', () => {
  test.each([
    ['of the seed, as far as it works', seedProject, '5a77262c502b'],
    ['of scripts with every awkward text', writeProject({ scripts }), 'head'],
  ])('%s is applied without checkout and Python, and leaves what the scripts leave', async (_, folder, revision) => {
    const [url, twin] = [await createDatabase(), await createDatabase()]
    const preview = await start(folder, url, { comment: 'false', revision })
    expect(readFileSync(preview.outputs['sql-file']!, 'utf8').match(/^(BEGIN|COMMIT);$/gm)).toEqual([
      'BEGIN;',
      'COMMIT;',
    ])
    const applied = await apply(url, preview.outputs['plan-file']!)
    const { digest, revisions, 'prior-head': prior, 'new-head': head } = preview.outputs
    expect(applied.outputs, applied.log).toMatchObject({
      outcome: 'applied',
      'failure-reason': '',
      digest,
      revisions,
      'prior-head': prior,
      'new-head': head,
    })
    expect(applied.exitCode).toBe(0)
    expect((await start(folder, twin, { mode: 'apply', revision, comment: 'false' })).outputs.outcome).toBe('applied')
    expect(await contents(url)).toBe(await contents(twin))

    const again = await apply(url, preview.outputs['plan-file']!)
    expect(again.outputs, again.log).toMatchObject({ outcome: 'up-to-date', pending: '0', 'new-head': head })
  })

  test('takes a database back as well', async () => {
    const folder = writeProject({ scripts })
    const url = await createDatabase()
    await start(folder, url, { mode: 'apply', revision: 'a1', comment: 'false' })
    const before = await contents(url)
    await start(folder, url, { mode: 'apply', comment: 'false' })
    const down = await apply(url, await planOf(folder, url, { direction: 'downgrade' }))
    expect(down.outputs, down.log).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
    expect(await contents(url)).toBe(before)
    expect(down.summary).toContain('downgraded by 1 revision')
  })

  test('is rehearsed and previewed too', async () => {
    const folder = writeProject({ scripts })
    const url = await createDatabase()
    const before = await contents(url)
    const planFile = await planOf(folder, url)
    const rehearsed = await apply(url, planFile, { mode: 'rehearse' })
    expect(rehearsed.outputs, rehearsed.log).toMatchObject({ outcome: 'rehearsed', 'new-head': 'b2' })
    const shown = await apply(url, planFile, { mode: 'preview' })
    expect(shown.outputs, shown.log).toMatchObject({ outcome: 'previewed', 'new-head': 'b2', pending: '2' })
    const alone = await apply('', planFile, { mode: 'preview' })
    expect(alone.outputs, alone.log).toMatchObject({ outcome: 'previewed', 'new-head': 'b2', pending: '2' })
    expect(await contents(url)).toBe(before)
  })

  test('of the base of a pull request, made without a database, is for any that stands there', async () => {
    const folder = writeProject({ scripts })
    const url = await createDatabase()
    const planFile = await planOf(folder, '', { 'from-revision': 'base' })
    expect((await apply(url, planFile)).outputs).toMatchObject({ outcome: 'applied', 'new-head': 'b2' })
  })

  test('with nothing to do says so', async () => {
    const folder = writeProject({ scripts })
    const url = await createDatabase()
    await start(folder, url, { mode: 'apply', comment: 'false' })
    expect((await apply(url, await planOf(folder, url))).outputs.outcome).toBe('up-to-date')
  })
})

describe('A plan file that does not fit is refused, and the database is untouched', () => {
  let asPlanned: string
  let url: string
  let planFile: string
  let untouched: string
  beforeAll(async () => {
    asPlanned = await createDatabase()
    planFile = await planOf(writeProject({ scripts }), asPlanned)
    untouched = await contents(asPlanned)
  })
  beforeEach(() => {
    url = asPlanned
  })

  async function expectRefused(step: Step, words: string, reason = 'plan-changed'): Promise<void> {
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': reason })
    expect(step.exitCode).toBe(1)
    expect(errorOf(step)).toContain(words)
    expect(await contents(url)).toBe(untouched)
  }

  test.each([
    [
      'with one byte of one statement changed',
      /person/,
      'pers0n',
      'was altered: its content is not that of its checksum',
    ],
    ['with its heads changed', '"prior-heads": []', '"prior-heads": ["a1"]', 'was altered'],
    ['with something left out', /"message": "people",/, '', 'was altered'],
    ['of another version', '"version": 1', '"version": 2', 'is of version 2; this release of the action reads 1'],
    ['of another program', 'atomic-upgrade/plan', 'terraform/plan', 'is not one of Atomic Upgrade'],
    ['cut short', /.{9}$/s, '', 'is not one of Atomic Upgrade, or was cut short'],
  ])('%s', async (_, part, by, words) => {
    await expectRefused(
      await apply(
        url,
        altered(planFile, text => text.replace(part, by)),
      ),
      words,
    )
  })

  test('that is not there', async () => {
    await expectRefused(await apply(url, 'nowhere.json'), 'The plan file nowhere.json cannot be read', 'invalid-input')
  })

  test('that is not there, and the outputs say where the database is', async () => {
    url = await createDatabase()
    await query(url, "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('a1')")
    const step = await apply(url, 'nowhere.json')
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'prior-head': 'a1', 'new-head': 'a1' })
    expect(errorOf(step)).toContain('The database is at a1, as before.')
  })

  test('for another database', async () => {
    url = await createDatabase()
    await expectRefused(await apply(url, planFile), 'The plan file is for the database t_')
  })

  test('for a database whose version table has come in the meantime, or whose heads have moved', async () => {
    const unmoved = untouched
    try {
      await query(url, 'CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)')
      untouched = await contents(url)
      const come = 'creates the version table alembic_version, and the database has it'
      await expectRefused(await apply(url, planFile), come)
      await query(url, "INSERT INTO alembic_version VALUES ('a1')")
      untouched = await contents(url)
      const step = await apply(url, planFile)
      await expectRefused(step, 'The plan file starts from base, and the database is at a1.')
      expect(step.outputs).toMatchObject({ 'prior-head': 'a1', 'new-head': 'a1' })
    } finally {
      await query(url, 'DROP TABLE alembic_version')
      untouched = unmoved
    }
  })

  test('of another repository, or another label', async () => {
    const environment = { GITHUB_REPOSITORY: 'acme/other' }
    const step = await apply(url, planFile, {}, { environment })
    await expectRefused(
      step,
      'The plan file is of acme/shop with no label, and this step is of acme/other with no label.',
    )
    await expectRefused(await apply(url, planFile, { label: 'production' }), 'with the label production')
  })

  test('an upgrade where a downgrade was asked for', async () => {
    await expectRefused(await apply(url, planFile, { direction: 'downgrade' }), 'The plan file is an upgrade')
  })

  test('with another digest than the one expected', async () => {
    const step = await apply(url, planFile, { 'expected-digest': `sha256:${'0'.repeat(64)}` })
    await expectRefused(step, 'The batch is not the one that was expected')
  })

  test('together with inputs that are about scripts', async () => {
    await expectRefused(
      await apply(url, planFile, { 'require-review': 'true' }),
      'require-review and plan-file',
      'invalid-input',
    )
    const both = { mode: 'preview', 'from-revision': 'base' }
    await expectRefused(await apply(url, planFile, both), 'from-revision and plan-file', 'invalid-input')
  })

  test('with other binds than database-url', async () => {
    const step = await apply(`users=${url}`, planFile)
    await expectRefused(step, 'database-url names users, which the project does not migrate', 'invalid-input')
  })
})

describe('With plan-key', () => {
  const key = { 'plan-key': 'correct horse battery staple' }
  let folder: string
  let url: string
  let signed: string
  beforeEach(async () => {
    folder = writeProject({ scripts })
    url = await createDatabase()
    signed = await planOf(folder, url, { ...key, label: 'production' })
  })

  test('a plan is signed, and applied where the key is the same; without a key it is a plan like any other', async () => {
    expect(readFileSync(signed, 'utf8')).toMatch(/"signature": "hmac-sha256:[0-9a-f]{64}"/)
    expect(readFileSync(signed, 'utf8')).not.toContain(key['plan-key'])
    const step = await apply(url, signed, { ...key, label: 'production' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'b2' })
    await start(folder, url, { mode: 'apply', direction: 'downgrade', revision: 'a1', comment: 'false' })
    const other = await planOf(folder, url, { ...key, label: 'production' })
    expect((await apply(url, other, { label: 'production' })).outputs.outcome).toBe('applied')
  })

  test('any other is refused, and the database untouched', async () => {
    const untouched = await contents(url)
    const unsigned = await planOf(folder, url, { label: 'production' })
    const foreign = forged(signed, () => {}, 'another key')
    const staging = await planOf(folder, url, { ...key, label: 'staging' })
    const cases: [string, string, string][] = [
      [unsigned, 'The plan file is not signed, and this step has a plan-key.', 'acme/shop'],
      [foreign, 'not signed with the plan-key of this step', 'acme/shop'],
      // The signature of one over the content of the other.
      [
        altered(signed, text => text.replaceAll(/sha256:[0-9a-f]{64}"\n}/g, `sha256:${'0'.repeat(64)}"\n}`)),
        'not signed with',
        'acme/shop',
      ],
      [altered(staging, text => text.replace('"staging"', '"production"')), 'was altered', 'acme/shop'],
      [signed, 'The plan file is of acme/shop', 'mallory/shop'],
    ]
    for (const [file, words, repository] of cases) {
      const environment = { GITHUB_REPOSITORY: repository }
      const step = await apply(url, file, { ...key, label: 'production' }, { environment })
      expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'plan-changed' })
      expect(errorOf(step)).toContain(words)
    }
    expect(await contents(url)).toBe(untouched)
  })

  test('an apply never falls back to the scripts, and Python does not see the key', async () => {
    const step = await start(folder, url, { ...key, mode: 'apply', comment: 'false' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'invalid-input' })
    expect(errorOf(step)).toContain('plan-key is given and plan-file is empty')
    const curious = writeProject({ scripts, app: 'import os; print("ENV", sorted(os.environ.items()))' })
    const preview = await start(
      curious,
      url,
      { ...key, comment: 'false' },
      { environment: { PLAN_KEY: key['plan-key'] } },
    )
    expect(preview.log).toContain('ENV [')
    expect(preview.log.replaceAll(/^::add-mask::.*$/gm, '')).not.toContain(key['plan-key'])
  })
})

describe('In an event that has secrets and a stranger’s artifacts', () => {
  test('a plan file runs only if it is signed, or allowed to', async () => {
    const folder = writeProject({ scripts })
    const url = await createDatabase()
    const untouched = await contents(url)
    const event = { name: 'workflow_run', payload: { workflow_run: { pull_requests: [{ number: 7 }] } } }
    const planFile = await planOf(folder, url)
    const step = await apply(url, planFile, {}, { event })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'untrusted' })
    expect(errorOf(step)).toContain('the plan file may be a stranger’s')
    const key = { 'plan-key': 'secret' }
    expect((await apply(url, planFile, key, { event })).outputs['failure-reason']).toBe('plan-changed')
    expect(await contents(url)).toBe(untouched)
    const allowed = await apply(url, planFile, { mode: 'rehearse', 'allow-untrusted': 'true' }, { event })
    expect(allowed.outputs.outcome, allowed.log).toBe('rehearsed')
    const signed = await apply(url, await planOf(folder, url, key), key, { event })
    expect(signed.outputs.outcome, signed.log).toBe('applied')
  })
})

describe('There is no plan file, and the log says which revision is why', () => {
  test.each([
    ['a script that reads the database', 'op.get_bind().execute(sa.text("SELECT 1")).scalar()', 'it reads the result'],
    [
      'an autocommit block',
      'with op.get_context().autocommit_block():\n    op.execute("SELECT 1")',
      'it holds a COMMIT',
    ],
    ['what cannot be in a transaction', 'op.execute("VACUUM")', 'VACUUM cannot run inside a transaction block'],
  ])('%s', async (_, upgrade, why) => {
    const folder = writeProject({ scripts: [first, { id: 'b2', upgrade }] })
    const inputs = { 'from-revision': 'base', comment: 'false' }
    const step = await start(folder, '', inputs)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'plan-file': '' })
    expect(step.exitCode).toBe(0)
    expect(step.log).toContain('There is no plan file, because of revision b2 (migrations/versions/b2.py:')
    expect(step.log).toContain(why)
  })

  test('a role that may not ask which database it is', async () => {
    const folder = writeProject({ scripts: [first] })
    const url = await createDatabase()
    const role = `reader_${new URL(url).pathname.slice(1)}`
    await query(
      url,
      `CREATE ROLE ${role} LOGIN PASSWORD 'x'; REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC`,
    )
    const { host, pathname } = new URL(url)
    const step = await start(folder, `postgresql://${role}:x@${host}${pathname}`, { comment: 'false' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'plan-file': '' })
    expect(step.log).toContain('There is no plan file. The role may not ask which database this is')
  })

  test('as a warning where plans are signed', async () => {
    const folder = writeProject({ scripts: [{ id: 'a1', upgrade: 'op.execute("COMMIT")' }] })
    const step = await start(folder, '', { 'from-revision': 'base', comment: 'false', 'plan-key': 'secret' })
    const [warning] = step.commands.filter(({ name }) => name === 'warning')
    expect(warning?.text).toContain('There is no plan file, because of revision a1')
  })
})

describe('A plan whose SQL fails is rolled back', () => {
  async function failing(upgrade: string, before = ''): Promise<{ step: Step; url: string }> {
    const folder = writeProject({ scripts: [first, { id: 'b2', upgrade }] })
    const url = await createDatabase()
    if (before) await query(url, before)
    const planFile = await planOf(folder, url)
    const untouched = await contents(url)
    const step = await apply(url, planFile)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'new-head': '', 'prior-head': '' })
    expect(await contents(url)).toBe(untouched)
    return { step, url }
  }

  test('and the revision, the line of its script, and the statement with its place are named', async () => {
    const { step } = await failing(
      `op.execute("INSERT INTO person (name) VALUES ('😀'); SELECT 1")
op.execute("-- nothing")
op.execute("SELECT '😀;' AS a, nonsense FROM person")
op.execute("SELECT 2")`,
    )
    expect(step.outputs['failure-reason']).toBe('migration-failed')
    const [error] = step.commands.filter(({ name }) => name === 'error')
    expect(error?.properties).toMatchObject({ file: 'migrations/versions/b2.py', line: '14' })
    expect(error?.text).toContain('Revision b2 (b2) failed: column "nonsense" does not exist.')
    expect(error?.text).toContain(`LINE 1: SELECT '😀;' AS a, nonsense FROM person\n                          ^`)
    expect(step.log).toContain('✗ b2 b2: 2 statements')
  })

  test('also where the error has no place in the statement', async () => {
    const { step } = await failing(`op.execute("SELECT 1; SELECT 2")\nop.execute("INSERT INTO person VALUES (1, 'x')")`)
    expect(errorOf(step)).toContain('duplicate key value')
    expect(errorOf(step)).toContain("INSERT INTO person VALUES (1, 'x')")
  })

  test('a row of the version table that is not there', async () => {
    const { step } = await failing('op.execute("DELETE FROM alembic_version")')
    expect(step.outputs['failure-reason']).toBe('migration-failed')
    expect(errorOf(step)).toContain('Revision b2 was to UPDATE one row of the version table, and there were 0.')
  })

  test('a deferred constraint that is violated', async () => {
    const { step } =
      await failing(`op.execute("CREATE TABLE c (id int REFERENCES person DEFERRABLE INITIALLY DEFERRED)")
op.execute("INSERT INTO c VALUES (99)")`)
    expect(errorOf(step)).toContain('A deferred constraint is violated')
  })

  test('a procedure that commits', async () => {
    const { step } = await failing('op.execute("DO $$ BEGIN COMMIT; END $$")')
    expect(step.outputs['failure-reason']).toBe('not-transactional')
  })

  test('a role that a script takes on does not stay', async () => {
    const folder = writeProject({ scripts: [first, { id: 'b2', upgrade: 'op.execute("SET ROLE pg_monitor")' }] })
    const url = await createDatabase()
    const folderFails = await apply(url, await planOf(folder, url))
    expect(folderFails.outputs['failure-reason'], folderFails.log).toBe('migration-failed')
  })
})

test('The plan file of several databases brings all of them to the target, or none', async () => {
  const binds = ['users']
  const upgrade = `op.execute("CREATE TABLE %s_table (id int)" % (engine_name or "default"))`
  const folder = writeProject({ binds, scripts: [{ id: 'a1', upgrade }] })
  const [one, two] = [await createDatabase(), await createDatabase()]
  const url = `default=${one}\nusers=${two}`
  const planFile = await planOf(folder, url)
  const applied = await apply(url, planFile)
  expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'default=a1\nusers=a1' })
  expect(applied.log).toContain('Committing in two phases')
  expect(await contents(one)).not.toContain('users_table')
  expect(await contents(two)).toContain('users_table')
  const [three, four] = [await createDatabase(), await createDatabase()]
  const swapped = await apply(`default=${two}\nusers=${one}`, planFile)
  expect(swapped.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'plan-changed' })

  const other = `default=${three}\nusers=${four}`
  const failingPlan = await planOf(folder, other)
  const untouched = [await contents(three), await contents(four)]
  await query(four, 'CREATE TABLE users_table (id int)')
  const failed = await apply(other, failingPlan)
  expect(failed.outputs, failed.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'migration-failed' })
  expect(await contents(three)).toBe(untouched[0])
})

test('A lock that another session has is waited for, and it is named', async () => {
  const folder = writeProject({ scripts: [{ id: 'a1', upgrade: 'op.execute("ALTER TABLE busy ADD COLUMN x int")' }] })
  const url = await createDatabase()
  await query(url, 'CREATE TABLE busy (id int)')
  const planFile = await planOf(folder, url)
  const { default: pg } = await import('pg')
  const other = new pg.Client({ connectionString: url, application_name: 'a long report' })
  await other.connect()
  try {
    await other.query('BEGIN; LOCK TABLE busy')
    const step = await apply(url, planFile, { 'lock-timeout': '1s', retries: '1' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'lock-timeout' })
    expect(errorOf(step)).toContain('a long report')
    expect(step.log).toContain('Try 1 of 2 was rolled back')
  } finally {
    await other.end()
  }
  expect((await apply(url, planFile)).outputs.outcome).toBe('applied')
})

test('A batch that reads the database runs by its scripts all the same', async () => {
  const step = await start(secondProject, await createDatabase(), { mode: 'rehearse', comment: 'false' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'rehearsed', 'plan-file': '' })
})
