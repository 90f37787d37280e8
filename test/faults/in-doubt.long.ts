import { expect, test } from 'vitest'
import { createDatabase, secondProject, start } from '../support/action.mts'
import { leftovers } from '../support/database.mts'
import { startProxy } from './proxy.mts'

test('a database that is gone after the COMMIT is asked for for a minute: in doubt', async () => {
  const url = await createDatabase()
  let gone = 0
  let asked = 0
  const proxy = await startProxy(
    url,
    ({ sql, direction, cut }) => {
      if (sql !== 'COMMIT' || direction !== 'down') return
      gone ||= Date.now()
      cut()
    },
    () => {
      if (gone) asked++
      return !gone
    },
  )
  const step = await start(secondProject, proxy.through(url), { mode: 'apply' })
  proxy.stop()
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'in-doubt',
    'failure-reason': 'commit-failed',
    'prior-head': '',
    'new-head': '',
  })
  expect(step.log).toMatch(
    /SELECT version_num FROM "alembic_version";.*SELECT pg_catalog.pg_xact_status\('\d+'::xid8\);/,
  )
  expect(Date.now() - gone).toBeGreaterThan(50_000)
  expect(asked).toBeGreaterThan(10)
  expect(await leftovers(url)).toEqual([])
})
