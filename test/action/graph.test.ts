import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { start } from '../support/action.mts'
import { type Script, writeProject } from '../support/project.mts'

const script = (id: string, down: string | null, created: string, more: Partial<Script> = {}): Script => ({
  id,
  down,
  message: `do ${id}\n\nCreate Date: ${created} 09:00:00.000000\n`,
  upgrade: 'pass',
  ...more,
})

const attempt = async (folder: string) => {
  const step = await start(folder, '', { 'from-revision': 'base', comment: 'false' })
  return { step, error: step.commands.find(({ name }) => name === 'error')! }
}

test('several heads: which they are, with the new one annotated and both ways to mend it', async () => {
  const folder = writeProject({
    scripts: [
      script('a1', null, '2024-01-01'),
      script('b2', 'a1', '2024-01-03'),
      script('b3', 'b2', '2024-01-05'),
      script('c2', 'a1', '2024-01-04'),
    ],
  })
  const { step, error } = await attempt(folder)
  expect(step.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'multiple-heads' })
  expect(error.properties.file).toBe('migrations/versions/b3.py')
  expect(error.text).toContain(
    'The heads are c2 (do c2, migrations/versions/c2.py) and b3 (do b3, migrations/versions/b3.py).',
  )
  expect(error.text).toContain('down_revision = "c2" in migrations/versions/b2.py')
  expect(error.text).toContain('flask db merge -m "merge heads" c2 b3')
})

describe('A broken graph is said as such:', () => {
  test('two scripts of one id', async () => {
    const folder = writeProject({ scripts: [script('a1', null, '2024-01-01')] })
    cpSync(join(folder, 'migrations/versions/a1.py'), join(folder, 'migrations/versions/copy.py'))
    const { step, error } = await attempt(folder)
    expect(step.outputs['failure-reason']).toBe('render-failed')
    expect(error.text).toContain(
      'Two scripts have the revision id a1: migrations/versions/a1.py and migrations/versions/copy.py.',
    )
  })

  test('a missing parent', async () => {
    const { step, error } = await attempt(writeProject({ scripts: [script('a1', 'gone', '2024-01-01')] }))
    expect(step.outputs['failure-reason']).toBe('render-failed')
    expect(error.text).toContain(
      'Revision a1 (migrations/versions/a1.py) revises gone, and there is no script of that id.',
    )
    expect(error.properties.file).toBe('migrations/versions/a1.py')
  })

  test('a circle', async () => {
    const scripts = [
      script('a1', null, '2024-01-01'),
      script('b2', 'c3', '2024-01-02'),
      script('c3', 'b2', '2024-01-03'),
    ]
    const { step, error } = await attempt(writeProject({ scripts }))
    expect(step.outputs['failure-reason']).toBe('render-failed')
    expect(error.text).toContain('revise each other in a circle: b2, c3.')
  })
})
