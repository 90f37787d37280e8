import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Server, startServer } from '../support/postgres.mts'
import { type Batch, prepareBatch } from './batch.mts'
import { faultNamed } from './faults.mts'
import type { Passing } from './proxy.mts'
import type { Verdict } from './verdict.mts'
import { strike } from './walk.mts'

let server: Server
let batch: Batch

beforeAll(async () => {
  // A server of its own, since it is made to crash.
  server = await startServer()
  batch = await prepareBatch([server], 1, true)
})
afterAll(() => server.stop())

/** Where a fault strikes, which may be the second time that a statement passes. */
const moments = {
  'in the first segment': nth(1, /copy-of-bob/),
  'as the lock is looked at': nth(1, /^SELECT 1$/),
  'at the first COMMIT': nth(1, /^COMMIT$/),
  'behind the first COMMIT': nth(1, /pg_catalog.pg_get_indexdef/),
  'at the index': nth(1, /CREATE UNIQUE INDEX CONCURRENTLY/),
  'as the last segment begins': nth(1, /^BEGIN ISOLATION LEVEL READ COMMITTED; /, /CREATE UNIQUE INDEX CONCURRENTLY/),
  'in the last segment': nth(1, /DELETE FROM invoices/),
  'at the last COMMIT': nth(2, /^COMMIT$/),
}

/** Whether it is the n-th time that such a statement passes, or is answered, behind the first one of `after`. */
function nth(n: number, pattern: RegExp, after?: RegExp): () => (passing: Passing) => boolean {
  return () => {
    let isBehind = after === undefined
    let times = 0
    const last = new Map<number, string>()
    return ({ sql, connection }) => {
      isBehind ||= after!.test(sql)
      const isNew = last.get(connection) !== sql
      last.set(connection, sql)
      if (!isBehind || !pattern.test(sql)) return false
      if (isNew) times++
      return times === n
    }
  }
}

/** What the database holds after a fault at a moment; a plain second run finishes from there. */
const short: [fault: string, moment: keyof typeof moments, holds: Verdict['holds'], stop?: string][] = [
  ['connection cut, request lost', 'in the first segment', 'old'],
  ['connection cut, answer lost', 'as the lock is looked at', 'old'],
  ['server crashes, request lost', 'at the first COMMIT', 'old'],
  ['server crashes, answer lost', 'at the first COMMIT', 'new'],
  ['action gets SIGTERM', 'at the first COMMIT', 'between', 'first'],
  ['action gets SIGKILL', 'at the first COMMIT', 'between', 'first'],
  ['connection reset, request lost', 'behind the first COMMIT', 'between', 'first'],
  ['connection cut, request lost', 'at the index', 'between', 'first'],
  ['connection cut, answer lost', 'at the index', 'between', 'second'],
  ['server crashes behind an answer', 'at the index', 'between'],
  ['action gets SIGKILL', 'at the index', 'between'],
  ['connection cut, request lost', 'as the last segment begins', 'between', 'second'],
  ['action gets SIGINT, as GitHub cancels', 'in the last segment', 'between', 'second'],
  ['user’s Python gets SIGKILL', 'in the last segment', 'between', 'second'],
  ['server crashes, request lost', 'at the last COMMIT', 'between', 'second'],
  ['connection cut, answer lost', 'at the last COMMIT', 'new'],
]

for (const [fault, moment, holds, stop] of short) {
  test(`${fault}, ${moment}: ${stop ? `behind the ${stop} segment` : holds}`, async () => {
    const verdict = await strike(batch, faultNamed(fault), moments[moment]())
    expect(verdict, 'the moment never came').toBeDefined()
    expect(verdict, verdict?.step.log).toMatchObject({ holds, falseWords: [], left: [], ...(stop && { stop }) })
  })
}
