import { cpSync, existsSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createDatabase, secondProject, start } from '../support/action.mts'
import { root } from '../support/runner.mts'

test('action.yml and dist/ alone are the whole action: no node_modules around them', async () => {
  const action = mkdtempSync(join(tmpdir(), 'atomic-upgrade-dist-'))
  cpSync(join(root, 'action.yml'), join(action, 'action.yml'))
  cpSync(join(root, 'dist'), join(action, 'dist'), { recursive: true })
  expect(existsSync(join(action, 'node_modules'))).toBe(false)
  const step = await start(secondProject, await createDatabase(), { mode: 'apply' }, { action })
  expect(step.outputs.outcome, step.log).toBe('applied')
})

test('outputs that cannot be written: the step fails in words, and the log says what the database holds', async () => {
  const environment = { GITHUB_OUTPUT: '/nowhere/output' }
  const step = await start(secondProject, await createDatabase(), { mode: 'apply' }, { environment })
  expect(step.exitCode).toBe(1)
  expect(step.commands.filter(({ name }) => name === 'error').map(({ text }) => text)).toEqual([
    'The outputs could not be written: Missing file at path: /nowhere/output\nThe database is at b7e0aa41d9c3.',
  ])
  expect(step.log).toContain('Outcome: applied. ')
  expect(step.log).not.toContain('    at ')
})
