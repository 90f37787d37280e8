import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, seedProject, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'

/** The seed's scenarios and command reference, each on a fresh database. */
const [first, second, broken, last] = ['dd7c69423ad9', '5a77262c502b', '653d68312991', '5929dc9c624a']

let url: string
const upgrade = (revision: string) => start(seedProject, url, { mode: 'apply', revision })
const tables = async (): Promise<string[]> =>
  (
    await query(
      url,
      `SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1`,
    )
  ).rows.map(row => row.relname)

/** Databases at the first two revisions, made as any other. */
let atFirst: string
let atSecond: string
beforeAll(async () => {
  url = atFirst = await createDatabase()
  await upgrade(first!)
  url = atSecond = await createDatabase(atFirst)
  await upgrade(second!)
})
beforeEach(async () => {
  url = await createDatabase()
})

describe('Scenario: single migration in set succeeds', () => {
  test('Given a migration set of [X], when X succeeds, then X is applied to the database', async () => {
    const step = await upgrade(first!)
    expect(step.outputs).toMatchObject({
      outcome: 'applied',
      'failure-reason': '',
      'prior-head': '',
      'new-head': first,
      revisions: JSON.stringify([first]),
      pending: '1',
    })
    expect(step.exitCode).toBe(0)
    expect(await tables()).toEqual(['alembic_version', 'customers'])
    expect((await query(url, 'SELECT name, discount FROM customers ORDER BY 1')).rows).toEqual([
      { name: 'Ada', discount: '0%' },
      { name: 'Grace', discount: '0%' },
    ])
    expect(await leftovers(url)).toEqual([])
  })
})

describe('Scenario: single migration in set fails', () => {
  test('Given a migration set of [X], when X fails, then X is rolled back', async () => {
    url = await createDatabase(atSecond)
    const before = await contents(url)

    const step = await upgrade(broken!)
    expect(step.outputs).toMatchObject({
      outcome: 'rolled-back',
      'failure-reason': 'migration-failed',
      'prior-head': second,
      'new-head': second,
    })
    expect(step.exitCode).toBe(1)
    expect(await contents(url)).toBe(before)
    expect(await leftovers(url)).toEqual([])
  })
})

describe('Scenario: multiple migrations in set, one fails in the set', () => {
  test('Given a set of [X, Y, Z], when Y fails, then X and Y are rolled back and Z is never applied', async () => {
    url = await createDatabase(atFirst)
    const before = await contents(url)

    const step = await upgrade('head')
    expect(step.outputs).toMatchObject({
      outcome: 'rolled-back',
      'failure-reason': 'migration-failed',
      'prior-head': first,
      'new-head': first,
      revisions: JSON.stringify([second, broken, last]),
    })
    expect(step.exitCode).toBe(1)
    expect(await contents(url)).toBe(before)
    expect(step.log).toContain(`✓ ${second}`)
    expect(step.log).toContain(`✗ ${broken}`)
    expect(step.log).not.toMatch(new RegExp(`[✓✗] ${last}`))
  })

  test('On a fresh database, not even the version table is left', async () => {
    const before = await contents(url)
    const step = await upgrade('head')
    expect(step.outputs).toMatchObject({ outcome: 'rolled-back', 'prior-head': '', 'new-head': '' })
    expect(await contents(url)).toBe(before)
  })
})

describe('Command reference', () => {
  test('flask db upgrade REVISION: up to and including it; a second time there is nothing to do', async () => {
    expect((await upgrade(second!)).outputs).toMatchObject({ outcome: 'applied', 'new-head': second, pending: '2' })
    const again = await upgrade(second!)
    expect(again.outputs).toMatchObject({
      outcome: 'up-to-date',
      'prior-head': second,
      'new-head': second,
      pending: '0',
    })
    expect(again.exitCode).toBe(0)
  })

  test('flask db downgrade: one revision back; flask db downgrade REVISION: to it', async () => {
    const before = await contents(atFirst)
    url = await createDatabase(atSecond)

    const down = await start(seedProject, url, { mode: 'apply', direction: 'downgrade' })
    expect(down.outputs).toMatchObject({ outcome: 'applied', 'prior-head': second, 'new-head': first })
    expect(await contents(url)).toBe(before)

    await upgrade(second!)
    const toFirst = await start(seedProject, url, { mode: 'apply', direction: 'downgrade', revision: first! })
    expect(toFirst.outputs).toMatchObject({
      outcome: 'applied',
      'new-head': first,
      revisions: JSON.stringify([second]),
    })
    expect(await contents(url)).toBe(before)
  })

  test('flask db upgrade --sql: the SQL is shown, and nothing is written', async () => {
    url = await createDatabase(atFirst)
    const before = await contents(url)
    const step = await start(seedProject, url, {})
    expect(step.outputs).toMatchObject({ outcome: 'previewed', 'prior-head': first, 'new-head': last, pending: '3' })
    expect(step.exitCode).toBe(0)
    expect(step.summary).toContain("UPDATE orders SET state = 'paid' WHERE total > 10;")
    expect(step.summary).toContain("WHERE name LIKE '%a%'")
    expect(await contents(url)).toBe(before)
  })

  test('a rehearsal runs the batch for real and keeps nothing of it', async () => {
    const before = await contents(url)
    const works = await start(seedProject, url, { mode: 'rehearse', revision: second! })
    expect(works.outputs).toMatchObject({ outcome: 'rehearsed', 'prior-head': '', 'new-head': second, pending: '2' })
    expect(works.exitCode).toBe(0)
    expect(works.log).toMatch(new RegExp(`✓ ${second} create orders: 2 statements, \\d`))
    expect(await contents(url)).toBe(before)

    const fails = await start(seedProject, url, { mode: 'rehearse' })
    expect(fails.outputs).toMatchObject({
      outcome: 'rolled-back',
      'failure-reason': 'migration-failed',
      'new-head': '',
    })
    expect(fails.exitCode).toBe(1)
    expect(await contents(url)).toBe(before)
  })
})

test('A failure names the revision, the script and its line, the statement and its place, and the database’s state', async () => {
  url = await createDatabase(atFirst)
  const step = await upgrade('head')
  const errors = step.commands.filter(({ name }) => name === 'error')
  expect(errors).toHaveLength(1)
  expect(errors[0]!.properties).toMatchObject({
    file: 'migrations/versions/653d68312991_add_order_status.py',
    line: '20',
  })
  const { text } = errors[0]!
  expect(text).toContain('653d68312991 (add order status (broken))')
  expect(text).toContain('ERROR 42703: column "state" of relation "orders" does not exist')
  const [, statement, caret] = /(LINE 1: UPDATE orders.*)\n( *\^)/.exec(text)!
  expect(statement!.slice(caret!.length - 1)).toMatch(/^state = 'paid'/)
  expect(text).toContain(`The database is at ${first}, as before.`)
  expect(step.log).not.toContain('Traceback')
})
