import { existsSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'
import type { Step, StepOptions } from '../support/runner.mts'

let url: string
let before: string
beforeEach(async () => {
  url = await createDatabase()
  before = await contents(url)
})

const errors = ({ commands }: Step) => commands.filter(({ name }) => name === 'error').map(({ text }) => text)
const warnings = ({ commands }: Step) => commands.filter(({ name }) => name === 'warning').map(({ text }) => text)

const table = { id: 'a1', upgrade: 'op.execute("CREATE TABLE t (n int)")' }
const sleeping = { id: 'b2', upgrade: 'op.execute("SELECT pg_sleep(600)")' }
const applying = { mode: 'apply', comment: 'false' }

/** What a fault in any listener of the process would be, at a signal: thrown past everything that awaits. */
const thrower = (what: string) => ({
  NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(`process.on('SIGUSR2', () => { ${what} })`)}`,
})
const faults = {
  'an exception in a listener': 'throw new Error("a fault of ours")',
  'a rejection that nobody awaits, by what is no error': 'void Promise.reject(null)',
}

const isSleeping = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()`

describe('A fault of the action itself ends the step as internal, with everything rolled back and the outputs true:', () => {
  test.each(Object.entries(faults))('%s, while a statement runs', async (_, what) => {
    let pid = 0
    const options: Partial<StepOptions> = { environment: thrower(what), started: child => (pid = child) }
    const running = start(writeProject({ scripts: [table, sleeping] }), url, applying, options)
    while ((await query(url, isSleeping)).rowCount === 0) await pause(50)
    process.kill(pid, 'SIGUSR2')
    const step = await running
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'rolled-back',
      'failure-reason': 'internal',
      'prior-head': '',
      'new-head': '',
      revisions: '["a1","b2"]',
    })
    expect(step.exitCode).toBe(1)
    expect(errors(step)).toEqual([expect.stringMatching(/^(a fault of ours|null)\n.*\bas before\.\n.*please report/s)])
    expect(step.summary).toContain('failed, everything rolled back')
    expect(await contents(url)).toBe(before)
    expect(await leftovers(url)).toEqual([])
  })

  test('before anything runs', async () => {
    let pid = 0
    const folder = writeProject({
      scripts: [table],
      app: 'import time\nopen("imported", "w").close()\ntime.sleep(600)',
    })
    const environment = thrower(faults['an exception in a listener'])
    const running = start(folder, url, applying, { environment, started: child => (pid = child) })
    while (!existsSync(join(folder, 'imported'))) await pause(50)
    process.kill(pid, 'SIGUSR2')
    const step = await running
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'internal', 'new-head': '' })
    expect(step.exitCode).toBe(1)
    expect(await contents(url)).toBe(before)
  })
})

describe('What the runner takes away:', () => {
  const project = () => writeProject({ scripts: [table] })

  test('the reader of the log: applied all the same, with all outputs', async () => {
    const step = await start(project(), url, applying, {
      started: (_, child) => {
        child.stdout?.destroy()
        child.stderr?.destroy()
      },
    })
    expect(step.outputs).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
    expect(step.exitCode).toBe(0)
  })

  test.each([
    ['no such folder', '/dev/null/nowhere'],
    ['no room', '/dev/full'],
  ])('the file of the outputs, %s: an error that says so, and the log says the rest', async (_, path) => {
    const step = await start(project(), url, applying, { environment: { GITHUB_OUTPUT: path } })
    expect(step.exitCode).toBe(1)
    expect(errors(step)).toEqual([
      expect.stringMatching(/^The outputs could not be written: .*\nThe database is at a1\./s),
    ])
    expect(step.log).toContain('Outcome: applied. The database is at a1.')
  })

  test('the folder for files: no file, a warning, and applied', async () => {
    const environment = { RUNNER_TEMP: '/dev/null/nowhere' }
    const preview = await start(project(), url, { comment: 'false' }, { environment })
    expect(preview.outputs, preview.log).toMatchObject({ outcome: 'previewed', 'sql-file': '', 'plan-file': '' })
    expect(warnings(preview)).toEqual([
      expect.stringMatching(/^The file of the SQL could not be written: /),
      expect.stringMatching(/^The plan file could not be written: /),
    ])
    const step = await start(project(), url, applying, { environment })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'sql-file': '' })
    expect(step.exitCode).toBe(0)
  })

  test('the room for the summary: a warning, and applied', async () => {
    const step = await start(project(), url, applying, { environment: { GITHUB_STEP_SUMMARY: '/dev/full' } })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied' })
    expect(warnings(step)).toEqual([expect.stringContaining('The job summary could not be written')])
    expect(step.exitCode).toBe(0)
  })
})

describe('An event that cannot be read is one without a pull request:', () => {
  const file = (content: string) => {
    const path = join(mkdtempSync(join(tmpdir(), 'atomic-upgrade-event-')), 'event.json')
    writeFileSync(path, content)
    return path
  }
  const project = writeProject({ scripts: [table] })

  test.each([
    ['null', 'pull_request', file('null')],
    ['without an end', 'pull_request', '/dev/zero'],
    ['a workflow_run without its fields', 'workflow_run', file('{"workflow_run": {"head_repository": 1}}')],
  ])('%s', async (_, GITHUB_EVENT_NAME, GITHUB_EVENT_PATH) => {
    const environment = { GITHUB_EVENT_NAME, GITHUB_EVENT_PATH }
    const inputs = { 'from-revision': 'base', revision: 'base', 'allow-untrusted': 'true' }
    const step = await start(project, url, inputs, { environment })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'up-to-date', 'failure-reason': '' })
    expect(step.exitCode).toBe(0)
  })

  test('and where a stranger can have started it, the scripts do not run', async () => {
    const environment = { GITHUB_EVENT_PATH: file('null'), GITHUB_EVENT_NAME: 'pull_request_target' }
    const step = await start(project, url, applying, { environment })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'untrusted' })
  })
})
