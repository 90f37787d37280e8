import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { python } from '../support/project.mts'
import { root, type Step, type StepOptions } from '../support/runner.mts'
import { withDriver } from '../support/shapes.mts'

const fixture = (name: string) => join(root, 'migrations-fixture', name)
const several = fixture('several-databases')
const deferred = fixture('deferred-constraint')
const [first, second, broken, last] = ['dd7c69423ad9', '5a77262c502b', '653d68312991', '5929dc9c624a']

let shop: string
let reporting: string
beforeEach(async () => {
  ;[shop, reporting] = await Promise.all([createDatabase(), createDatabase()])
})

/** The app reads its URLs from the environment; the step's own reach the databases. */
const environment = {
  DATABASE_URL: 'postgresql+psycopg://nobody@nowhere/shop',
  REPORTING_DATABASE_URL: 'postgresql+psycopg://nobody@nowhere/reporting',
}

function run(
  mode: string,
  inputs: Record<string, string> = {},
  { project = several, ...options }: Partial<StepOptions> & { project?: string } = {},
): Promise<Step> {
  const url = `default=${shop}\nreporting=${reporting}`
  return start(
    project,
    url,
    { mode, comment: 'false', ...inputs },
    { ...options, environment: { ...environment, ...options.environment } },
  )
}

/** `flask db upgrade`, without us; whether it succeeded. */
async function raw(project: string, [one, other]: [string, string], target = 'head'): Promise<boolean> {
  const env = {
    ...process.env,
    DATABASE_URL: withDriver(one, 'psycopg'),
    REPORTING_DATABASE_URL: withDriver(other, 'psycopg'),
  }
  return promisify(execFile)(python, ['-m', 'flask', 'db', 'upgrade', target], { cwd: project, env }).then(
    () => true,
    () => false,
  )
}

const both = async () => [await contents(shop), await contents(reporting)]
const heads = (of: Record<string, string>) =>
  Object.entries(of)
    .map(([bind, head]) => `${bind}=${head}`)
    .join('\n')

describe('Scenario: several databases, a script fails in the second', () => {
  test('flask db upgrade leaves both unchanged', async () => {
    await raw(several, [shop, reporting], second)
    const before = await both()
    expect(await raw(several, [shop, reporting])).toBe(false)
    expect(await both()).toEqual(before)
  })

  test('and so does the action', async () => {
    await run('apply', { revision: second! })
    const before = await both()
    const step = await run('apply')
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'rolled-back',
      'failure-reason': 'migration-failed',
      'prior-head': heads({ default: second!, reporting: second! }),
      'new-head': heads({ default: second!, reporting: second! }),
    })
    const error = step.commands.find(({ name }) => name === 'error')!
    expect(error.text).toContain('column "state" of relation "sales" does not exist')
    expect(error.text).toContain(
      `The database default is at ${second}, as before.\nThe database reporting is at ${second}, as before.`,
    )
    expect(error.properties.file).toContain(broken)
    expect(await both()).toEqual(before)
    expect([...(await leftovers(shop)), ...(await leftovers(reporting))]).toEqual([])
  })
})

describe('Scenario: several databases, a COMMIT fails in the second', () => {
  test('flask db upgrade leaves the first one moved', async () => {
    const before = await both()
    expect(await raw(deferred, [shop, reporting])).toBe(false)
    const [one, other] = await both()
    expect(one).toContain('alembic_version: {"version_num": "9b60d3f5e812"}')
    expect(other).toBe(before[1])
  })

  test('the action leaves both unchanged', async () => {
    const before = await both()
    const step = await run('apply', {}, { project: deferred })
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'rolled-back',
      'failure-reason': 'migration-failed',
      'prior-head': heads({ default: '', reporting: '' }),
      'new-head': heads({ default: '', reporting: '' }),
    })
    expect(step.log).toContain('violates foreign key constraint "visits_previous_fkey"')
    expect(await both()).toEqual(before)
    expect([...(await leftovers(shop)), ...(await leftovers(reporting))]).toEqual([])
  })
})

describe.each(['auto', 'never'])('two-phase: %s', twoPhase => {
  test('a batch that succeeds leaves both as flask db upgrade does', async () => {
    const step = await run('apply', { revision: second!, 'two-phase': twoPhase })
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'applied',
      'failure-reason': '',
      'prior-head': heads({ default: '', reporting: '' }),
      'new-head': heads({ default: second!, reporting: second! }),
      revisions: JSON.stringify([first, second]),
      pending: '2',
    })
    const one = { 'prior-head': '', 'new-head': second, revisions: [first, second], outcome: 'applied' }
    expect(JSON.parse(step.outputs.databases!)).toMatchObject({ default: one, reporting: one })
    const twins: [string, string] = [await createDatabase(), await createDatabase()]
    expect(await raw(several, twins, second)).toBe(true)
    expect(await both()).toEqual([await contents(twins[0]), await contents(twins[1])])
    expect([...(await leftovers(shop)), ...(await leftovers(reporting))]).toEqual([])
    expect(step.log.includes('a crash between two of these commits is not covered')).toBe(twoPhase === 'never')
  })
})

test('a database that is ahead stays where it is, and the other one follows', async () => {
  await run('apply', { revision: second! })
  await query(reporting, `DELETE FROM sales; UPDATE alembic_version SET version_num = '${first}'`)
  const preview = await run('preview', { revision: second! })
  expect(preview.outputs, preview.log).toMatchObject({
    outcome: 'previewed',
    'prior-head': heads({ default: second!, reporting: first! }),
    'new-head': heads({ default: second!, reporting: second! }),
    revisions: JSON.stringify([second]),
  })
  expect(preview.summary).toContain('INSERT INTO sales')
  expect(preview.summary).not.toContain('INSERT INTO orders')
  const step = await run('apply', { revision: second! })
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'applied',
    'new-head': heads({ default: second!, reporting: second! }),
  })
  expect((await query(reporting, 'SELECT FROM sales')).rowCount).toBe(1)
  expect((await query(shop, 'SELECT FROM orders')).rowCount).toBe(2)
  expect((await run('apply', { revision: second! })).outputs.outcome).toBe('up-to-date')
})

test('a rehearsal keeps nothing in either, and a downgrade goes back in both', async () => {
  const empty = await both()
  expect((await run('rehearse', { revision: second! })).outputs.outcome).toBe('rehearsed')
  expect(await both()).toEqual(empty)
  await run('apply', { revision: first! })
  const before = await both()
  await run('apply', { revision: second! })
  const step = await run('apply', { direction: 'downgrade' })
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'applied',
    'new-head': heads({ default: first!, reporting: first! }),
  })
  expect(await both()).toEqual(before)
})

test('a preview without any database shows each database’s SQL', async () => {
  const step = await start(several, '', { 'from-revision': 'base', comment: 'false' }, { environment })
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'previewed',
    'new-head': heads({ default: last!, reporting: last! }),
    pending: '4',
  })
  expect(step.summary).toMatch(/`default`.*\n.*|`reporting`/)
  expect(step.summary).toContain('CREATE TABLE customers')
  expect(step.summary).toContain('CREATE TABLE sales')
  expect(step.summary).not.toContain('CREATE TABLE alembic_version')
})

describe('refused', () => {
  test.each([
    ['a bind that the input lacks', () => `default=${shop}`, /database-url lacks reporting/],
    ['one URL without a bind', () => shop, /database-url lacks reporting/],
    [
      'a bind that the project has not',
      () => `default=${shop}\nreporting=${reporting}\naudit=${shop.replace(/\w+$/, 'postgres')}`,
      /database-url names audit, which the project does not migrate/,
    ],
    ['a bind that is there twice', () => `default=${shop}\ndefault=${reporting}`, /the bind default is there twice/],
    ['a line without a bind', () => `${shop}\nreporting=${reporting}`, /one of its lines names no bind/],
    [
      'two binds on one database',
      () => `default=${shop}\nreporting=${shop}?application_name=x`,
      /are the same database/,
    ],
  ])('%s', async (_, url, words) => {
    const before = await both()
    for (const mode of ['preview', 'apply']) {
      const step = await start(several, url(), { mode, comment: 'false', revision: second! }, { environment })
      expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'invalid-input' })
      expect(step.commands.find(({ name }) => name === 'error')!.text).toMatch(words)
    }
    expect(await both()).toEqual(before)
  })
})
