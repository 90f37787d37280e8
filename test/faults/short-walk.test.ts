import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Server, startServer } from '../support/postgres.mts'
import { type Batch, prepareBatch } from './batch.mts'
import { faultNamed } from './faults.mts'
import { strike } from './walk.mts'

let server: Server
let batch: Batch

beforeAll(async () => {
  // A server of its own, since it is made to crash.
  server = await startServer()
  batch = await prepareBatch([server])
})
afterAll(() => server.stop())

const moments = {
  'while the heads are read': /^SELECT version_num/,
  'as the gate opens': /FROM pg_catalog.pg_settings WHERE name = ANY/,
  'in the third revision': /copy-of-bob/,
  'at the last statement before the COMMIT': /; RESET ALL; /,
  'at the COMMIT': /^COMMIT$/,
}

/**
 * What the database holds after a fault at a moment; `script/faults` walks every point. Crashes of the server at the
 * COMMIT are in test/action/lost-commit.test.ts.
 */
const short: [fault: string, moment: keyof typeof moments, holds: 'old' | 'new', repeats?: number][] = [
  ['connection cut, request lost', 'while the heads are read', 'old'],
  ['server crashes behind an answer', 'as the gate opens', 'old'],
  ['connection cut, answer lost', 'in the third revision', 'old'],
  ['connection reset, request lost', 'at the last statement before the COMMIT', 'old'],
  ['answer stalled, then goes on', 'at the COMMIT', 'new'],
  ['stalled until the step is cancelled', 'in the third revision', 'old'],
  ['action gets SIGINT, as GitHub cancels', 'at the last statement before the COMMIT', 'old'],
  // Whether the signal or the answer is noticed first is chance.
  ['action gets SIGINT, together with an answer', 'at the last statement before the COMMIT', 'old', 1],
  ['action gets SIGTERM', 'at the COMMIT', 'new'],
  ['action gets SIGKILL', 'in the third revision', 'old'],
  ['action gets SIGKILL', 'at the COMMIT', 'new'],
  ['user’s Python gets SIGKILL', 'in the third revision', 'old'],
]

for (const [fault, moment, holds, repeats = 0] of short) {
  test(`${fault}, ${moment}: all ${holds}`, { repeats }, async () => {
    const verdict = await strike(batch, faultNamed(fault), ({ sql }) => moments[moment].test(sql))
    expect(verdict, 'the moment never came').toBeDefined()
    expect(verdict, verdict?.step.log).toMatchObject({ holds, falseWords: [], left: [] })
  })
}
