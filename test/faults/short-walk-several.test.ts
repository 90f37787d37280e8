import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Server, startServer } from '../support/postgres.mts'
import { type Batch, prepareBatch } from './batch.mts'
import { faultNamed } from './faults.mts'
import type { Verdict } from './verdict.mts'
import { strike } from './walk.mts'

let servers: Server[]
let batch: Batch

beforeAll(async () => {
  // Servers of its own, since they are made to crash.
  servers = await Promise.all([1, 2].map(() => startServer(['max_prepared_transactions = 10'])))
  batch = await prepareBatch(servers, 2)
})
afterAll(() => Promise.all(servers.map(server => server.stop())))

const moments = {
  'as a gate is opened': /atomic_upgrade\.pid/,
  'at the first PREPARE': /^PREPARE TRANSACTION '.*:0'$/,
  'at the second PREPARE': /^PREPARE TRANSACTION '.*:1'$/,
  'at the first COMMIT PREPARED': /^COMMIT PREPARED '.*:0'$/,
  'at the second COMMIT PREPARED': /^COMMIT PREPARED '.*:1'$/,
}

/** What two databases on two servers hold after a fault at a moment, once a plain second run has settled it; `script/faults` walks every point. */
const short: [fault: string, moment: keyof typeof moments, holds: Verdict['holds'], seen: Verdict['seen'][number][]][] =
  [
    ['connection cut, answer lost', 'as a gate is opened', 'old', ['old', 'old']],
    ['action gets SIGKILL', 'at the first PREPARE', 'old', ['old', 'prepared']],
    ['action gets SIGKILL', 'at the second PREPARE', 'old', ['prepared', 'prepared']],
    ['action gets SIGKILL', 'at the second COMMIT PREPARED', 'new', ['new', 'new']],
    ['connection cut, answer lost', 'at the second PREPARE', 'old', ['old', 'old']],
    ['connection cut, answer lost', 'at the first COMMIT PREPARED', 'new', ['new', 'new']],
    ['connection reset, request lost', 'at the first COMMIT PREPARED', 'new', ['new', 'new']],
    ['action gets SIGTERM', 'at the first PREPARE', 'new', ['new', 'new']],
    ['server crashes, request lost', 'at the second PREPARE', 'old', ['old', 'old']],
    ['server crashes, answer lost', 'at the first COMMIT PREPARED', 'new', ['new', 'new']],
    ['server crashes, request lost', 'at the second COMMIT PREPARED', 'new', ['new', 'new']],
  ]

for (const [fault, moment, holds, seen] of short) {
  test(`${fault}, ${moment}: all ${holds}`, async () => {
    const verdict = await strike(batch, faultNamed(fault), ({ sql }) => moments[moment].test(sql))
    expect(verdict, 'the moment never came').toBeDefined()
    expect(verdict, verdict?.step.log).toMatchObject({ holds, falseWords: [], left: [] })
    expect([...verdict!.seen].sort()).toEqual(seen)
  })
}
