import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, inject, test } from 'vitest'
import { createDatabase } from '../support/action.mts'
import { query } from '../support/postgres.mts'
import { Stage } from './stage.mts'
import { tableOf, walk } from './walk.mts'

const {
  ATOMIC_UPGRADE_PROGRAMS: programs = '5000',
  ATOMIC_UPGRADE_FROM: from = '1',
  ATOMIC_UPGRADE_WRITE: write,
} = process.env

test('programs over two and three connections', async () => {
  const stage = await Stage.open({ raw: await createDatabase(), gate: await createDatabase() })
  const last = Number(from) + Number(programs) - 1
  const counts = await walk(stage, Number(from), last, played => console.log(`${played} of ${programs}`))
  await stage.close()
  const { version } = (await query(inject('postgres'), `SELECT current_setting('server_version') AS version`)).rows[0]
  const report = `${tableOf(counts)}\n\nPrograms ${from} to ${last}, PostgreSQL ${version}.`
  console.log(`\n${report}`)
  if (write) record(report)
  expect(counts.get('same')).toBeGreaterThan(0)
})

function record(report: string): void {
  const page = join(import.meta.dirname, '../../docs/gate.md')
  const [begin, end] = ['<!-- walk of connections -->', '<!-- /walk of connections -->']
  const [before, rest = ''] = readFileSync(page, 'utf8').split(begin)
  writeFileSync(page, `${before}${begin}\n\n${report}\n\n${end}${rest.split(end)[1]}`)
}
