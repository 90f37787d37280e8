import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, secondProject, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { flask, writeProject } from '../support/project.mts'

/** The key of the deploy lock, as docs and other tools may know it. */
const lockKey = 0x61746f6d6963

let url: string
/** A session that holds back whoever asks for the lock it has. */
let gatekeeper: pg.Client

beforeEach(async () => {
  url = await createDatabase()
  gatekeeper = new pg.Client({ connectionString: url })
  await gatekeeper.connect()
})
afterEach(() => gatekeeper.end())

/** Waits until this many sessions wait. */
async function waiting(condition: string, sessions = 1): Promise<void> {
  const sql = `SELECT FROM pg_stat_activity a WHERE datname = current_database() AND pid <> pg_backend_pid() AND ${condition}`
  while ((await query(url, sql)).rowCount! < sessions) await pause(50)
}
const forTheDeployLock = `query LIKE '%pg_try_advisory_xact_lock%'`
const inTheMiddle = `query LIKE '%pg_advisory_xact_lock(42)%' AND wait_event = 'advisory'`
const forEachOther = `wait_event_type = 'Lock' AND wait_event <> 'advisory'`

test('eight applies at once: one applied, seven up to date, each revision’s data once', async () => {
  const steps = await Promise.all(Array.from({ length: 8 }, () => start(secondProject, url, { mode: 'apply' })))
  expect(steps.map(step => step.outputs.outcome).sort()).toEqual(['applied', ...Array(7).fill('up-to-date')])
  for (const step of steps) {
    expect(step.exitCode).toBe(0)
    expect(step.outputs).toMatchObject({ 'new-head': 'b7e0aa41d9c3', 'failure-reason': '' })
    expect(step.outputs.pending).toBe(step.outputs.outcome === 'applied' ? '3' : '0')
  }
  const { rows } = await query(url, 'SELECT count(*)::int AS n, count(DISTINCT email)::int AS d FROM accounts')
  expect(rows).toEqual([{ n: 3, d: 3 }])

  const alone = await createDatabase()
  await start(secondProject, alone, { mode: 'apply' })
  expect(await contents(url)).toBe(await contents(alone))
  expect(await leftovers(url)).toEqual(['session idle'])
})

/** Three revisions that each write a line; with HOLD set, the last one waits for the gatekeeper. */
const line = (id: string) => ({
  id,
  upgrade: `op.execute("INSERT INTO ledger VALUES ('${id}')")`,
  downgrade: `op.execute("DELETE FROM ledger WHERE line = '${id}'")`,
})
const hold = 'import os\nif os.environ.get("HOLD"):\n    op.execute("SELECT pg_advisory_xact_lock(42)")'
const ledger = writeProject({
  scripts: [
    { id: 'a1', upgrade: `op.execute("CREATE TABLE ledger (line text)")\n${line('a1').upgrade}` },
    line('b2'),
    { ...line('c3'), upgrade: `${line('c3').upgrade}\n${hold}` },
  ],
})

async function expectLines(...lines: string[]): Promise<void> {
  const { rows } = await query(url, 'SELECT line FROM ledger ORDER BY line')
  expect(rows.map(row => row.line)).toEqual(lines)
  expect((await query(url, 'SELECT version_num FROM alembic_version')).rows).toEqual([{ version_num: lines.at(-1) }])
}

for (const [state, prior] of [
  ['without a version table', ''],
  ['with a version table', 'a1'],
] as const) {
  describe(`an apply against a raw \`flask db upgrade\`, ${state}`, () => {
    beforeEach(async () => {
      if (prior) await start(ledger, url, { mode: 'apply', revision: prior })
      await gatekeeper.query('SELECT pg_advisory_lock(42)')
    })
    const letGo = () => gatekeeper.query('SELECT pg_advisory_unlock(42)')

    test('the raw one is first: drift, with everything of ours rolled back', async () => {
      process.env.HOLD = 'yes'
      const raw = flask(ledger, url, 'db', 'upgrade')
      delete process.env.HOLD
      await waiting(inTheMiddle)
      const running = start(ledger, url, { mode: 'apply', 'lock-timeout': '60s' })
      await waiting(forEachOther)
      await letGo()
      expect((await raw).output).not.toContain('Error')
      const step = await running
      expect(step.outputs, step.log).toMatchObject({
        outcome: 'rolled-back',
        'failure-reason': 'drift',
        'prior-head': prior,
        'new-head': 'c3',
      })
      expect(step.exitCode).toBe(1)
      expect(step.log).toContain('The database is now at c3; this step changed nothing in it.')
      await expectLines('a1', 'b2', 'c3')
      expect((await start(ledger, url, { mode: 'apply' })).outputs.outcome).toBe('up-to-date')
    })

    test('ours is first: applied, and the raw one fails', async () => {
      const running = start(ledger, url, { mode: 'apply', 'lock-timeout': '60s' }, { environment: { HOLD: 'yes' } })
      await waiting(inTheMiddle)
      const raw = flask(ledger, url, 'db', 'upgrade')
      await waiting(forEachOther)
      await letGo()
      const step = await running
      expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'prior-head': prior, 'new-head': 'c3' })
      expect((await raw).failed).toBe(true)
      await expectLines('a1', 'b2', 'c3')
    })
  })
}

/** Starts both, and lets them go when both have planned from the same heads. */
async function together(...inputs: Record<string, string>[]) {
  await gatekeeper.query(`SELECT pg_advisory_lock(${lockKey})`)
  const running = inputs.map(each => start(ledger, url, { mode: 'apply', ...each }))
  await waiting(forTheDeployLock, inputs.length)
  await gatekeeper.query(`SELECT pg_advisory_unlock(${lockKey})`)
  const steps = await Promise.all(running)
  const winner = steps.findIndex(step => step.outputs.outcome === 'applied')
  const loser = steps[1 - winner]!
  expect(steps[winner]?.outputs, loser.log).toMatchObject({ outcome: 'applied', 'failure-reason': '' })
  return { winner, loser }
}

test('two applies with different targets: one applied, the other drift', async () => {
  await start(ledger, url, { mode: 'apply', revision: 'a1' })
  const { winner, loser } = await together({ revision: 'b2' }, { revision: 'head' })
  const head = ['b2', 'c3'][winner]
  const drift = { outcome: 'refused', 'failure-reason': 'drift', 'prior-head': head, 'new-head': head }
  expect(loser.outputs, loser.log).toMatchObject(drift)
  expect(loser.log).toContain(`from a1 to ${head}`)
  await expectLines(...['a1', 'b2', 'c3'].slice(0, winner + 2))
})

test('an apply against a downgrade: one applied, the other drift', async () => {
  await start(ledger, url, { mode: 'apply', revision: 'b2' })
  const { winner, loser } = await together({ revision: 'head' }, { direction: 'downgrade' })
  const head = ['c3', 'a1'][winner]
  const drift = { outcome: 'refused', 'failure-reason': 'drift', 'prior-head': head, 'new-head': head }
  expect(loser.outputs, loser.log).toMatchObject(drift)
  await expectLines(...['a1', 'b2', 'c3'].slice(0, winner === 0 ? 3 : 1))
})
