import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { startProxy } from '../faults/proxy.mts'
import { contents } from '../support/database.mts'
import { freePort, query, type Server } from '../support/postgres.mts'
import { type ProjectOptions, writeProject } from '../support/project.mts'
import { withDriver } from '../support/shapes.mts'
import { anyDriver } from '../support/stack.mts'
import type { Finding, Holds, Result } from './finding.mts'
import { type Scenario, type WayName, wayNames } from './scenario.mts'
import { flask, plain, preview, type Run, type Stage, ways } from './ways.mts'

export interface Servers {
  usual: Server
  withoutPreparedTransactions: Server
}

/** Plays one scenario in every way, each on databases of its own, and compares what they hold with what should be there. */
export async function play(scenario: Scenario, servers: Servers): Promise<Finding> {
  const server = scenario.withoutPreparedTransactions ? servers.withoutPreparedTransactions : servers.usual
  const folder = typeof scenario.project === 'string' ? scenario.project : writeProject(scenario.project)
  const templates = await prepare(scenario, folder, server)
  const results = await Promise.all(
    wayNames.map(async way => [way, await playOne(scenario, way, folder, server, templates)] as const),
  )
  for (const name of templates.values()) await query(server.url('postgres'), `DROP DATABASE "${name}"`)
  const { expected } = scenario
  return {
    scenario: scenario.name,
    scripts: scriptsOf(scenario.project, scenario.from ?? ''),
    expected: expected === 'unchanged' ? expected : 'applied',
    ways: Object.fromEntries(results) as Record<WayName, Result>,
  }
}

const bindsOf = ({ binds = [] }: Scenario) => ['default', ...binds]

/** Databases that stand before the batch, to be copied; their names by their binds. */
async function prepare(scenario: Scenario, folder: string, server: Server): Promise<Map<string, string>> {
  const names = new Map(bindsOf(scenario).map(bind => [bind, `shop_${bind}`]))
  for (const name of names.values()) await server.create(name)
  const stage = { scenario, folder, urls: urlsOf(names, server) }
  for (const words of scenario.before ?? (scenario.from ? [`upgrade ${scenario.from}`] : [])) {
    const { exitCode, error } = await flask(stage, words.split(' '))
    if (exitCode !== 0)
      throw new Error(`${scenario.name}: flask db ${words} fails before the scenario begins: ${error}`)
  }
  for (const [bind, sql] of Object.entries(scenario.beforeSql ?? {})) await query(server.url(names.get(bind)!), sql)
  return names
}

const urlsOf = (names: Map<string, string>, server: Server) =>
  new Map([...names].map(([bind, name]) => [bind, withDriver(server.url(name), anyDriver)]))

async function playOne(
  scenario: Scenario,
  way: WayName,
  folder: string,
  server: Server,
  templates: Map<string, string>,
): Promise<Result> {
  const names = new Map([...templates].map(([bind, name]) => [bind, `${name}_${way}`]))
  for (const [bind, name] of names)
    await query(server.url('postgres'), `CREATE DATABASE "${name}" TEMPLATE "${templates.get(bind)}"`)
  const urls = urlsOf(names, server)
  const before = await all(urls, contents)
  const { reached, close } = await withTrouble(scenario, way, urls)
  const stage = { scenario, folder, urls: reached }
  const told = scenario.shows ? comparedWith((await preview(way, stage)).match(scenario.shows)?.[0]) : asIs
  const runs = await runAll(way, stage)
  close()
  await all(urls, quiet)
  const seen = { scenario, urls, told }
  const holds = await judge(seen, before)
  const result = { holds, exits: runs.map(({ exitCode }) => exitCode), ...(await evidence(seen, runs)) }
  for (const [bind, name] of names) {
    await rollBackPrepared(urls.get(bind)!)
    await query(server.url('postgres'), `DROP DATABASE "${name}"`)
  }
  return result
}

const all = <T,>(urls: Map<string, string>, ask: (url: string) => Promise<T>): Promise<T[]> =>
  Promise.all([...urls.values()].map(url => ask(plain(url))))

/** The URLs by which the databases are reached in this scenario. */
async function withTrouble(scenario: Scenario, way: WayName, urls: Map<string, string>) {
  const reached = new Map(urls)
  if (scenario.unreachable) {
    const url = new URL(urls.get(scenario.unreachable)!)
    url.port = String(await freePort())
    reached.set(scenario.unreachable, url.href)
  }
  const { fault } = scenario
  if (!fault) return { reached, close: () => {} }
  let struck = false
  const proxy = await startProxy([...urls.values()][0]!, passing => {
    if (struck || !fault.at(passing, way)) return
    struck = true
    fault.act(passing)
  })
  for (const [bind, url] of urls) reached.set(bind, proxy.through(url))
  return { reached, close: () => proxy.stop() }
}

async function runAll(way: WayName, stage: Stage): Promise<Run[]> {
  const { twice } = stage.scenario
  const first = await ways[way](stage)
  if (!twice) return [await first()]
  const second = await ways[way](stage)
  if (twice === 'one after another') return [await first(), await second()]
  return await together([...stage.urls.values()][0]!, first, second)
}

/** Starts both, and lets them go on when both wait: in their scripts for lock 42, or for the action's own. */
async function together(url: string, ...starts: (() => Promise<Run>)[]): Promise<Run[]> {
  const gatekeeper = new pg.Client({ connectionString: plain(url) })
  await gatekeeper.connect()
  try {
    await gatekeeper.query('SELECT pg_advisory_lock(42)')
    const running = Promise.all(starts.map(start => start()))
    const waiting = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND (wait_event_type = 'Lock' OR query LIKE '%pg_try_advisory_xact_lock%')`
    while ((await gatekeeper.query(waiting)).rowCount! < starts.length) await pause(50)
    await gatekeeper.query('SELECT pg_advisory_unlock(42)')
    return (await running).sort((a, b) => a.exitCode! - b.exitCode!)
  } finally {
    await gatekeeper.end()
  }
}

/** Waits until nobody else is connected, at most ten seconds. */
async function quiet(url: string): Promise<void> {
  const others = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`
  for (let tries = 0; tries < 200 && (await query(url, others)).rowCount! > 0; tries++) await pause(50)
}

/** The databases when all is over. */
interface Seen {
  scenario: Scenario
  urls: Map<string, string>
  /** How values that were found are told. */
  told: (values: string) => string
}

const asIs: Seen['told'] = values => values
const comparedWith =
  (shown: string | undefined): Seen['told'] =>
  found =>
    shown === undefined || shown === found ? 'nothing else was shown' : 'something else was shown'

async function judge({ scenario, urls, told }: Seen, before: string[]): Promise<Holds> {
  const after = await all(urls, contents)
  if (after.every((each, index) => each === before[index])) return 'unchanged'
  const { expected } = scenario
  if (expected === 'unchanged') return 'changed'
  const heads = await all(urls, url => headsOf(url, scenario.versionTable))
  if (heads.some(each => each !== expected.head)) return 'changed'
  const found = await Promise.all([...urls.values()].map((url, i) => valuesOf(plain(url), expected.rows[i]!)))
  return found.every((each, index) => told(each) === expected.are[index]) ? 'applied' : 'other data'
}

/** What the databases hold, in words, and what the runs said. */
async function evidence({ scenario, urls, told }: Seen, runs: Run[]) {
  const { expected, shown, versionTable } = scenario
  const found: string[] = []
  for (const [index, [bind, url]] of [...urls].entries()) {
    const query = expected === 'unchanged' ? (index === 0 ? shown : undefined) : expected.rows[index]
    const at = `at ${(await headsOf(plain(url), versionTable)) || 'base'}`
    const words = query ? [at, told(await valuesOf(plain(url), query)) || 'no rows'] : [at, await tablesOf(plain(url))]
    const prepared = await preparedIn(plain(url))
    if (prepared.length > 0) words.push('a prepared transaction')
    found.push(`${urls.size > 1 ? `${bind} ` : ''}${words.filter(Boolean).join(': ')}`)
  }
  return {
    found: found.join('; '),
    ran: runs.map(({ ran }) => ran.join(', ')),
    errors: runs.map(({ error }) => error),
  }
}

async function headsOf(url: string, table = 'alembic_version'): Promise<string> {
  const there = await query(url, `SELECT to_regclass('${table}') IS NOT NULL AS there`)
  return there.rows[0].there ? await valuesOf(url, `SELECT version_num FROM ${table} ORDER BY 1`) : ''
}

/** The values of a query's one column; where it fails, the reason. */
async function valuesOf(url: string, sql: string): Promise<string> {
  try {
    return (await query(url, sql)).rows.map(row => Object.values(row)[0]).join(',')
  } catch (error) {
    return (error as Error).message
  }
}

/** The tables, each with the number of its rows. */
async function tablesOf(url: string): Promise<string> {
  const { rows } = await query(
    url,
    `SELECT relname || ' (' || (xpath('//n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I', relname), false, true, '')))[1] || ')' AS told
       FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version' ORDER BY 1`,
  )
  return rows.map(row => row.told).join(', ') || 'no tables'
}

const preparedIn = async (url: string): Promise<string[]> =>
  (await query(url, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()')).rows.map(row => row.gid)

async function rollBackPrepared(url: string): Promise<void> {
  for (const gid of await preparedIn(plain(url))) await query(plain(url), `ROLLBACK PREPARED '${gid}'`)
}

/** What the batch consists of: the scripts above `from`, as Python. */
function scriptsOf(project: string | ProjectOptions, from: string): Record<string, string> {
  if (typeof project === 'string') return {}
  const start = project.scripts.findIndex(({ id }) => id === from) + 1
  return Object.fromEntries(project.scripts.slice(start).map(({ id, upgrade }) => [id, upgrade.trim()]))
}
