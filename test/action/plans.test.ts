import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { type GitHub, startGitHub } from '../support/github.mts'
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

/** The one error of a step. */
function errorOf({ commands, log }: Step): Step['commands'][number] {
  const errors = commands.filter(({ name }) => name === 'error')
  expect(errors, log).toHaveLength(1)
  return errors[0]!
}

describe('With expected-digest', () => {
  let github: GitHub
  let url: string
  let untouched: string
  beforeEach(async () => {
    github = await startGitHub()
    url = await createDatabase()
    untouched = await contents(url)
  })
  afterEach(() => github.stop())

  const event = { name: 'pull_request', payload: { pull_request: { number: 7 } } }
  const step = (folder: string, inputs: Record<string, string>) =>
    start(folder, url, inputs, { github: github.url, event })

  async function expectRefused(refused: Step, ...words: string[]): Promise<void> {
    expect(refused.outputs, refused.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'plan-changed' })
    for (const word of words) expect(errorOf(refused).text).toContain(word)
    expect(await contents(url)).toBe(untouched)
  }

  test('what was shown is applied', async () => {
    const folder = writeProject({ scripts })
    const { digest = '' } = (await step(folder, {})).outputs
    const rehearsed = await step(folder, { mode: 'rehearse', 'expected-digest': digest })
    expect(rehearsed.outputs, rehearsed.log).toMatchObject({ outcome: 'rehearsed', digest })
    const applied = await step(folder, { mode: 'apply', 'expected-digest': digest })
    expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', digest })
    // Nothing to do is no failure, although that is another plan.
    const again = await step(folder, { mode: 'apply', 'expected-digest': digest })
    expect(again.outputs, again.log).toMatchObject({ outcome: 'up-to-date', 'failure-reason': '' })
  })

  test('one byte of one script is enough to be refused, by the name of its revision', async () => {
    const folder = writeProject({ scripts })
    const { digest = '' } = (await step(folder, {})).outputs
    change(folder, 'b2', text => text.replace('second', 'Second'))
    const refused = await step(folder, { mode: 'apply', 'expected-digest': digest })
    await expectRefused(refused, 'The batch is not the one that was expected: the script of revision b2 changed.')
    expect(errorOf(refused).properties.file).toBe('migrations/versions/b2.py')
    expect(errorOf(refused).text).toContain(refused.outputs.digest!)
    expect(refused.outputs.digest).not.toBe(digest)
    expect(github.written.at(-1)).toContain('refused, nothing ran')
    expect(github.written.at(-1)).toContain('the script of revision b2 changed')
  })

  test('what has come to the batch is named, and so are the heads', async () => {
    const folder = writeProject({ scripts })
    const { digest = '' } = (await step(folder, { revision: 'a1' })).outputs
    for (const mode of ['rehearse', 'apply']) {
      // Each of them writes its own plan into the comment.
      await step(folder, { revision: 'a1' })
      const refused = await step(folder, { mode, 'expected-digest': digest })
      await expectRefused(refused, 'expected: revision b2 came to it; it leads to b2 and not a1.')
    }
  })

  test('a migration that somebody ran in between is named', async () => {
    const folder = writeProject({ scripts })
    const { digest = '' } = (await step(folder, {})).outputs
    expect((await step(folder, { mode: 'apply', revision: 'a1', comment: 'false' })).outputs.outcome).toBe('applied')
    const refused = await step(folder, { mode: 'apply', 'expected-digest': digest })
    expect(refused.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'plan-changed', 'new-head': 'a1' })
    expect(errorOf(refused).text).toContain('revision a1 went from it; it starts from a1 and not base.')
    expect(await contents(url)).not.toContain('second')
  })

  test('without a comment, or with a forged one, only what the batch is now is told', async () => {
    const folder = writeProject({ scripts })
    const { digest = '' } = (await step(folder, {})).outputs
    change(folder, 'b2', text => text.replace('second', 'Second'))
    const told = 'expected. It is now the upgrade from base to b2 by revisions a1 and b2.'
    await expectRefused(await step(folder, { mode: 'apply', 'expected-digest': digest, comment: 'false' }), told)
    const [comment] = github.comments.get(7)!
    comment!.body = comment!.body.replace(/"a1","[0-9a-f]{64}"/, `"a1","${'0'.repeat(64)}"`)
    await expectRefused(await step(folder, { mode: 'apply', 'expected-digest': digest }), told)
  })
})
