import pg from 'pg'

import { afterEach, beforeEach, expect, inject, test } from 'vitest'
import { Messages } from '../../src/postgres/messages.ts'

let client: pg.Client
let messages: Messages
beforeEach(async () => {
  client = new pg.Client({ connectionString: inject('postgres') })
  await client.connect()
  await client.query('BEGIN; CREATE TEMPORARY TABLE t (x text)')
  messages = new Messages(client, () => {})
})
afterEach(() => client.end())

test('Statements that the server reads as two are refused, and those behind them are not run', async () => {
  const sent = [
    messages.send(["INSERT INTO t VALUES ('a')", "INSERT INTO t VALUES ('b'); COMMIT; BEGIN", 'SELECT 1']),
    messages.send(['SELECT 2']),
  ]
  const [first, second] = await Promise.allSettled(sent)
  expect(first).toMatchObject({
    status: 'rejected',
    reason: { refused: { code: '42601' }, answered: [{ command: 'INSERT', rows: 1 }] },
  })
  expect(second).toMatchObject({ status: 'rejected', reason: { refused: { code: '25P02' }, answered: [] } })
  messages.close()
  await client.query('ROLLBACK')
})

test('Each statement has its answer, a comment too, and rows are passed by', async () => {
  const answers = await messages.send([
    "INSERT INTO t VALUES ('a'), ('b')",
    '-- nothing',
    'SELECT * FROM t, generate_series(1, 10000)',
    'COPY t TO STDOUT',
    '',
  ])
  expect(answers).toEqual([
    { command: 'INSERT', rows: 2 },
    { command: '', rows: null },
    { command: 'SELECT', rows: 20_000 },
    { command: 'COPY', rows: 2 },
    { command: '', rows: null },
  ])
  messages.close()
  expect((await client.query('SELECT count(*)::int AS n FROM t')).rows).toEqual([{ n: 2 }])
})
