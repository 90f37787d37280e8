import { execFileSync } from 'node:child_process'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { writeProject } from '../support/project.mts'

/** A repository whose app leaves a trace when it is imported, with a commit on the base and one of a pull request. */
let folder: string
let base: string
let head: string
const trace = () => join(folder, 'imported')
const script = () => join(folder, 'migrations', 'versions', 'a1.py')

function git(...args: string[]): string {
  const who = ['-c', 'user.name=A', '-c', 'user.email=a@example.com']
  return execFileSync('git', [...who, ...args], { cwd: folder, encoding: 'utf8' }).trim()
}

beforeAll(() => {
  folder = writeProject({
    scripts: [{ id: 'a1', upgrade: 'op.execute("CREATE TABLE a (id int)")' }],
    app: 'open("imported", "w").close()',
  })
  writeFileSync(join(folder, '.gitignore'), '__pycache__/\nimported\n')
  git('init', '-q', '-b', 'main')
  git('add', '.')
  git('commit', '-q', '-m', 'base')
  base = git('rev-parse', 'HEAD')
  writeFileSync(join(folder, 'setup.cfg'), 'anything')
  git('add', '.')
  git('commit', '-q', '-m', 'of the pull request')
  head = git('rev-parse', 'HEAD')
})

beforeEach(() => {
  git('checkout', '-q', '--force', base)
  git('clean', '-qfd')
  rmSync(trace(), { force: true })
})

const number = 7
const events: Record<string, object> = {
  pull_request_target: { number, pull_request: { number, base: { sha: '' } } },
  issue_comment: { issue: { number, pull_request: {} } },
  workflow_run: { workflow_run: { pull_requests: [{ number }] } },
  // Their payloads name commits that may be a fork's.
  ...Object.fromEntries(
    ['issues', 'discussion', 'discussion_comment', 'fork', 'watch', 'gollum'].map(name => [name, {}]),
  ),
  status: { sha: '' },
  check_run: { check_run: { head_sha: '' } },
  check_suite: { check_suite: { head_sha: '' } },
}

/** A step in an event of that name, in which GITHUB_SHA is the tip of the base. */
function run(name: string, inputs: Record<string, string> = {}, url = '') {
  const payload = JSON.parse(JSON.stringify(events[name] ?? {}).replaceAll('_sha":""', `_sha":"${head}"`))
  const environment = { GITHUB_SHA: base }
  return start(
    folder,
    url,
    { comment: 'false', 'from-revision': 'base', ...inputs },
    { event: { name, payload }, environment },
  )
}

test.each(['pull_request_target', 'workflow_run', 'check_suite'])('%s: a checkout of the base is run', async event => {
  const step = await run(event)
  expect(step.outputs.outcome, step.log).toBe('previewed')
  expect(existsSync(trace())).toBe(true)
})

describe.each(Object.keys(events))('%s', event => {
  test('a checkout of the pull request is not: nothing of it is even imported', async () => {
    git('checkout', '-q', head)
    const step = await run(event)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'untrusted' })
    expect(step.exitCode).toBe(1)
    expect(step.log).toContain(`the checked-out commit ${head.slice(0, 12)} is not known to be on the base branch`)
    expect(step.log).toContain('allow-untrusted: true')
    expect(existsSync(trace())).toBe(false)
  })
})

test('an apply is refused likewise, the database untouched', async () => {
  git('checkout', '-q', head)
  const url = await createDatabase()
  const before = await contents(url)
  const step = await run('issue_comment', { mode: 'apply', 'from-revision': '' }, url)
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'untrusted' })
  expect(await contents(url)).toBe(before)
})

test('allow-untrusted runs it all the same', async () => {
  git('checkout', '-q', head)
  const step = await run('pull_request_target', { 'allow-untrusted': 'true' })
  expect(step.outputs.outcome, step.log).toBe('previewed')
})

test('in an event without secrets the question does not arise', async () => {
  git('checkout', '-q', head)
  for (const event of ['pull_request', 'push', 'schedule']) {
    const step = await run(event)
    expect(step.outputs.outcome, step.log).toBe('previewed')
  }
})

test('a checkout of the base with a changed file is not the base', async () => {
  writeFileSync(script(), 'raise SystemExit("never")')
  const step = await run('workflow_run')
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'untrusted' })
  expect(step.log).toMatch(/not as it was committed \(M .*a1\.py\)/)
})

test('nor one with a script that was added to it', async () => {
  writeFileSync(script().replace('a1', 'b2'), 'raise SystemExit("never")')
  const step = await run('workflow_run')
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'untrusted' })
  expect(step.log).toMatch(/not as it was committed \(\?\? .*b2\.py\)/)
})
