import { globSync, statSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem, type } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { dataBatch, historyBatch, rowsBatch, seedBatch } from '../test/bench/batches.mts'
import {
  action,
  actionAlone,
  actionFolder,
  fourCalls,
  heads,
  knowsPlanFiles,
  messages,
  planFile,
  preview,
  psql,
  raw,
  throughProxy,
} from '../test/bench/contestants.mts'
import type { Figures, Own, Race, Target } from '../test/bench/figures.mts'
import { startLink } from '../test/bench/link.mts'
import { own, race } from '../test/bench/measure.mts'
import { ownTable, page, profile, raceTable, targetsTable } from '../test/bench/page.mts'
import { plot } from '../test/bench/plot.mts'
import { canTellLoads, loads, sampled } from '../test/bench/profile.mts'
import { judge, lapsed } from '../test/bench/targets.mts'
import { startGitHub } from '../test/support/github.mts'
import { startServer } from '../test/support/postgres.mts'
import { readRecord, writeRecord } from './record.mts'
import { versionsOf } from './versions.mts'

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    quick: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
  },
})
if (values.write && (values.only || values.quick)) fail('--write writes all figures in full, so it stands alone.')
const { quick } = values
const roundTrip = 20
const root = join(import.meta.dirname, '..')
const known = readRecord<Figures>('performance')
const server = await startServer(['max_locks_per_transaction = 1024'])
const github = await startGitHub()
const plans = knowsPlanFiles ? [planFile] : []
if (!knowsPlanFiles) console.log('This action has no input plan-file: it is left out.')
try {
  const figures: Figures = {
    machine: {
      CPU: cpus()[0]!.model,
      cores: String(cpus().length),
      memory: `${(totalmem() / 2 ** 30).toFixed(1)} GiB`,
      system: `${type()} ${release()}`,
      Node: process.version,
    },
    versions: versionsOf(server),
    races: [],
    own: [],
    dist: distOf(),
  }
  for (const each of [seed, thousands, far]) {
    const found = await each()
    if (found) figures.races.push(found)
  }
  if (asked('own cost')) figures.own.push(...(await ownCosts()))
  for (const each of figures.races) {
    console.log(
      `\n${[each.title, raceTable(each), targetsTable(judge({ races: [each], own: [] })), ...profile(each)].join('\n\n')}`,
    )
  }
  if (figures.own.length > 0) console.log(`\n${ownTable(figures.own)}`)
  if (values.write) {
    writeRecord('performance', figures)
    writeFileSync(join(root, 'docs/images/performance.svg'), plot(figures))
    writeFileSync(join(root, 'docs/performance.md'), page(figures))
  } else if (known && !quick) compare(known, figures)
} finally {
  await github.stop()
  await server.stop()
}

function asked(title: string): boolean {
  const is = title.includes(values.only)
  if (is) console.log(`\n━━ ${title}`)
  return is
}

async function seed(): Promise<Race | undefined> {
  const title = 'The seed’s batch: 2 revisions, 4 statements'
  if (!asked(title)) return undefined
  const contestants = [raw, action(github.url), fourCalls, psql, ...plans]
  return {
    title,
    text: 'The two migrations of the seed that work, on an empty database. The action is started for a pull request: it renders the batch, writes the comment, runs the scripts through the gate, commits, and writes the comment again.',
    rows: await race({ server, batch: seedBatch }, contestants, quick ? 2 : 15),
    targets: [
      { what: 'apply with its preview, to a raw upgrade', of: 'the action: apply', to: raw.name, limit: 1.25 },
      { what: 'apply with its preview, to the four calls', of: 'the action: apply', to: fourCalls.name, limit: 0.45 },
    ],
  }
}

async function thousands(): Promise<Race | undefined> {
  const [revisions, each] = quick ? [30, 10] : [300, 10]
  const title = `${count(revisions)} revisions, ${count(revisions * each)} statements`
  if (!asked(title)) return undefined
  const bare = await startLink(server.url('postgres'), 0)
  const proxied = throughProxy(bare)
  const contestants = [raw, heads, proxied, actionAlone, preview, fourCalls, psql, ...plans, messages]
  const course = { server, batch: historyBatch(revisions, each) }
  try {
    return {
      title,
      text: `Each revision makes a table with a column more and an index, and writes rows, over loopback. A statement through the gate passes one more process: what that costs by itself shows “${proxied.name}”, a Node process that passes bytes and does nothing else. On two cores, Python, the gate and PostgreSQL take turns, so every microsecond of the gate’s is waited for. Its own share is reading the messages and the SQL, so that nothing commits.`,
      rows: await race(course, contestants, quick ? 1 : 5),
      targets: [
        {
          what: 'what an apply adds to a preview, to what a raw upgrade adds to `flask db current`: the gate',
          of: { of: actionAlone.name, without: preview.name },
          to: { of: raw.name, without: heads.name },
          limit: 1.1,
        },
        {
          what: 'the same for a bare proxy, to see what is possible',
          of: { of: proxied.name, without: heads.name },
          to: { of: raw.name, without: heads.name },
          limit: 1.1,
        },
      ],
      ...(canTellLoads && {
        loads: await loads(course, [heads, raw, proxied, preview, actionAlone], quick ? 1 : 5),
        sampled: await sampled(course, [preview, actionAlone]),
      }),
    }
  } finally {
    bare.stop()
  }
}

async function far(): Promise<Race | undefined> {
  const [revisions, each] = quick ? [5, 20] : [50, 100]
  const title = `${count(revisions * each)} statements in ${revisions} revisions, ${roundTrip} ms away`
  if (!asked(title)) return undefined
  const link = await startLink(server.url('postgres'), roundTrip)
  try {
    const course = { server, batch: rowsBatch(revisions, each), link }
    const quickOnes = await race(course, [...plans, messages], quick ? 1 : 5)
    const slowOnes = await race(course, [raw, actionAlone, psql], 1)
    const targets: Target[] = [
      { what: 'plan file, to one message for each revision', of: planFile.name, to: messages.name, limit: 1.1 },
      { what: 'a raw upgrade, to the plan file', of: raw.name, to: planFile.name, limit: 20, at: 'least' },
    ]
    return {
      title,
      text: `A proxy on loopback holds back every byte by ${roundTrip / 2} ms in each direction. What takes minutes was run once.`,
      rows: [...slowOnes, ...quickOnes],
      targets: knowsPlanFiles ? targets : [],
    }
  } finally {
    link.stop()
  }
}

async function ownCosts(): Promise<Own[]> {
  const rounds = quick ? 1 : 3
  const found: Own[] = []
  for (const revisions of quick ? [1, 10] : [1, 10, 100, 1000]) {
    const batch = rowsBatch(revisions, 3)
    found.push(
      await own(
        { server, batch },
        github.url,
        `${count(revisions)} ${revisions === 1 ? 'revision' : 'revisions'}`,
        revisions * 3,
        rounds,
      ),
    )
  }
  const mebibytes = quick ? 5 : 50
  const data = dataBatch(mebibytes)
  found.push(
    await own({ server, batch: data }, github.url, `1 revision with ${mebibytes} MiB of data`, mebibytes, rounds),
  )
  return found
}

function distOf(): Record<string, number> {
  const files = globSync('dist/**/*.*', { cwd: actionFolder })
  return Object.fromEntries(files.sort().map(path => [path, statSync(join(actionFolder, path)).size]))
}

/** A target that is met by docs/performance.json and not here makes the exit code 1, once everything is printed. */
function compare(before: Figures, now: Figures): void {
  const gone = lapsed(judge(before), judge(now))
  if (gone.length === 0) return console.log('\nNo target that docs/performance.json meets is missed.')
  for (const { target, wanted, measured } of gone)
    console.log(`\n✗ ${target}\n  wanted: ${wanted}\n  is:     ${measured}`)
  console.error(`script/bench: ${gone.length} targets that docs/performance.json meets are not met.`)
  process.exitCode = 1
}

function count(n: number): string {
  return n.toLocaleString('en')
}

function fail(message: string): never {
  console.error(`script/bench: ${message}`)
  process.exit(1)
}
