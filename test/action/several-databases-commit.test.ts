import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { preparedIn } from '../faults/batch.mts'
import { type Passing, startProxy } from '../faults/proxy.mts'
import { createDatabase, seedProject, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query, type Server, startServer } from '../support/postgres.mts'
import { type Script, writeProject } from '../support/project.mts'
import { root, type Step, type StepOptions } from '../support/runner.mts'

const several = join(root, 'migrations-fixture', 'several-databases')
const [first, second] = ['dd7c69423ad9', '5a77262c502b']
const environment = {
  DATABASE_URL: 'postgresql+psycopg://nobody@nowhere/shop',
  REPORTING_DATABASE_URL: 'postgresql+psycopg://nobody@nowhere/reporting',
}

/** The database made first has the smaller oid, and so decides. */
let shop: string
let reporting: string
/** What both hold before and after the batch. */
let empty: string
let after: string[]

const both = async () => [await contents(shop), await contents(reporting)]
const prepared = async () => (await Promise.all([shop, reporting].map(preparedIn))).flat().map(({ gid }) => gid)
const left = async () => [...(await leftovers(shop)), ...(await leftovers(reporting))]

beforeAll(async () => {
  shop = await createDatabase()
  reporting = await createDatabase()
  empty = await contents(shop)
  const step = await apply()
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied' })
  after = await both()
})
beforeEach(async () => {
  shop = await createDatabase()
  reporting = await createDatabase()
})
afterEach(async () => {
  // The tests' server has a limited number of places.
  for (const url of [shop, reporting])
    for (const { gid } of await preparedIn(url)) await query(url, `ROLLBACK PREPARED '${gid}'`)
})

type Options = Partial<StepOptions> & { project?: string; lines?: string[] }

function apply(inputs: Record<string, string> = {}, { project = several, lines, ...options }: Options = {}) {
  const url = (lines ?? [`default=${shop}`, `reporting=${reporting}`]).join('\n')
  const given = { mode: 'apply', comment: 'false', revision: second!, ...inputs }
  return start(project, url, given, { environment, ...options })
}

const isApplied = (step: Step, outcome = 'applied') => {
  expect(step.outputs, step.log).toMatchObject({
    outcome,
    'failure-reason': '',
    'new-head': `default=${second}\nreporting=${second}`,
  })
  expect(step.exitCode).toBe(0)
}

const isUndone = (step: Step, reason = 'commit-failed') => {
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'rolled-back',
    'failure-reason': reason,
    'prior-head': 'default=\nreporting=',
    'new-head': 'default=\nreporting=',
  })
  expect(JSON.parse(step.outputs.databases!)).toMatchObject({
    default: { outcome: 'rolled-back', 'new-head': '' },
    reporting: { outcome: 'rolled-back', 'new-head': '' },
  })
  expect(step.exitCode).toBe(1)
}

const errorOf = (step: Step) => step.commands.find(({ name }) => name === 'error')?.text ?? ''

type Way = Passing['direction']

/** Whether that statement passes on its way up, or the first message of the answer to it. */
const when =
  (statement: RegExp, direction: Way = 'up') =>
  (passing: Passing) =>
    passing.direction === direction && statement.test(passing.sql)

const prepare = (index: number) => new RegExp(`^PREPARE TRANSACTION '.*:${index}'$`)
const commit = (index: number) => new RegExp(`^COMMIT PREPARED '.*:${index}'$`)

/** Applies through a proxy that does something as a message passes, once. */
async function applyWith(
  at: (passing: Passing) => boolean,
  act: (passing: Passing, pid: number) => void | Promise<void>,
  options: Options & { inputs?: Record<string, string>; admit?: () => boolean } = {},
): Promise<Step> {
  let done = false
  let pid = 0
  const watch = (passing: Passing) => {
    if (done || !at(passing)) return
    done = true
    return act(passing, pid)
  }
  const proxy = await startProxy(shop, watch, options.admit)
  const started = (child: number) => {
    pid = child
  }
  const lines = [`default=${proxy.through(shop)}`, `reporting=${proxy.through(reporting)}`]
  const step = await apply(options.inputs, { lines, ...options, started })
  proxy.stop()
  expect(done, `the message never passed:\n${step.log}`).toBe(true)
  return step
}

/** Kills the action at a message, which does not pass any more; waits until its sessions are gone. */
async function kill(statement: RegExp, direction: Way = 'up'): Promise<void> {
  await applyWith(when(statement, direction), (passing, pid) => {
    process.kill(pid, 'SIGKILL')
    passing.cut()
  })
  while ((await left()).some(each => each.startsWith('session'))) await pause(20)
}

const reversed = () => [`reporting=${reporting}`, `default=${shop}`]

describe('killed before the decision: the next run rolls back, and applies', () => {
  test.each<[string, RegExp, Way, number]>([
    ['before the second PREPARE', prepare(1), 'up', 1],
    ['before the first COMMIT PREPARED', commit(0), 'up', 2],
  ])('%s', async (_, statement, direction, count) => {
    await kill(statement, direction)
    const gids = await prepared()
    expect(gids).toHaveLength(count)
    const step = await apply({}, { lines: reversed() })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'prior-head': 'reporting=\ndefault=' })
    expect(step.log).toMatch(/default decides, and its transaction \d+ is only prepared/)
    for (const gid of gids) expect(step.log).toMatch(new RegExp(`ROLLBACK PREPARED '${gid}' in \\w+: done\\.`))
    expect(await both()).toEqual(after)
    expect(await left()).toEqual([])
  })
})

describe('killed after the decision: the next run commits the rest', () => {
  test.each<[string, RegExp, Way]>([['as the first COMMIT PREPARED is answered', commit(0), 'down']])(
    '%s',
    async (_, statement, direction) => {
      await kill(statement, direction)
      const [gid, ...more] = await prepared()
      expect(more).toEqual([])
      expect(gid).toMatch(/:1$/)
      expect(await contents(shop)).toBe(after[0])
      const step = await apply({}, { lines: reversed() })
      expect(step.outputs, step.log).toMatchObject({ outcome: 'up-to-date', 'failure-reason': '' })
      expect(step.log).toMatch(/default decides, and its transaction \d+ is committed/)
      expect(step.log).toContain(`COMMIT PREPARED '${gid}' in reporting: done.`)
      expect(await both()).toEqual(after)
      expect(await left()).toEqual([])
    },
  )
})

describe('the next run has only one of the databases', () => {
  const alone = (url: string) => apply({ revision: first! }, { project: seedProject, lines: [url] })

  test('the one that decides: it rolls back there, and the other one follows later', async () => {
    await kill(commit(0))
    const step = await alone(shop)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': first })
    expect(step.log).toMatch(/ROLLBACK PREPARED '.*:0' in default: done/)
    expect(await prepared()).toHaveLength(1)
    const last = await apply()
    expect(last.log).toMatch(/its transaction \d+ is aborted/)
    expect(last.log).toMatch(/ROLLBACK PREPARED '.*:1' in reporting: done/)
    isApplied(last)
    expect(await left()).toEqual([])
  })

  test.each<[string, string, string, RegExp]>([
    ['the decision fell', 'committed', 'COMMIT', commit(1)],
    ['no decision fell', 'in progress', 'ROLLBACK', commit(0)],
  ])('the other one, and %s: in doubt; what the error says settles it', async (_, status, how, moment) => {
    await kill(moment)
    const gids = await prepared()
    const before = await contents(reporting)
    const step = await alone(reporting)
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'in-doubt',
      'failure-reason': 'commit-failed',
      'prior-head': '',
      'new-head': '',
    })
    expect(step.exitCode).toBe(1)
    expect(await prepared()).toEqual(gids)
    expect(await contents(reporting)).toBe(before)
    const error = errorOf(step)
    expect(error).toContain('they were left alone: the database that decides is not among those of this step')
    expect(error).toContain(`The database holds the prepared transaction ${gids.at(-1)} of an earlier run.`)
    // A person follows it.
    const [, question, oid, system] =
      /(SELECT pg_xact_status\('\d+'::xid8\)) in the database with oid (\d+) of the cluster with system identifier (\d+)/.exec(
        error,
      )!
    const here = await query(
      shop,
      `SELECT oid::text, system_identifier::text FROM pg_control_system(), pg_database WHERE datname = current_database()`,
    )
    expect(here.rows[0]).toEqual({ oid, system_identifier: system })
    expect((await query(shop, question!)).rows[0].pg_xact_status).toBe(status)
    const [, statement] = new RegExp(`(${how} PREPARED '[^']*') in default`).exec(error)!
    await query(reporting, statement!)
    const last = await apply()
    isApplied(last, how === 'COMMIT' ? 'up-to-date' : 'applied')
    expect(await both()).toEqual(after)
    expect(await left()).toEqual([])
  })
})

describe('the run that settles is killed as well: the one after it goes on', () => {
  test('as it rolls back', async () => {
    await kill(commit(0))
    await kill(/^ROLLBACK PREPARED '.*:1'$/)
    expect(await prepared()).toHaveLength(1)
    const step = await apply()
    isApplied(step)
    expect(step.log).toMatch(/default decides, and its transaction \d+ is aborted/)
    expect(await both()).toEqual(after)
    expect(await left()).toEqual([])
  })

  test('as it commits', async () => {
    await kill(commit(0), 'down')
    await kill(commit(1))
    expect(await prepared()).toHaveLength(1)
    isApplied(await apply(), 'up-to-date')
    expect(await both()).toEqual(after)
    expect(await left()).toEqual([])
  })
})

describe('left alone', () => {
  test('a prepared transaction of somebody else, whatever it is called', async () => {
    const names = ['theirs', 'atomic-upgrade:mine', 'atomic-upgrade:1:2:3:4:5']
    for (const [index, gid] of names.entries())
      await query(shop, `BEGIN; CREATE TABLE theirs_${index} (id int); PREPARE TRANSACTION '${gid}'`)
    isApplied(await apply())
    expect((await prepared()).sort()).toEqual(names.sort())
    expect(await both()).toEqual(after)
  })

  test('one whose decision cannot be known, of an unknown cluster', async () => {
    const gid = 'atomic-upgrade:7000000000000000001:16384:777:1'
    await query(reporting, `BEGIN; CREATE TABLE unknown (id int); PREPARE TRANSACTION '${gid}'`)
    const step = await apply()
    expect(step.outputs, step.log).toMatchObject({ outcome: 'in-doubt', 'failure-reason': 'commit-failed' })
    expect(step.exitCode).toBe(1)
    expect(JSON.parse(step.outputs.databases!)).toMatchObject({
      default: { outcome: 'refused' },
      reporting: { outcome: 'in-doubt', 'new-head': '' },
    })
    expect(errorOf(step)).toContain('The database default was not touched.')
    expect(errorOf(step)).toContain(`The database reporting holds the prepared transaction ${gid} of an earlier run.`)
    expect(await prepared()).toEqual([gid])
    expect(await both()).toEqual([empty, empty])
  })

  test('one whose transaction the deciding database does not know', async () => {
    const identity = `SELECT system_identifier::text AS system, oid::text FROM pg_control_system(), pg_database WHERE datname = current_database()`
    const { system, oid } = (await query(shop, identity)).rows[0]
    const gid = `atomic-upgrade:${system}:${oid}:999999999:1`
    await query(reporting, `BEGIN; CREATE TABLE unknown (id int); PREPARE TRANSACTION '${gid}'`)
    const step = await apply()
    expect(step.outputs, step.log).toMatchObject({ outcome: 'in-doubt', 'failure-reason': 'commit-failed' })
    expect(errorOf(step)).toContain('default says of transaction 999999999: never written')
    expect(await prepared()).toEqual([gid])
  })

  test('by a preview, which warns, and by a rehearsal, which also lacks the lock', async () => {
    await kill(commit(0))
    const gids = await prepared()
    const warning = `An earlier apply has left a prepared transaction (${gids[0]} in default and ${gids[1]} in reporting); the next apply settles it.`
    const preview = await apply({ mode: 'preview' })
    expect(preview.outputs, preview.log).toMatchObject({
      outcome: 'previewed',
      'new-head': `default=${second}\nreporting=${second}`,
    })
    expect(preview.commands).toContainEqual(expect.objectContaining({ name: 'warning', text: warning }))
    const rehearsal = await apply({ mode: 'rehearse' })
    expect(rehearsal.outputs, rehearsal.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'lock-timeout' })
    expect(rehearsal.commands).toContainEqual(expect.objectContaining({ name: 'warning', text: warning }))
    expect(rehearsal.log).toContain('Waiting for another deploy of this database: a prepared transaction')
    expect(await prepared()).toEqual(gids)
  })

  test('where the role may not end what another role prepared', async () => {
    await kill(commit(0))
    const gids = await prepared()
    const role = `deploy_${shop.slice(-6)}`
    await query(shop, `CREATE ROLE ${role} LOGIN PASSWORD 'hunter2hunter2'`)
    for (const url of [shop, reporting]) await query(url, `GRANT CREATE, USAGE ON SCHEMA public TO ${role}`)
    const as = (url: string) => url.replace(/\/\/[^@]*@/, `//${role}:hunter2hunter2@`)
    try {
      const step = await apply({}, { lines: [`default=${as(shop)}`, `reporting=${as(reporting)}`] })
      expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-permitted' })
      const error = errorOf(step)
      expect(error).toContain(`ROLLBACK PREPARED '${gids[0]}' in default was refused: permission denied`)
      expect(error).toContain(
        `By hand: ROLLBACK PREPARED '${gids[0]}' in default, ROLLBACK PREPARED '${gids[1]}' in reporting.`,
      )
      expect(await prepared()).toEqual(gids)
    } finally {
      for (const url of [shop, reporting]) await query(url, `DROP OWNED BY ${role}`)
      await query(shop, `DROP ROLE ${role}`)
    }
  })
})

test('two applies at once, with the lines in opposite orders: one applies, the other finds it done', async () => {
  const steps = await Promise.all([apply(), apply({}, { lines: reversed() })])
  expect(steps.map(({ outputs }) => outputs.outcome).sort(), steps.map(({ log }) => log).join('\n')).toEqual([
    'applied',
    'up-to-date',
  ])
  expect(await both()).toEqual(after)
  expect(await left()).toEqual([])
})

describe('what PREPARE cannot carry', () => {
  const script = (upgrade: string): Script[] => [
    { id: 'aa11', upgrade: `op.execute("CREATE TABLE t (id int)")\n${upgrade}` },
  ]
  test.each([
    ['a temporary table', 'op.execute("CREATE TEMPORARY TABLE scratch (id int)")', 'temporary'],
    ['LISTEN', 'op.execute("LISTEN deploys")', 'LISTEN'],
    ['NOTIFY, in one of the databases', 'if engine_name == "reporting": op.execute("NOTIFY deploys")', 'NOTIFY'],
  ])('%s', async (_, upgrade, word) => {
    const project = writeProject({ binds: ['reporting'], scripts: script(upgrade) })
    const step = await apply({ revision: 'head' }, { project })
    isUndone(step, 'not-transactional')
    expect(errorOf(step)).toContain(word)
    expect(errorOf(step)).toMatch(/^(default|reporting): PostgreSQL cannot prepare this transaction/)
    expect(await both()).toEqual([empty, empty])
    expect(await left()).toEqual([])
  })

  test('and two-phase: never carries', async () => {
    const project = writeProject({
      binds: ['reporting'],
      scripts: script('op.execute("CREATE TEMPORARY TABLE scratch (id int)")'),
    })
    const step = await apply({ revision: 'head', 'two-phase': 'never' }, { project })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'default=aa11\nreporting=aa11' })
  })
})

// Lost answers at the second PREPARE and at the first COMMIT PREPARED: test/faults/short-walk-several.test.ts.
describe('PostgreSQL’s answer is lost, or what was asked', () => {
  test.each<[string, RegExp, Way, boolean]>([
    ['the first PREPARE never arrives', prepare(0), 'up', false],
    ['no answer to the first PREPARE', prepare(0), 'down', false],
    ['the second PREPARE never arrives', prepare(1), 'up', false],
    ['the second COMMIT PREPARED never arrives', commit(1), 'up', true],
    ['no answer to the second COMMIT PREPARED', commit(1), 'down', true],
  ])('%s', async (_, statement, direction, isDone) => {
    const step = await applyWith(when(statement, direction), passing => passing.cut())
    if (isDone) isApplied(step)
    else isUndone(step)
    expect(await both()).toEqual(isDone ? after : [empty, empty])
    expect(await left()).toEqual([])
  })

  test('the first COMMIT PREPARED is refused: everything is rolled back', async () => {
    const wrong = Buffer.from('Q\0\0\0\x14COMMIT PREPARED\0', 'latin1')
    const step = await applyWith(when(commit(0)), passing => passing.replace(wrong))
    isUndone(step)
    expect(errorOf(step)).toMatch(/^The first COMMIT PREPARED was not carried out: syntax error/)
    expect(await both()).toEqual([empty, empty])
    expect(await left()).toEqual([])
  })
})

test('the first COMMIT PREPARED never arrives, and nobody can ask: in doubt everywhere, and the next run settles it', async () => {
  let gone = false
  const step = await applyWith(
    when(commit(0)),
    (passing, pid) => {
      gone = true
      passing.cut()
      // A cancelled step asks for two seconds, not for a minute.
      process.kill(pid, 'SIGINT')
    },
    { admit: () => !gone },
  )
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'in-doubt',
    'failure-reason': 'commit-failed',
    'prior-head': 'default=\nreporting=',
    'new-head': 'default=\nreporting=',
  })
  const gids = await prepared()
  expect(gids).toHaveLength(2)
  const error = errorOf(step)
  expect(error).toMatch(/SELECT pg_xact_status\('\d+'::xid8\) in default; where that is committed, COMMIT PREPARED/)
  for (const how of ['COMMIT', 'ROLLBACK'])
    expect(error).toContain(`${how} PREPARED '${gids[0]}' in default, ${how} PREPARED '${gids[1]}' in reporting`)
  isApplied(await apply())
  expect(await left()).toEqual([])
})

describe('somebody else meddles', () => {
  test('the transaction that decides is rolled back by hand before it is committed: nothing follows', async () => {
    const step = await applyWith(when(commit(0)), async ({ sql }) => {
      await query(shop, sql.replace('COMMIT', 'ROLLBACK'))
    })
    isUndone(step)
    expect(errorOf(step)).toMatch(/^The first COMMIT PREPARED was not carried out: somebody else has rolled it back\./)
    expect(await both()).toEqual([empty, empty])
    expect(await left()).toEqual([])
  })

  test('another transaction is rolled back by hand after the decision: partly applied, and the next run finishes', async () => {
    const step = await applyWith(when(commit(1)), async ({ sql }) => {
      await query(reporting, sql.replace('COMMIT', 'ROLLBACK'))
    })
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'partly-applied',
      'failure-reason': 'commit-failed',
      'new-head': `default=${second}\nreporting=`,
    })
    expect(await both()).toEqual([after[0], empty])
    isApplied(await apply())
    expect(await both()).toEqual(after)
  })

  test('the lock of a run that commits is taken away, and another run rolls it back: it says so', async () => {
    let other: Step | undefined
    const step = await applyWith(when(commit(0)), async () => {
      await query(
        shop,
        `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid IS NOT NULL
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      )
      other = await apply()
    })
    isApplied(other!)
    expect(other!.log).toContain('is only prepared')
    expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'commit-failed' })
    expect(step.outputs['new-head']).toBe(`default=${second}\nreporting=${second}`)
    expect(await both()).toEqual(after)
    expect(await left()).toEqual([])
  })

  test('the decision falls while a later run is about to roll it back: that run commits the rest', async () => {
    await kill(commit(0))
    const step = await applyWith(when(/^ROLLBACK PREPARED '.*:0'$/), async ({ sql }) => {
      await query(shop, sql.replace('ROLLBACK', 'COMMIT'))
    })
    isApplied(step, 'up-to-date')
    expect(step.log).toMatch(/COMMIT PREPARED '.*:1' in reporting: done/)
    expect(await both()).toEqual(after)
    expect(await left()).toEqual([])
  })

  test('a run waits for another one that is committing', async () => {
    let waiting: Promise<Step> | undefined
    const step = await applyWith(when(commit(0)), async () => {
      await new Promise<void>(seen => {
        const output = (text: string) => text.includes('waiting for the run that is at it') && seen()
        waiting = apply({}, { output })
      })
    })
    isApplied(step)
    isApplied((await waiting)!, 'up-to-date')
    expect(await both()).toEqual(after)
    expect(await left()).toEqual([])
  })
})

describe('where prepared transactions are off', () => {
  let server: Server
  beforeAll(async () => {
    server = await startServer(['max_prepared_transactions = 0'])
  })
  afterAll(() => server.stop())
  let number = 0
  beforeEach(async () => {
    number++
    shop = await server.create(`shop_${number}`)
    reporting = await server.create(`reporting_${number}`)
  })

  const why = 'max_prepared_transactions is 0 on the server of default'

  test.each(['apply', 'rehearse'])('two-phase: require refuses to %s', async mode => {
    const step = await apply({ mode, 'two-phase': 'require' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-permitted' })
    expect(errorOf(step)).toContain(`Two-phase commit is required and not possible: ${why}.`)
    expect(await both()).toEqual([empty, empty])
  })

  test('two-phase: auto commits one after another, and says so, also beforehand', async () => {
    const preview = await apply({ mode: 'preview' })
    const step = await apply()
    isApplied(step)
    const said = `The databases are committed one after another (${why}): a crash between two of these commits is not covered.`
    expect(step.log).toContain(said)
    for (const { summary } of [preview, step]) expect(summary.replaceAll('\\', '')).toContain(said)
    expect(await both()).toEqual(after)
  })

  test('a COMMIT fails after another succeeded: partly applied, and the next run finishes', async () => {
    let commits = 0
    const step = await applyWith(
      passing => when(/^COMMIT$/)(passing) && ++commits === 2,
      passing => passing.cut(),
    )
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'partly-applied',
      'failure-reason': 'commit-failed',
      'prior-head': 'default=\nreporting=',
      'new-head': `default=${second}\nreporting=`,
    })
    expect(step.exitCode).toBe(1)
    expect(JSON.parse(step.outputs.databases!)).toMatchObject({
      default: { outcome: 'applied', 'prior-head': '', 'new-head': second },
      reporting: { outcome: 'rolled-back', 'prior-head': '', 'new-head': '' },
    })
    expect(errorOf(step)).toContain(
      `The database default is at ${second}.\nThe database reporting is at base, as before.`,
    )
    expect(await both()).toEqual([after[0], empty])
    const next = await apply()
    isApplied(next)
    expect(JSON.parse(next.outputs.databases!)).toMatchObject({
      default: { outcome: 'up-to-date' },
      reporting: { outcome: 'applied' },
    })
    expect(await both()).toEqual(after)
  })

  test('the first COMMIT fails: nothing is applied', async () => {
    const step = await applyWith(when(/^COMMIT$/), passing => passing.cut())
    isUndone(step)
    expect(await both()).toEqual([empty, empty])
  })
})

describe('where the places for prepared transactions are few', () => {
  let server: Server
  beforeAll(async () => {
    server = await startServer(['max_prepared_transactions = 2'])
  })
  afterAll(() => server.stop())
  let number = 0
  beforeEach(async () => {
    number++
    shop = await server.create(`shop_${number}`)
    reporting = await server.create(`reporting_${number}`)
  })
  const take = () => query(server.url('postgres'), `BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'theirs'`)
  afterEach(() => query(server.url('postgres'), `ROLLBACK PREPARED 'theirs'`))

  test('taken beforehand: auto falls back, require refuses', async () => {
    await take()
    const why = 'of 2 max_prepared_transactions on the server of default, 1 are taken'
    const refused = await apply({ 'two-phase': 'require' })
    expect(refused.outputs, refused.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-permitted' })
    expect(errorOf(refused)).toContain(why)
    const step = await apply()
    isApplied(step)
    expect(step.log).toContain(`committed one after another (${why})`)
  })

  test('taken while the batch ran: everything is rolled back', async () => {
    const step = await applyWith(when(prepare(0)), async () => {
      await take()
    })
    isUndone(step)
    expect(errorOf(step)).toContain('maximum number of prepared transactions reached')
    expect(await both()).toEqual([empty, empty])
    expect(await left()).toEqual([])
  })
})

test('two servers, one of them gone after the decision: in doubt, told which, and the next run settles it', async () => {
  const servers = await Promise.all([1, 2].map(() => startServer(['max_prepared_transactions = 5'])))
  try {
    shop = await servers[0]!.create('shop')
    reporting = await servers[1]!.create('reporting')
    const [one, other] = await Promise.all(
      [shop, reporting].map(
        async url =>
          (await query(url, 'SELECT system_identifier FROM pg_control_system()')).rows[0].system_identifier as string,
      ),
    )
    if (BigInt(one!) > BigInt(other!)) [shop, reporting] = [reporting, shop]
    const follower = servers.find(({ port }) => reporting.includes(`:${port}/`))!
    let pid = 0
    let dead = false
    const watch = async (passing: Passing) => {
      if (dead || !when(commit(1))(passing)) return
      dead = true
      await follower.crash()
      passing.cut()
      process.kill(pid, 'SIGINT')
    }
    const proxy = await startProxy(reporting, watch)
    const started = (child: number) => {
      pid = child
    }
    const step = await apply({}, { started, lines: [`default=${shop}`, `reporting=${proxy.through(reporting)}`] })
    proxy.stop()
    await follower.restart()
    expect(dead).toBe(true)
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'in-doubt',
      'failure-reason': 'commit-failed',
      'new-head': `default=${second}\nreporting=`,
    })
    expect(JSON.parse(step.outputs.databases!)).toMatchObject({
      default: { outcome: 'applied', 'new-head': second },
      reporting: { outcome: 'in-doubt', 'new-head': '' },
    })
    const [gid] = await prepared()
    expect(errorOf(step)).toContain('The commit is decided, and reporting could not be told.')
    expect(errorOf(step)).toContain(`By hand: COMMIT PREPARED '${gid}' in reporting.`)
    isApplied(await apply(), 'up-to-date')
    expect(await both()).toEqual(after)
    expect(await left()).toEqual([])
  } finally {
    await Promise.all(servers.map(server => server.stop()))
    shop = reporting = inject('postgres')
  }
})
