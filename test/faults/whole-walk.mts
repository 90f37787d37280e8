/**
 * Walks every point of every fault and prints the table; exits with 1 when a promise did not hold. `--every N` tries
 * only each N-th point, `--only TEXT` only the faults whose names hold the text.
 */
import { parseArgs } from 'node:util'
import { startServer } from '../support/postgres.mts'
import { type Batch, prepareBatch } from './batch.mts'
import { faults } from './faults.mts'
import { allIsWell, type Row, table } from './table.mts'
import { isBad, type Verdict } from './verdict.mts'
import { countPoints, strike } from './walk.mts'

const { values } = parseArgs({
  options: { every: { type: 'string', default: '1' }, only: { type: 'string', default: '' } },
})
const every = Number(values.every)
const chosen = faults.filter(({ name }) => name.includes(values.only))

// A crash of the server must not hit another walker's run.
const servers = await Promise.all([startServer(), startServer()])
try {
  const batches = await Promise.all(servers.map(prepareBatch))
  const counts = await countPoints(batches[0]!, chosen)
  const rows: Row[] = chosen.map(fault => ({ fault, points: counts.get(fault)!, verdicts: [] }))
  const points = rows.flatMap((row, i) =>
    // Each fault starts elsewhere, so that together they touch every point also when some are left out.
    Array.from({ length: row.points }, (_, n) => n + 1)
      .filter(n => n % every === i % every)
      .map(n => ({ row, n })),
  )
  console.log(`${points.length} points of ${chosen.length} faults, in a batch of five revisions.`)
  const started = Date.now()
  const total = points.length
  await Promise.all(batches.map(batch => walk(batch, points, total)))
  console.log(`\n${table(rows)}\n\n${total} points in ${Math.round((Date.now() - started) / 60_000)} minutes.`)
  if (!allIsWell(rows)) {
    console.log('A promise did not hold: see above.')
    process.exitCode = 1
  }
} finally {
  await Promise.all(servers.map(server => server.stop()))
}

async function walk(batch: Batch, points: { row: Row; n: number }[], total: number): Promise<void> {
  for (let point = points.shift(); point; point = points.shift()) {
    const { row, n } = point
    const verdict = await strike(batch, row.fault, n)
    row.verdicts.push(verdict)
    if (!verdict || isBad(verdict)) tell(`${row.fault.name}, point ${n} of ${row.points}`, verdict)
    const done = total - points.length
    if (done % 50 === 0) console.log(`${done} of ${total}: ${row.fault.name}`)
  }
}

function tell(where: string, verdict: Verdict | undefined): void {
  if (!verdict) return console.log(`\n✗ ${where}: never reached\n`)
  const { holds, falseWords, left, step } = verdict
  console.log(`\n✗ ${where}: the database holds the ${holds}`)
  for (const each of [...falseWords, ...left]) console.log(`  ${each}`)
  console.log(step.log.replaceAll(/^/gm, '  | '))
}
