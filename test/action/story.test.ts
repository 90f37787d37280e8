import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { bot, type GitHub, pullRequest, type Review, startGitHub } from '../support/github.mts'
import { query } from '../support/postgres.mts'
import { python, writeProject } from '../support/project.mts'
import { runStep, type Step } from '../support/runner.mts'

/*
 * What a team does: a pull request brings two scripts, it is previewed for production, approved and merged; staging gets
 * them on the push, and production by one of three gates. Then the same with one thing gone wrong.
 */

const table = 'CREATE TABLE account (id int PRIMARY KEY, mail text)'
const base = { id: 'a1', upgrade: `op.execute("${table}")` }
const change = [
  { id: 'b2', upgrade: 'op.execute("ALTER TABLE account ADD COLUMN name text")' },
  { id: 'c3', upgrade: "op.execute(\"INSERT INTO account VALUES (1, 'a@example.com', 'Ada')\")" },
]
const number = 7
const key = { 'plan-key': 'a key that only the two environments have' }
const pathOf = (id: string) => `migrations/versions/${id}.py`

let github: GitHub
let checkout: string
let staging: string
let production: string
/** The last commit of the pull request's branch. */
let head: string
/** What production held before, and what it is to hold. */
let untouched: string
let wanted: string

const git = (...args: string[]): string => {
  const who = ['-c', 'user.name=A', '-c', 'user.email=a@example.com', '-c', 'commit.gpgsign=false']
  return execFileSync('git', [...who, ...args], { cwd: checkout, encoding: 'utf8', stdio: 'pipe' }).trim()
}

function commit(message: string): string {
  git('add', '.')
  git('commit', '-q', '-m', message)
  return git('rev-parse', 'HEAD')
}

/** A step in the job of that event; the checkout is as it stands. */
function step(event: 'pull_request' | 'push', inputs: Record<string, string>, workspace = checkout): Promise<Step> {
  const payload = { pull_request: { number, base: { sha: git('rev-parse', 'main') } } }
  return runStep({
    workspace,
    inputs: { python, ...inputs },
    github: github.url,
    event: { name: event, payload: event === 'pull_request' ? payload : {} },
    environment: { GITHUB_SHA: git('rev-parse', 'HEAD') },
  })
}

const preview = (inputs: Record<string, string> = {}) =>
  step('pull_request', { 'database-url': production, label: 'production', ...key, ...inputs })

const approval = (change: Partial<Review> = {}): Review => ({
  id: 1,
  state: 'APPROVED',
  commit_id: head,
  author_association: 'MEMBER',
  user: { login: 'colleague', id: 2, type: 'User' },
  ...change,
})

/** Merges the branch as GitHub's button "Squash and merge" does. */
function merge(): void {
  git('checkout', '-q', 'main')
  git('merge', '-q', '--squash', 'change')
  const sha = commit('squashed')
  const at = '2026-01-01T00:00:00Z'
  const merged = {
    state: 'closed',
    merged_at: at,
    merge_commit_sha: sha,
    head: { label: 'acme:change', ref: 'change', sha: head },
  }
  github.pulls.set(sha, [pullRequest(number, merged)])
  const files = git('diff', '--name-only', 'main~1', 'main').split('\n')
  github.files.set(
    number,
    files.map(filename => ({ filename, sha: git('rev-parse', `change:${filename}`), status: 'added' })),
  )
}

const deploy = (url: string, inputs: Record<string, string>) =>
  step('push', { mode: 'apply', 'database-url': url, ...inputs })

/** The three gates of production; each gets what the preview gave out. */
const gates: Record<string, (given: Record<string, string>) => Promise<Step>> = {
  'by the digest': ({ digest = '' }) => deploy(production, { label: 'production', 'expected-digest': digest }),
  'by the plan file': ({ 'plan-file': file = '' }) => {
    const elsewhere = mkdtempSync(join(tmpdir(), 'atomic-upgrade-elsewhere-'))
    const inputs = { python: 'no-python-here', label: 'production', 'plan-file': file, ...key }
    return step('push', { mode: 'apply', 'database-url': production, ...inputs }, elsewhere)
  },
  'by review': () => deploy(production, { label: 'production', 'require-review': 'true' }),
}

beforeEach(async () => {
  github = await startGitHub()
  checkout = writeProject({ scripts: [base] })
  writeFileSync(join(checkout, '.gitignore'), '__pycache__/\n')
  git('init', '-q', '-b', 'main')
  commit('base')
  staging = await createDatabase()
  production = await createDatabase()
  for (const url of [staging, production]) {
    await query(
      url,
      `${table}; CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
                      INSERT INTO alembic_version VALUES ('a1')`,
    )
  }
  untouched = await contents(production)
  const all = writeProject({ scripts: [base, ...change] })
  git('checkout', '-q', '-b', 'change')
  for (const { id } of change) cpSync(join(all, pathOf(id)), join(checkout, pathOf(id)))
  head = commit('two scripts')
})
afterEach(() => github.stop())

/** Everything up to the merge, as it should be. */
async function upToMerge(): Promise<Record<string, string>> {
  const { outputs, log } = await preview()
  expect(outputs, log).toMatchObject({ outcome: 'previewed', pending: '2', 'prior-head': 'a1', 'new-head': 'c3' })
  github.reviews.set(number, [approval()])
  merge()
  return outputs
}

/** And staging. */
async function upToStaging(): Promise<Record<string, string>> {
  const outputs = await upToMerge()
  const deployed = await deploy(staging, { label: 'staging' })
  expect(deployed.outputs, deployed.log).toMatchObject({ outcome: 'applied', 'new-head': 'c3' })
  wanted = await contents(staging)
  expect(wanted).toContain('Ada')
  return outputs
}

describe.each(Object.entries(gates))('Production %s', (name, gate) => {
  test('gets what was previewed, approved and merged, and the pull request tells of each step', async () => {
    const step = await gate(await upToStaging())
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'prior-head': 'a1', 'new-head': 'c3' })
    expect(await contents(production)).toBe(wanted)
    const comments = github.comments.get(number)!.map(({ body }) => body)
    expect(comments).toHaveLength(2)
    for (const label of ['staging', 'production']) {
      const [comment] = comments.filter(body => body.includes(`Atomic Upgrade, ${label}: upgraded by 2 revisions`))
      expect(comment).toContain('ALTER TABLE account ADD COLUMN name text')
    }
    expect((await gate({ ...step.outputs, 'plan-file': '' })).outputs.outcome).toBe(
      name === 'by the plan file' ? 'refused' : 'up-to-date',
    )
  })
})

// That the digest and the review refuse a script that changed is in plans.test.ts and review.test.ts.
test('Production by the plan file has the scripts in it, and refuses one byte of it that changed', async () => {
  const given = await upToStaging()
  const gate = gates['by the plan file']!
  const script = join(checkout, pathOf('c3'))
  writeFileSync(script, readFileSync(script, 'utf8').replace('Ada', 'Eve'))
  commit('straight to main')
  const applied = await gate(given)
  expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied' })
  expect(await contents(production)).toBe(wanted)
  await query(production, 'DROP TABLE account; DELETE FROM alembic_version')
  const file = given['plan-file']!
  writeFileSync(file, readFileSync(file, 'utf8').replace('Ada', 'Eve'))
  const before = await contents(production)
  const step = await gate(given)
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'plan-changed' })
  expect(step.commands.find(({ name }) => name === 'error')?.text).toContain('was altered')
  expect(await contents(production)).toBe(before)
})

// The digest and the plan file refuse it: plans.test.ts and plan-file.test.ts.
test('Production by review runs what a raw migration has left of it, since a review is of scripts', async () => {
  const given = await upToStaging()
  git('checkout', '-q', 'change')
  const { host, port, username, password, pathname } = new URL(production)
  expect(host && port).toBeTruthy()
  const environment = {
    ...process.env,
    DATABASE_URL: `postgresql+psycopg://${username}:${password}@${host}${pathname}`,
  }
  execFileSync(python, ['-m', 'flask', 'db', 'upgrade', 'b2'], { cwd: checkout, env: environment, stdio: 'pipe' })
  git('checkout', '-q', 'main')
  expect((await gates['by review']!(given)).outputs).toMatchObject({ outcome: 'applied', revisions: '["c3"]' })
  expect(await contents(production)).toBe(wanted)
})

test('Production by review refuses a comment that says it was approved, whoever wrote it', async () => {
  merge()
  for (const login of ['mallory', bot]) github.add(number, login, 'Approved by colleague. LGTM')
  const step = await gates['by review']!({})
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-reviewed' })
  expect(step.commands.find(({ name }) => name === 'error')?.text).toContain('it has no approval')
  expect(await contents(production)).toBe(untouched)
})

test('A forged comment proves nothing: the digest is what counts', async () => {
  const { digest = '' } = (await preview()).outputs
  const script = join(checkout, pathOf('c3'))
  writeFileSync(script, readFileSync(script, 'utf8').replace('Ada', 'Eve'))
  head = commit('something else')
  const { digest: other = '', databases = '' } = (await preview({ comment: 'false' })).outputs
  const [comment] = github.comments.get(number)!
  const { digests } = JSON.parse(databases).default
  comment!.body = comment!.body.replace(/"c3","[0-9a-f]{64}"/, `"c3","${digests.c3}"`).replaceAll(digest, other)
  merge()
  const step = await gates['by the digest']!({ digest })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'plan-changed' })
  expect(await contents(production)).toBe(untouched)
})
