import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test } from 'vitest'
import { waitForLock } from '../../src/postgres/advisory-locks.ts'
import { preparedIn } from '../faults/batch.mts'
import { type Passing, startProxy } from '../faults/proxy.mts'
import { createDatabase, seedProject, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { root, type Step, type StepOptions } from '../support/runner.mts'

/** What a role can do that may connect and no more. */

const several = join(root, 'migrations-fixture', 'several-databases')
const [first, second] = ['dd7c69423ad9', '5a77262c502b']
const environment = {
  DATABASE_URL: 'postgresql+psycopg://nobody@nowhere/shop',
  REPORTING_DATABASE_URL: 'postgresql+psycopg://nobody@nowhere/reporting',
}
const keys = { deploy: 0x61746f6d6963, second: 0x61746f6d6963 + 2 }

/** The database made first has the smaller oid, and so decides. */
let shop: string
let reporting: string
const role = `stranger_${process.pid}`
const deployer = `deployer_${process.pid}`
const as = (name: string, url: string) => url.replace(/\/\/[^@]*@/, `//${name}:hunter2hunter2@`)

beforeAll(async () => {
  for (const name of [role, deployer])
    await query(inject('postgres'), `CREATE ROLE ${name} LOGIN PASSWORD 'hunter2hunter2'`)
})
beforeEach(async () => {
  shop = await createDatabase()
  reporting = await createDatabase()
})
afterEach(async () => {
  for (const url of [shop, reporting]) {
    for (const { gid } of await preparedIn(url)) await query(url, `ROLLBACK PREPARED '${gid}'`)
    await query(url, `DROP OWNED BY ${role}, ${deployer}`)
  }
})
afterAll(() => query(inject('postgres'), `DROP ROLE ${role}, ${deployer}`))

const prepared = async () => (await Promise.all([shop, reporting].map(preparedIn))).flat().map(({ gid }) => gid)
const both = async () => [await contents(shop), await contents(reporting)]
const sessionsAndLocks = async () =>
  [...(await leftovers(shop)), ...(await leftovers(reporting))].filter(each => !each.startsWith('prepared'))

type Options = Partial<StepOptions> & { through?: (url: string) => string }

function apply(inputs: Record<string, string> = {}, { through = url => url, ...options }: Options = {}) {
  const urls = `default=${through(shop)}\nreporting=${through(reporting)}`
  const given = { mode: 'apply', comment: 'false', revision: second!, 'two-phase': 'require', ...inputs }
  return start(several, urls, given, { environment, ...options })
}

const isApplied = (step: Step, outcome = 'applied', head = second) => {
  expect(step.outputs, step.log).toMatchObject({
    outcome,
    'failure-reason': '',
    'new-head': `default=${head}\nreporting=${head}`,
  })
  expect(step.exitCode).toBe(0)
}
const warningsOf = (step: Step) =>
  step.commands.flatMap(({ name, text }) => (name === 'warning' ? [text] : [])).join('\n')
const errorOf = (step: Step) => step.commands.find(({ name }) => name === 'error')?.text ?? ''

const take = (url: string, gid: string) =>
  query(url, `BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION '${gid}'`)
const identityOf = async (url: string) => {
  const { rows } = await query(
    url,
    'SELECT system_identifier AS system, oid FROM pg_control_system(), pg_database WHERE datname = current_database()',
  )
  return `${rows[0].system}:${rows[0].oid}`
}

/** Applies through a proxy that does something as a statement passes, once. */
async function applyWith(
  at: RegExp,
  act: (passing: Passing, pid: number) => void | Promise<void>,
  options: Options = {},
) {
  let [done, pid] = [false, 0]
  const proxy = await startProxy(shop, passing => {
    if (done || passing.direction !== 'up' || !at.test(passing.sql)) return
    done = true
    return act(passing, pid)
  })
  const through = (url: string) => proxy.through(options.through?.(url) ?? url)
  const step = await apply({}, { ...options, through, started: child => (pid = child) })
  proxy.stop()
  expect(done, step.log).toBe(true)
  return step
}

/** Kills the action before the second COMMIT PREPARED: the decision fell, and the first one's name is free. */
async function killBehindTheDecision(): Promise<string> {
  await applyWith(/^COMMIT PREPARED '.*:1'$/, (passing, pid) => {
    process.kill(pid, 'SIGKILL')
    passing.cut()
  })
  while ((await sessionsAndLocks()).some(each => each.startsWith('session'))) await pause(20)
  const [gid = '', ...more] = await prepared()
  expect(more).toEqual([])
  return gid
}

test('names of our form, in every database: deploys go on, and what is not ours is named and left', async () => {
  const here = await identityOf(shop)
  const taken: [string, string][] = [
    [shop, `atomic-upgrade:${here}:777:0`],
    [shop, 'atomic-upgrade:7000000000000000001:16384:777:1'],
    [reporting, `atomic-upgrade:${here}:777:1`],
    [reporting, 'atomic-upgrade:7000000000000000001:16384:777:0'],
  ]
  for (const [url, gid] of taken) await take(as(role, url), gid)
  const gids = taken.map(([, gid]) => gid).sort()
  const preview = await apply({ mode: 'preview' })
  expect(preview.outputs, preview.log).toMatchObject({ outcome: 'previewed' })
  expect(warningsOf(preview)).not.toContain('the next apply settles it')
  // Without a version table, and with one.
  for (const [head, twoPhase] of [
    [first, 'require'],
    [second, 'auto'],
  ] as const) {
    const step = await apply({ revision: head!, 'two-phase': twoPhase })
    isApplied(step, 'applied', head)
    for (const gid of gids) expect(warningsOf(step)).toContain(`${gid} in `)
    expect(warningsOf(step)).toContain(`its owner ${role} may not write the version table`)
    expect(step.log).toContain('Committing in two phases')
    expect((await prepared()).sort()).toEqual(gids)
    expect(await sessionsAndLocks()).toEqual([])
  }
})

test('one database alone goes on as well, also by a role that may not end what is there', async () => {
  await take(as(role, shop), `atomic-upgrade:${await identityOf(shop)}:777:0`)
  await query(shop, `GRANT CREATE, USAGE ON SCHEMA public TO ${deployer}`)
  const step = await start(seedProject, as(deployer, shop), { mode: 'apply', revision: second! })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': second })
})

test.each(['a stranger', 'a role that may deploy'])(
  'the name of the transaction that decided, taken again by %s: what was decided is carried out',
  async who => {
    const gid = await killBehindTheDecision()
    await take(who === 'a stranger' ? as(role, shop) : shop, gid.replace(/:1$/, ':0'))
    const step = await apply()
    isApplied(step, 'up-to-date')
    expect(step.log).toContain(`COMMIT PREPARED '${gid}' in reporting: done.`)
    expect(warningsOf(step)).toContain(
      who === 'a stranger' ? `its owner ${role} may not write` : 'it is not the transaction of its name',
    )
    expect(await prepared()).toEqual([gid.replace(/:1$/, ':0')])
    expect((await both()).every(each => each.includes(second!))).toBe(true)
  },
)

test('what a role has prepared that deploys as another one is ours', async () => {
  const gid = await killBehindTheDecision()
  // The table is the deployer's, and whoever prepared may become the deployer.
  await query(reporting, `GRANT CREATE, USAGE ON SCHEMA public TO ${deployer}; GRANT ${deployer} TO ${role}`)
  await query(reporting, `ROLLBACK PREPARED '${gid}'`)
  await query(reporting, `SET ROLE ${deployer}; CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)`)
  await take(as(role, reporting), gid)
  const step = await apply()
  expect(step.log).toContain(`COMMIT PREPARED '${gid}' in reporting: done.`)
  await query(inject('postgres'), `REVOKE ${deployer} FROM ${role}`)
})

test('a name that is taken as we prepare: everything is rolled back, in clear words, and nothing of ours is left', async () => {
  for (const url of [shop, reporting]) await query(url, `GRANT CREATE, USAGE ON SCHEMA public TO ${deployer}`)
  const before = await both()
  let gid = ''
  const step = await applyWith(
    /^PREPARE TRANSACTION '.*:1'$/,
    async ({ sql }) => {
      gid = sql.split("'")[1]!
      await take(as(role, reporting), gid)
    },
    { through: url => as(deployer, url) },
  )
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'rolled-back',
    'failure-reason': 'commit-failed',
    'new-head': 'default=\nreporting=',
  })
  expect(errorOf(step)).toContain(
    `reporting: PostgreSQL refused to prepare the transaction: transaction identifier "${gid}"`,
  )
  expect(errorOf(step)).toContain('Somebody else has prepared a transaction under this name')
  expect(errorOf(step)).not.toContain('may be left')
  expect(await prepared()).toEqual([gid])
  expect(await both()).toEqual(before)
  expect(await sessionsAndLocks()).toEqual([])
})

test('the name of the second one, taken as soon as it is free: the commit is known all the same', async () => {
  for (const url of [shop, reporting]) await query(url, `GRANT CREATE, USAGE ON SCHEMA public TO ${deployer}`)
  let gid = ''
  const step = await applyWith(
    /^COMMIT PREPARED '.*:1'$/,
    async ({ sql }) => {
      gid = sql.split("'")[1]!
      await query(reporting, sql)
      await take(as(role, reporting), gid)
    },
    { through: url => as(deployer, url) },
  )
  isApplied(step)
  expect(await prepared()).toEqual([gid])
})

async function interruptedWhileWaiting(): Promise<Step> {
  let [pid, log] = [0, '']
  const options: Partial<StepOptions> = {
    started: child => {
      pid = child
    },
    output: text => {
      log += text
      if (pid && log.includes('Waiting for another deploy')) process.kill(pid, 'SIGINT')
    },
  }
  return start(seedProject, shop, { mode: 'apply', revision: second! }, options)
}

test.each(Object.entries(keys))(
  'whoever holds the lock of a deploy is named with role and address: the %s one',
  async (_, key) => {
    const other = new pg.Client({ connectionString: as(role, shop), application_name: 'a toy' })
    await other.connect()
    try {
      await other.query(`SELECT pg_advisory_lock(${key})`)
      const step = await interruptedWhileWaiting()
      expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'cancelled' })
      expect(step.log).toMatch(
        new RegExp(
          `Waiting for another deploy of this database: a toy \\(pid \\d+, since [^)]*, role ${role}, from 127\\.0\\.0\\.1\\)`,
        ),
      )
    } finally {
      await other.end()
    }
  },
)

test('a prepared transaction that holds it is named with its owner', async () => {
  await query(as(role, shop), `BEGIN; SELECT pg_advisory_xact_lock(${keys.deploy}); PREPARE TRANSACTION 'toy'`)
  const step = await interruptedWhileWaiting()
  expect(step.log).toMatch(new RegExp(`this database: a prepared transaction \\(toy of role ${role}, since `))
})

test('behind the wait, the failure names who holds it', async () => {
  const client = new pg.Client({ connectionString: shop })
  const other = new pg.Client({ connectionString: shop })
  await Promise.all([client.connect(), other.connect()])
  try {
    await other.query(`SELECT pg_advisory_lock(7)`)
    await client.query('BEGIN')
    const waited = waitForLock(client, 7, async () => 'a toy (pid 1)', new AbortController().signal, 100)
    await expect(waited).rejects.toMatchObject({
      reason: 'lock-timeout',
      message: 'Another deploy of this database has held its lock for 15 minutes: a toy (pid 1).',
    })
  } finally {
    await Promise.all([client.end(), other.end()])
  }
})
