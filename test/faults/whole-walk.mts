/**
 * Walks every point of every fault and prints the table; exits with 1 when a promise did not hold or a point was not
 * tried in time. `--databases N` has a batch of up to three databases, `--servers N` spreads them; `--segments` has one
 * in three segments. `--every N` tries only each N-th point, `--early N` only each N-th of those before the verification, `--only TEXT` only the faults whose names
 * hold the text, `--minutes N` ends after that time, as Ctrl-C does at once. `--write` puts what is printed into
 * docs/reliability.md, where nothing else puts figures.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Server, startServer } from '../support/postgres.mts'
import { type Batch, prepareBatch } from './batch.mts'
import { faults } from './faults.mts'
import { allIsWell, type Row, states, table } from './table.mts'
import { isBad, type Verdict } from './verdict.mts'
import { countPoints, type Part, type Point, strike } from './walk.mts'

const { values } = parseArgs({
  options: {
    databases: { type: 'string', default: '1' },
    servers: { type: 'string', default: '1' },
    segments: { type: 'boolean', default: false },
    every: { type: 'string', default: '1' },
    early: { type: 'string', default: '' },
    only: { type: 'string', default: '' },
    minutes: { type: 'string', default: '180' },
    write: { type: 'boolean', default: false },
  },
})
const every = { run: Number(values.early || values.every), commit: Number(values.every) }
const started = Date.now()
let deadline = started + Number(values.minutes) * 60_000
process.once('SIGINT', () => {
  deadline = 0
})
const chosen = faults.filter(({ name }) => name.includes(values.only))
const databases = Number(values.databases)

// A crash of a server must not hit another walker's run.
const walkers = 2
const start = () => startServer(databases > 1 ? ['max_prepared_transactions = 10'] : [])
const servers = await Promise.all(Array.from({ length: walkers * Number(values.servers) }, start))
try {
  const batches = await Promise.all(
    Array.from({ length: walkers }, (_, walker) => prepareBatch(ownServers(walker), databases, values.segments)),
  )
  const counts = await countPoints(batches[0]!, chosen)
  const rows: Row[] = chosen.map(fault => {
    const { run, commit } = counts.get(fault)!
    return { fault, points: run + commit, verdicts: [] }
  })
  const points = rows
    .flatMap((row, i) =>
      // Each fault starts elsewhere, so that together they touch every point also when some are left out.
      (['run', 'commit'] as Part[]).flatMap(part =>
        Array.from({ length: counts.get(row.fault)![part] }, (_, n) => ({ part, n: n + 1 }))
          .filter(({ n }) => n % every[part] === i % every[part])
          .map(point => ({ row, point })),
      ),
    )
    // In no order, so that what is known after half of the time is known of all faults.
    .sort(() => Math.random() - 0.5)
  const where = `${databases === 1 ? 'one database' : `${databases} databases`} on ${servers.length / walkers} server(s)`
  const form = values.segments ? 'five revisions in three segments' : 'five revisions'
  const title = `${points.length} points of ${chosen.length} faults, in a batch of ${form}, ${where}.`
  console.log(title)
  const total = points.length
  await Promise.all(batches.map(batch => walk(batch, points, total)))
  const tried = total - points.length
  const minutes = Math.round((Date.now() - started) / 60_000)
  const machine = `${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB`
  const told = [
    title,
    table(rows, values),
    `${tried} points in ${minutes} minutes, PostgreSQL ${servers[0]!.version}, ${machine}.`,
    (databases > 1 || values.segments) && `What the databases held before the next run:\n\n${states(rows)}`,
  ]
  const report = told.filter(Boolean).join('\n\n')
  console.log(`\n${report}`)
  if (values.write && points.length === 0) writeReport(report)
  if (points.length > 0) console.log(`${points.length} more points were not tried in time.`)
  if (!allIsWell(rows)) console.log('A promise did not hold: see above.')
  if (points.length > 0 || !allIsWell(rows)) process.exitCode = 1
} finally {
  await Promise.all(servers.map(server => server.stop()))
}

/** Between the marks of such a walk on the page. */
function writeReport(report: string): void {
  const page = join(import.meta.dirname, '../../docs/reliability.md')
  const walk = values.segments ? 'segments' : databases
  const [begin, end] = [`<!-- walk of ${walk} -->`, `<!-- /walk of ${walk} -->`]
  const text = readFileSync(page, 'utf8')
  const [before, after] = [text.indexOf(begin) + begin.length, text.indexOf(end)]
  if (after < before) throw new Error(`${page} has no place for a walk of ${walk}`)
  writeFileSync(page, `${text.slice(0, before)}\n\n${report}\n\n${text.slice(after)}`)
}

function ownServers(walker: number): Server[] {
  return servers.filter((_, index) => index % walkers === walker)
}

async function walk(batch: Batch, points: { row: Row; point: Point }[], total: number): Promise<void> {
  while (points.length > 0 && Date.now() < deadline) {
    const { row, point } = points.shift()!
    const verdict = await strike(batch, row.fault, point).catch(error => void console.log(error))
    row.verdicts.push(verdict)
    if (!verdict || isBad(verdict)) tell(`${row.fault.name}, point ${point.n} of the ${point.part}`, verdict)
    const done = total - points.length
    if (done % 50 === 0) console.log(`${done} of ${total}`)
  }
}

function tell(where: string, verdict: Verdict | undefined): void {
  if (!verdict) return console.log(`\n✗ ${where}: never reached, or not judged\n`)
  const { holds, seen, falseWords, left, step } = verdict
  console.log(`\n✗ ${where}: ${seen.join(', ')}; then all ${holds}`)
  for (const each of [...falseWords, ...left]) console.log(`  ${each}`)
  console.log(step.log.replaceAll(/^/gm, '  | '))
}
