import { execFileSync } from 'node:child_process'
import { appendFileSync, cpSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { type GitHub, pullRequest, type Review, startGitHub } from '../support/github.mts'
import { query } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

const written = (ids: string[]) => ids.map(id => ({ id, upgrade: `op.execute("CREATE TABLE t_${id} (id int)")` }))
const scripts = written(['a1', 'b2', 'c3'])
const path = (id: string) => `migrations/versions/${id}.py`

let folder: string
let github: GitHub
let url: string
let head: string

const git = (...args: string[]): string => {
  const who = ['-c', 'user.name=A', '-c', 'user.email=a@example.com', '-c', 'commit.gpgsign=false']
  return execFileSync('git', [...who, ...args], { cwd: folder, encoding: 'utf8', stdio: 'pipe' }).trim()
}

/** Brings scripts to main by a pull request, as the button that was pressed on GitHub does. */
function merge(how: 'merge' | 'squash' | 'rebase', ids = ['b2'], all = writeProject({ scripts }), number = 7): void {
  git('checkout', '-q', '-B', 'change')
  for (const id of ids) cpSync(join(all, path(id)), join(folder, path(id)))
  git('add', ...ids.map(path))
  git('commit', '-q', '-m', 'change')
  head = git('rev-parse', 'HEAD')
  git('checkout', '-q', 'main')
  git('commit', '-q', '--allow-empty', '-m', 'main moves on')
  if (how === 'merge') git('merge', '-q', '--no-ff', '-m', 'merge', 'change')
  if (how === 'squash') {
    git('merge', '-q', '--squash', 'change')
    git('commit', '-q', '-m', 'squashed')
  }
  if (how === 'rebase') git('cherry-pick', 'change')
  // GitHub knows the commit that is on main, and for a merge the branch's own.
  const known = how === 'merge' ? head : git('rev-parse', 'HEAD')
  const pull = pullRequest(number, {
    state: 'closed',
    merged_at: '2026-01-01T00:00:00Z',
    head: { label: 'acme:change', ref: 'change', sha: head },
  })
  github.pulls.set(known, [pull])
  const blob = (id: string) => git('rev-parse', `change:${path(id)}`)
  github.files.set(
    number,
    ids.map(id => ({ filename: path(id), sha: blob(id), status: 'added' })),
  )
  github.reviews.set(number, [review()])
}

const review = (change: Partial<Review> = {}): Review => ({
  id: 1,
  state: 'APPROVED',
  commit_id: head,
  author_association: 'MEMBER',
  user: { login: 'colleague', id: 2, type: 'User' },
  ...change,
})

function apply(rule = 'true', inputs: Record<string, string> = {}): Promise<Step> {
  return start(folder, url, { mode: 'apply', 'require-review': rule, ...inputs }, { github: github.url })
}

async function expectRefused(step: Step, words: string): Promise<void> {
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-reviewed' })
  expect(step.exitCode).toBe(1)
  expect(step.commands.find(({ name }) => name === 'error')!.text).toContain(words)
  expect(await contents(url)).not.toContain('t_b2')
}

/** At the first revision. */
let begun: string
beforeAll(async () => {
  begun = await createDatabase()
  await query(
    begun,
    `CREATE TABLE t_a1 (id int); CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
     INSERT INTO alembic_version VALUES ('a1')`,
  )
})
beforeEach(async () => {
  github = await startGitHub()
  url = await createDatabase(begun)
  folder = writeProject({ scripts: scripts.slice(0, 1) })
  writeFileSync(join(folder, '.gitignore'), '__pycache__/\n')
  git('init', '-q', '-b', 'main')
  git('add', '.')
  git('commit', '-q', '-m', 'base')
})
afterEach(() => github.stop())

test.each(['merge', 'squash', 'rebase'] as const)('a script that was reviewed runs, merged by %s', async how => {
  merge(how)
  const step = await apply()
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'b2' })
})

test('in a private repository whoever could review it has a role, also one that is concealed from the token', async () => {
  merge('squash')
  for (const pull of [...github.pulls.values()].flat()) pull.base.repo.private = true
  github.reviews.set(7, [review({ author_association: 'NONE' })])
  const step = await apply()
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'b2' })
})

interface Fault {
  /** Done when the pull request that brought the script has been approved and merged. */
  arrange: (change: { file: string; number: number; merged: string }) => void
  /** Where nothing is asked about a pull request, or none is known. */
  of?: 'no pull request'
  words: string
}

const edit = (file: string) => appendFileSync(join(folder, file), '\n# one more line\n')
const author = { login: 'author', id: 1, type: 'User' }
const faults: Record<string, Fault> = {
  'no approval': { arrange: ({ number }) => github.reviews.delete(number), words: 'it has no approval' },
  'only a comment': {
    arrange: ({ number }) => github.reviews.set(number, [review({ state: 'COMMENTED' })]),
    words: 'it has no approval',
  },
  'an approval that was dismissed': {
    arrange: ({ number }) => github.reviews.set(number, [review({ state: 'DISMISSED' })]),
    words: 'it has no approval',
  },
  'an approval that was taken back': {
    arrange: ({ number }) => github.reviews.set(number, [review(), review({ id: 2, state: 'CHANGES_REQUESTED' })]),
    words: 'it has no approval',
  },
  'the author’s own': {
    arrange: ({ number }) => github.reviews.set(number, [review({ user: author })]),
    words: 'nobody but its author',
  },
  'a passer-by’s': {
    arrange: ({ number }) => github.reviews.set(number, [review({ author_association: 'NONE' })]),
    words: 'only by people without a role',
  },
  'an approval of an earlier commit: somebody pushed behind it': {
    arrange: ({ number }) => github.reviews.set(number, [review({ commit_id: 'c'.repeat(40) })]),
    words: 'its approval is not of its final head commit',
  },
  'a script that is not as it was approved': {
    arrange: ({ file, merged }) => {
      edit(file)
      git('commit', '-q', '-a', '-m', 'straight to main')
      github.pulls.set(git('rev-parse', 'HEAD'), github.pulls.get(merged)!)
    },
    words: 'another version of this script than will run',
  },
  'a commit that came without a pull request': {
    arrange: ({ merged }) => github.pulls.delete(merged),
    of: 'no pull request',
    words: 'no merged pull request has brought it',
  },
  'a pull request that is not merged': {
    arrange: ({ number, merged }) => github.pulls.set(merged, [pullRequest(number)]),
    of: 'no pull request',
    words: 'no merged pull request has brought it',
  },
  'a script that is not committed': {
    arrange: ({ file }) => {
      git('rm', '-q', '--cached', file)
      git('commit', '-q', '-m', 'forgotten')
    },
    of: 'no pull request',
    words: 'is not committed',
  },
  // The last one, since another one commits all that is changed.
  'a script changed in the checkout alone': {
    arrange: ({ file }) => edit(file),
    of: 'no pull request',
    words: 'another version of this script than will run',
  },
}

/** GitHub shows so much of an error. */
const halves = [Object.keys(faults).slice(0, 6), Object.keys(faults).slice(6)]

test.each(halves)('refused, the database untouched, and each script told: %s, %s, %s, %s, %s, %s', async (...names) => {
  const ids = ['a1', 'b2', ...names.map((_, at) => `fault${at}`)]
  const all = writeProject({ scripts: written(ids) })
  merge('squash', ['b2'], all)
  for (const [at, name] of names.entries()) {
    const [id, number] = [`fault${at}`, 20 + at]
    merge('squash', [id], all, number)
    faults[name]!.arrange({ file: path(id), number, merged: git('rev-parse', 'HEAD') })
  }
  const step = await apply()
  const lines = step.commands.find(({ name }) => name === 'error')!.text.split('\n')
  for (const [at, name] of names.entries()) {
    const { of, words } = faults[name]!
    const by = of ? '' : `pull request #${20 + at}: `
    const told = `Revision fault${at} (fault${at}), ${path(`fault${at}`)}: ${by}`
    const line = lines.find(each => each.includes(`Revision fault${at} `))
    expect(line, `${name}\n${step.log}`).toContain(told)
    expect(line, name).toContain(words)
  }
  expect(step.log).not.toContain('Revision b2 (b2), migrations')
  await expectRefused(step, 'Revision fault0')
})

test('every revision of the batch needs it: one that came without is named', async () => {
  merge('squash')
  const all = writeProject({ scripts })
  cpSync(join(all, path('c3')), join(folder, path('c3')))
  git('add', '.')
  git('commit', '-q', '-m', 'straight to main')
  const step = await apply()
  await expectRefused(step, 'Revision c3')
  expect(step.log).not.toContain('Revision b2 (b2), migrations')
})

test('scripts older than the adoption of the rule are exempt, and no others', async () => {
  const all = writeProject({ scripts: written(['a1', 'b2', 'c3', 'c33']) })
  merge('squash', ['b2', 'c3', 'c33'], all)
  github.files.set(7, github.files.get(7)!.slice(1))
  await expectRefused(await apply('true'), 'Revision b2')
  await expectRefused(await apply('since:b2'), 'Revision b2')
  const unknown = await apply('since:zz')
  expect(unknown.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'invalid-input' })
  expect((await apply('since:c3')).outputs).toMatchObject({ outcome: 'applied', 'new-head': 'c33' })
})

test('a merge that puts an approved version back behind its successor brings it anew', async () => {
  merge('squash')
  git('branch', 'old')
  edit(path('b2'))
  git('commit', '-q', '-a', '-m', 'mended')
  git('checkout', '-q', 'old')
  git('commit', '-q', '--allow-empty', '-m', 'something else')
  git('checkout', '-q', 'main')
  git('merge', '-q', '--no-ff', '--no-commit', '-s', 'ours', 'old')
  git('checkout', '-q', 'old', '--', path('b2'))
  git('commit', '-q', '-m', 'merged')
  await expectRefused(await apply(), `it was last changed by commit ${git('rev-parse', 'HEAD').slice(0, 12)}`)
  // Whoever brings such a merge by a pull request that was approved is as good as anybody.
  const [pull] = [...github.pulls.values()].flat()
  github.pulls.set(git('rev-parse', 'HEAD'), [pull!])
  expect((await apply()).outputs).toMatchObject({ outcome: 'applied', 'new-head': 'b2' })
})

test('nothing to do needs no review; a preview does not ask for one', async () => {
  expect((await apply()).outputs.outcome).toBe('up-to-date')
  merge('squash')
  github.reviews.clear()
  expect((await apply('true', { mode: 'preview' })).outputs.outcome).toBe('previewed')
})

test('a shallow clone says what to set', async () => {
  merge('squash')
  const clone = mkdtempSync(join(tmpdir(), 'atomic-upgrade-clone-'))
  execFileSync('git', ['clone', '-q', '--depth', '1', `file://${folder}`, clone], { stdio: 'pipe' })
  folder = clone
  const step = await apply()
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'invalid-input' })
  expect(step.log).toContain('fetch-depth: 0')
})

test('GitHub that cannot be asked is no review', async () => {
  merge('squash')
  github.fails = (_, at) => (at.endsWith('/pulls') ? 403 : undefined)
  const step = await apply()
  await expectRefused(step, 'GitHub could not be asked for the reviews')
  expect(step.log).toContain('pull-requests: read')
})
