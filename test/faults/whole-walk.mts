/**
 * Walks every point of every fault and prints the table; exits with 1 when a promise did not hold or a point was not
 * tried in time. `--every N` tries only each N-th point, `--only TEXT` only the faults whose names hold the text,
 * `--minutes N` ends after that time.
 */
import { parseArgs } from 'node:util'
import { startServer } from '../support/postgres.mts'
import { type Batch, prepareBatch } from './batch.mts'
import { faults } from './faults.mts'
import { allIsWell, type Row, table } from './table.mts'
import { isBad, type Verdict } from './verdict.mts'
import { countPoints, strike } from './walk.mts'

const { values } = parseArgs({
  options: {
    every: { type: 'string', default: '1' },
    only: { type: 'string', default: '' },
    minutes: { type: 'string', default: '180' },
  },
})
const every = Number(values.every)
const started = Date.now()
const deadline = started + Number(values.minutes) * 60_000
const chosen = faults.filter(({ name }) => name.includes(values.only))

// A crash of the server must not hit another walker's run.
const servers = await Promise.all([startServer(), startServer()])
try {
  const batches = await Promise.all(servers.map(prepareBatch))
  const counts = await countPoints(batches[0]!, chosen)
  const rows: Row[] = chosen.map(fault => ({ fault, points: counts.get(fault)!, verdicts: [] }))
  const points = rows
    .flatMap((row, i) =>
      // Each fault starts elsewhere, so that together they touch every point also when some are left out.
      Array.from({ length: row.points }, (_, n) => n + 1)
        .filter(n => n % every === i % every)
        .map(n => ({ row, n })),
    )
    // In no order, so that what is known after half of the time is known of all faults.
    .sort(() => Math.random() - 0.5)
  console.log(`${points.length} points of ${chosen.length} faults, in a batch of five revisions.`)
  const total = points.length
  await Promise.all(batches.map(batch => walk(batch, points, total)))
  const tried = total - points.length
  const minutes = Math.round((Date.now() - started) / 60_000)
  console.log(`\n${table(rows)}\n\n${tried} points in ${minutes} minutes, PostgreSQL ${servers[0]!.version}.`)
  if (points.length > 0) console.log(`${points.length} more points were not tried in time.`)
  if (!allIsWell(rows)) console.log('A promise did not hold: see above.')
  if (points.length > 0 || !allIsWell(rows)) process.exitCode = 1
} finally {
  await Promise.all(servers.map(server => server.stop()))
}

async function walk(batch: Batch, points: { row: Row; n: number }[], total: number): Promise<void> {
  while (points.length > 0 && Date.now() < deadline) {
    const { row, n } = points.shift()!
    const verdict = await strike(batch, row.fault, n)
    row.verdicts.push(verdict)
    if (!verdict || isBad(verdict)) tell(`${row.fault.name}, point ${n} of ${row.points}`, verdict)
    const done = total - points.length
    if (done % 50 === 0) console.log(`${done} of ${total}`)
  }
}

function tell(where: string, verdict: Verdict | undefined): void {
  if (!verdict) return console.log(`\n✗ ${where}: never reached\n`)
  const { holds, falseWords, left, step } = verdict
  console.log(`\n✗ ${where}: the database holds the ${holds}`)
  for (const each of [...falseWords, ...left]) console.log(`  ${each}`)
  console.log(step.log.replaceAll(/^/gm, '  | '))
}
