import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { python, type Script, writeProject } from '../support/project.mts'
import { runStep, type Step } from '../support/runner.mts'

const first: Script = { id: 'a1', upgrade: 'op.execute("CREATE TABLE first (id int)")' }
const second: Script = { id: 'b2', upgrade: 'op.execute("CREATE TABLE second (at timestamptz DEFAULT now())")' }
const scripts = [first, second]

const scriptOf = (folder: string, id: string): string => join(folder, 'migrations', 'versions', `${id}.py`)

/** Rewrites a script's file. */
function change(folder: string, id: string, edit: (text: string) => string): void {
  const path = scriptOf(folder, id)
  writeFileSync(path, edit(readFileSync(path, 'utf8')))
}

const preview = (workspace: string, inputs: Record<string, string> = {}): Promise<Step> =>
  runStep({ workspace, inputs: { python, 'from-revision': 'base', comment: 'false', ...inputs } })

describe('The digest', () => {
  test('is the same wherever the project lies, with and without a database, whatever its line ends are', async () => {
    const [here, there] = [writeProject({ scripts }), writeProject({ scripts })]
    for (const id of ['a1', 'b2']) change(there, id, text => text.replaceAll('\n', '\r\n'))
    const url = await createDatabase()
    const steps = [await preview(here), await preview(there), await start(here, url, {}), await preview(here)]
    const { digest, databases } = steps[0]!.outputs
    expect(digest).toMatch(/^sha256:[0-9a-f]{64}$/)
    for (const { outputs, log } of steps) expect(outputs, log).toMatchObject({ outcome: 'previewed', digest })
    const sha256 = createHash('sha256')
      .update(readFileSync(scriptOf(here, 'b2')))
      .digest('hex')
    expect(JSON.parse(databases!).default.digests).toMatchObject({ b2: sha256 })

    const applied = await start(there, url, { mode: 'apply' })
    expect(applied.outputs).toMatchObject({ outcome: 'applied', digest, databases: expect.stringContaining(sha256) })
    const after = await start(there, url, { mode: 'apply' })
    expect(after.outputs).toMatchObject({ outcome: 'up-to-date', digest: expect.stringMatching(/^sha256:/) })
    expect(after.outputs.digest).not.toBe(digest)
  })

  test('changes with one byte of one script', async () => {
    const folder = writeProject({ scripts })
    const before = await preview(folder)
    change(folder, 'b2', text => text.replace('second', 'Second'))
    const after = await preview(folder)
    expect(after.outputs.digest).not.toBe(before.outputs.digest)
    const [was, is] = [before, after].map(({ outputs }) => JSON.parse(outputs.databases!).default.digests)
    expect(is).toEqual({ a1: was.a1, b2: expect.not.stringMatching(was.b2) })
  })

  test('is that of what runs: bytecode in __pycache__ is not taken for the script', async () => {
    const folder = writeProject({ scripts })
    const { outputs } = await preview(folder)
    // Bytecode that says of itself that it need not be held against its source.
    const compile = `import py_compile, sys
path = sys.argv[1]
source = open(path).read()
open(path, "w").write(source.replace("second", "smuggled"))
py_compile.compile(path, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
open(path, "w").write(source)`
    execFileSync(python, ['-c', compile, scriptOf(folder, 'b2')])
    const url = await createDatabase()
    const step = await start(folder, url, { mode: 'apply', comment: 'false' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', digest: outputs.digest })
    expect(await contents(url)).toContain('relation | public | second')
    expect(await contents(url)).not.toContain('smuggled')
  })

  test('holds until the script runs: one that changes after it was planned is refused, and everything is rolled back', async () => {
    const path = '__import__("pathlib").Path(__file__).with_name("b2.py")'
    const upgrade = `${first.upgrade}\nscript = ${path}\nscript.write_text(script.read_text().replace("second", "other"))`
    const folder = writeProject({ scripts: [{ ...first, upgrade }, second] })
    const url = await createDatabase()
    const before = await contents(url)
    const step = await start(folder, url, { mode: 'apply' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'plan-changed' })
    const [error] = step.commands.filter(({ name }) => name === 'error')
    expect(error?.text).toContain('The script of revision b2 has changed since the batch was planned.')
    expect(error?.properties.file).toBe('migrations/versions/b2.py')
    expect(await contents(url)).toBe(before)
  })
})
