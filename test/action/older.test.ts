import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { type GitHub, pullRequest, startGitHub } from '../support/github.mts'
import { query } from '../support/postgres.mts'
import { type Script, writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

/** Histories in which nobody has edited an older script, or somebody has; each ends with the batch, n9, by a review. */
let github: GitHub
let begun: string
let url: string
let folder: string
let empty: string

const git = (...args: string[]): string => {
  const who = ['-c', 'user.name=A', '-c', 'user.email=a@example.com', '-c', 'commit.gpgsign=false']
  return execFileSync('git', [...who, ...args], { cwd: folder, encoding: 'utf8', stdio: 'pipe' }).trim()
}
const path = (id: string): string => `migrations/versions/${id}.py`
const fileOf = (id: string): string => join(folder, path(id))
const commit = (): void => {
  git('add', '-A')
  git('commit', '-q', '--allow-empty', '-m', 'change')
}
const write = (id: string, down: Script['down'], module = ''): void => {
  const upgrade = `op.execute("CREATE TABLE t_${id} (id int)")`
  const project = writeProject({ scripts: [{ id, down: down ?? null, upgrade, module }] })
  cpSync(join(project, path(id)), fileOf(id))
  rmSync(project, { recursive: true })
}
const add = (id: string, down: Script['down'], module?: string): void => {
  write(id, down, module)
  commit()
}
const edit = (id: string, more = '# edited'): void =>
  writeFileSync(fileOf(id), `${readFileSync(fileOf(id), 'utf8')}\n${more}\n`)
const move = (id: string): void => renameSync(fileOf(id), fileOf(`${id}_moved`))

/** GitHub knows the tip as brought by a pull request that somebody has approved, with these scripts. */
function review(number: number, ids: string[]): void {
  const head = git('rev-parse', 'HEAD')
  const merged = { state: 'closed', merged_at: '2026-01-01T00:00:00Z' } as const
  github.pulls.set(head, [pullRequest(number, { ...merged, head: { label: 'acme:change', ref: 'change', sha: head } })])
  const files = ids.map(id => ({
    filename: path(id),
    sha: git('rev-parse', `HEAD:${path(id)}`),
    status: 'added' as const,
  }))
  github.files.set(number, files)
  const user = { login: 'colleague', id: 2, type: 'User' }
  github.reviews.set(number, [{ id: 1, state: 'APPROVED', commit_id: head, author_association: 'MEMBER', user }])
}

/** A branch adds h2 behind a1 while main adds s2 behind it; then it takes main in, and h2 goes behind s2. */
function repoint(how: 'merge' | 'fast-forward', more = () => {}): void {
  git('checkout', '-q', '-b', 'change')
  add('h2', 'a1')
  git('checkout', '-q', 'main')
  add('s2', 'a1')
  git('checkout', '-q', 'change')
  git('merge', '-q', '--no-edit', 'main')
  write('h2', 's2')
  commit()
  review(2, ['h2'])
  more()
  git('checkout', '-q', 'main')
  git('merge', '-q', how === 'merge' ? '--no-ff' : '--ff-only', '--no-edit', 'change')
}

beforeAll(async () => {
  github = await startGitHub()
  begun = await createDatabase()
  await query(begun, 'CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)')
  folder = empty = writeProject({ scripts: [] })
  git('init', '-q', '-b', 'main')
  writeFileSync(join(folder, '.gitignore'), '__pycache__/\n')
  mkdirSync(join(folder, 'migrations/versions'), { recursive: true })
  add('a1', null)
})
afterAll(() => github.stop())
beforeEach(async () => {
  for (const known of [github.pulls, github.files, github.reviews]) known.clear()
  folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-older-'))
  cpSync(empty, folder, { recursive: true })
  url = await createDatabase(begun)
})

/** Brings the batch, and puts the database at a head. */
async function deploy(head: string, newest = head): Promise<void> {
  await query(url, `INSERT INTO alembic_version VALUES ('${head}')`)
  add('n9', newest)
  review(9, ['n9'])
}

const step = (inputs: Record<string, string>): Promise<Step> =>
  start(folder, url, { mode: 'apply', comment: 'false', ...inputs }, { github: github.url })
const warned = ({ commands }: Step): string =>
  commands
    .filter(({ name }) => name === 'warning')
    .map(({ text }) => text)
    .join('\n')

async function expectApplied(inputs: Record<string, string> = {}): Promise<Step> {
  const applied = await step(inputs)
  expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'n9' })
  expect(warned(applied)).toBe('')
  return applied
}

async function expectRefused(id: string, ...others: string[]): Promise<void> {
  const before = await contents(url)
  const refused = await step({ 'require-review': 'true' })
  expect(refused.outputs, refused.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-reviewed' })
  const told = refused.commands.find(({ name }) => name === 'error')!.text
  expect(told).toContain(`Revision ${id} `)
  for (const other of others) expect(told).not.toContain(`Revision ${other} `)
  expect(await contents(url)).toBe(before)
}

async function expectNamed(id: string, ...others: string[]): Promise<void> {
  const rehearsed = await step({ mode: 'rehearse' })
  expect(rehearsed.outputs, rehearsed.log).toMatchObject({ outcome: 'rehearsed' })
  expect(warned(rehearsed)).toContain(`${id} (migrations/versions/`)
  for (const other of others) expect(warned(rehearsed)).not.toContain(`${other} (`)
}

describe('Nobody has edited an older script:', () => {
  test.each(['merge', 'fast-forward'] as const)('the head went behind what came to main meanwhile (%s)', async how => {
    repoint(how)
    await deploy('h2')
    const applied = await expectApplied({ 'require-review': 'true' })
    expect(applied.log).toContain('h2 (migrations/versions/h2.py)')
    expect(applied.log).not.toContain('s2 (')
  })

  test('one branch has brought two, and took main in between', async () => {
    repoint('merge', () => {
      add('h3', 'h2')
      review(3, ['h3', 'h2'])
    })
    await deploy('h2', 'h3')
    await expectApplied({ 'require-review': 'true' })
  })

  test('the merge itself has added the head', async () => {
    git('checkout', '-q', '-b', 'change')
    add('h2', 'a1')
    git('checkout', '-q', 'main')
    add('s2', 'a1')
    git('merge', '-q', '--no-ff', '--no-commit', 'change')
    add('m3', ['h2', 's2'])
    await deploy('m3')
    await expectApplied({ 'require-review': 'true' })
  })

  test('the head has got its id in a later commit', async () => {
    add('draft', 'a1')
    git('mv', path('draft'), path('h2'))
    write('h2', 'a1')
    commit()
    writeFileSync(fileOf('h2'), readFileSync(fileOf('h2'), 'utf8').replaceAll('h2', 'h3'))
    commit()
    await deploy('h3')
    await expectApplied({ 'require-review': 'true' })
  })
})

describe('Somebody has edited an older script:', () => {
  const hidden: Record<string, () => void> = {
    'and moved the head': () => {
      edit('s2')
      move('h2')
    },
    'and taken it out before': () => {
      const text = readFileSync(fileOf('s2'), 'utf8')
      rmSync(fileOf('s2'))
      commit()
      writeFileSync(fileOf('s2'), text)
      edit('s2')
      move('h2')
    },
    'in a merge with what had no head': () => {
      git('checkout', '-q', '-b', 'old', 'HEAD~2')
      git('merge', '-q', '--no-commit', '--no-ff', 'main')
      edit('s2')
      commit()
      git('checkout', '-q', '-B', 'main')
    },
  }
  test.each(Object.keys(hidden))('%s', async how => {
    repoint('merge')
    hidden[how]!()
    commit()
    await deploy('h2')
    await expectRefused('s2', 'a1')
  })
})

test('one that came below the head when the head was there needs a review, and moving the head is none', async () => {
  add('x2', 'a1')
  add('h3', 'x2')
  add('s2', 'a1')
  write('x2', 's2')
  commit()
  review(2, ['x2'])
  await deploy('h3')
  await expectRefused('s2', 'h3', 'a1')
  await expectNamed('s2', 'h3', 'a1')
  edit('s2')
  move('h3')
  commit()
  await expectRefused('s2', 'h3', 'a1')
})

test('a head that no commit brings tells nothing of the others', async () => {
  write('h2', 'a1')
  git('rm', '-q', '--cached', '-r', '--ignore-unmatch', path('h2'))
  writeFileSync(join(folder, '.git/info/exclude'), path('h2'))
  await deploy('h2')
  const rehearsed = await step({ mode: 'rehearse' })
  expect(rehearsed.outputs, rehearsed.log).toMatchObject({ outcome: 'rehearsed' })
  expect(warned(rehearsed)).toBe('')
  expect(rehearsed.log).toContain(
    'Whether older scripts were edited is not known: no commit of the history adds the script of h2.',
  )
  await expectRefused('a1')
})
