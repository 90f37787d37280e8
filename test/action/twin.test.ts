import { expect, test } from 'vitest'
import { createDatabase, secondProject, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { flask } from '../support/project.mts'
import { withDriver } from '../support/shapes.mts'
import { anyDriver } from '../support/stack.mts'

test('the second history, one script of which reads the database, leaves what a raw `flask db upgrade` leaves', async () => {
  const [ours, raw] = [await createDatabase(), await createDatabase()]
  const step = await start(secondProject, ours, { mode: 'apply' })
  expect(step.outputs).toMatchObject({ outcome: 'applied', 'new-head': 'b7e0aa41d9c3', pending: '3' })
  const upgrade = await flask(secondProject, withDriver(raw, anyDriver), 'db', 'upgrade')
  expect(upgrade.failed, upgrade.output).toBe(false)
  expect(await contents(ours)).toBe(await contents(raw))
  expect(await contents(ours)).toContain('public.domains: {"name": "example.com", "accounts": 1, "account_limit": 100}')
})
