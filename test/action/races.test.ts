import { expect, test } from 'vitest'
import { createDatabase, secondProject, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'

test('eight applies at once: one applied, seven up to date, each revision’s data once', async () => {
  const url = await createDatabase()
  const steps = await Promise.all(Array.from({ length: 8 }, () => start(secondProject, url, { mode: 'apply' })))
  expect(steps.map(step => step.outputs.outcome).sort()).toEqual(['applied', ...Array(7).fill('up-to-date')])
  for (const step of steps) {
    expect(step.exitCode).toBe(0)
    expect(step.outputs).toMatchObject({ 'new-head': 'b7e0aa41d9c3', 'failure-reason': '' })
    expect(step.outputs.pending).toBe(step.outputs.outcome === 'applied' ? '3' : '0')
  }
  const { rows } = await query(url, 'SELECT count(*)::int AS n, count(DISTINCT email)::int AS d FROM accounts')
  expect(rows).toEqual([{ n: 3, d: 3 }])

  const alone = await createDatabase()
  await start(secondProject, alone, { mode: 'apply' })
  expect(await contents(url)).toBe(await contents(alone))
  expect(await leftovers(url)).toEqual([])
})
