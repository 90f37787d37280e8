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
