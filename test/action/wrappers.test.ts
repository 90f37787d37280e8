import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { python, writeProject } from '../support/project.mts'
import { root, withPath } from '../support/runner.mts'

const bin = join(root, '.cache/wrappers/bin')

/** How each of them starts the Python of an environment that is there already, without asking a registry. */
const wrappers = {
  poetry: `${bin}/poetry run python`,
  uv: `${bin}/uv run --offline --no-sync --active python`,
}

/** The environment of the job: the one that has the packages is activated. */
const environment = { VIRTUAL_ENV: dirname(dirname(python)), PATH: withPath(dirname(python)) }

function project(upgrade: string): string {
  const folder = writeProject({ scripts: [{ id: 'a1', upgrade }] })
  const pyproject = ['[project]', 'name = "shop"', 'version = "0.1.0"', 'requires-python = ">=3.10"']
  writeFileSync(join(folder, 'pyproject.toml'), [...pyproject, '[tool.poetry]', 'package-mode = false', ''].join('\n'))
  return folder
}

describe.each(Object.entries(wrappers))('The input python with %s', (_, command) => {
  test('runs the batch in the environment that it chooses', async () => {
    const url = await createDatabase()
    const folder = project(`
import sys
op.execute("CREATE TABLE python AS SELECT '%s'::text AS prefix" % sys.prefix)`)
    const inputs = { python: command }
    const preview = await start(folder, url, inputs, { environment })
    expect(preview.outputs, preview.log).toMatchObject({ outcome: 'previewed', revisions: '["a1"]' })
    const applied = await start(folder, url, { ...inputs, mode: 'apply' }, { environment })
    expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
    expect(await contents(url)).toContain(`public.python: {"prefix": "${environment.VIRTUAL_ENV}"}`)
  })

  test.each(['SIGINT', 'SIGKILL'] as const)('ends with all that it has started when the step gets %s', async signal => {
    const url = await createDatabase()
    const before = await contents(url)
    const folder = project(`
import os, time
if not op.get_context().as_sql:
    op.execute("CREATE TABLE t (id int)")
    with open("running.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("running.new", "running")
    time.sleep(600)`)
    let step = 0
    const inputs = { python: command, mode: 'apply' }
    const running = start(folder, url, inputs, { environment, started: pid => (step = pid) })
    const mark = join(folder, 'running')
    while (!existsSync(mark)) await new Promise(resolve => setTimeout(resolve, 50))
    process.kill(step, signal)
    const { outputs, log } = await running
    if (signal === 'SIGINT')
      expect(outputs, log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'cancelled' })
    const script = Number(readFileSync(mark, 'utf8'))
    while (isRunning(script)) await new Promise(resolve => setTimeout(resolve, 50))
    while ((await leftovers(url)).length > 0) await new Promise(resolve => setTimeout(resolve, 50))
    expect(await contents(url)).toBe(before)
  })
})

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
