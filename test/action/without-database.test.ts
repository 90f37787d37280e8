import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { start } from '../support/action.mts'
import { type Script, writeProject } from '../support/project.mts'

const identity = ['-c', 'user.name=Test', '-c', 'user.email=test@example.com', '-c', 'commit.gpgsign=false']
const git = (folder: string, ...args: string[]) =>
  execFileSync('git', [...identity, ...args], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  }).trim()

const create = (id: string, more: Partial<Script> = {}): Script => ({
  id,
  upgrade: `op.execute("CREATE TABLE t_${id} (id int)")`,
  ...more,
})

/** A repository whose branch `main` has some scripts and whose checked-out branch `change` has more. */
function repository(base: Script[], change: Script[], edit: (folder: string) => void = () => {}): string {
  const folder = writeProject({ scripts: base })
  edit(folder)
  git(folder, 'init', '-q', '-b', 'main')
  git(folder, 'add', '.')
  git(folder, 'commit', '-qm', 'base')
  git(folder, 'checkout', '-qb', 'change')
  const more = writeProject({ scripts: [...base, ...change] })
  for (const { id } of change)
    cpSync(join(more, 'migrations/versions', `${id}.py`), join(folder, 'migrations/versions', `${id}.py`))
  git(folder, 'add', '.')
  git(folder, 'commit', '-q', '--allow-empty', '-m', 'change')
  return folder
}

/** As GitHub checks out a pull request: a merge commit of the base and the change. */
function merge(folder: string): void {
  git(folder, 'checkout', '-q', 'main')
  git(folder, 'commit', '-q', '--allow-empty', '-m', 'main moves on')
  git(folder, 'merge', '-q', '--no-ff', '-m', 'merge', 'change')
}

const event = (folder: string) => ({
  name: 'pull_request',
  payload: { pull_request: { number: 7, base: { sha: git(folder, 'rev-parse', 'main') } } },
})
const preview = (folder: string, payload?: object) =>
  start(
    folder,
    '',
    { comment: 'false' },
    payload ? { event: { name: 'pull_request', payload } } : { event: event(folder) },
  )

test('from the merge checkout of a pull request: the heads of its first parent', async () => {
  const folder = repository([create('a1'), create('b2')], [create('c3')])
  merge(folder)
  const step = await preview(folder, { pull_request: { number: 7 } })
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'previewed',
    'prior-head': 'b2',
    'new-head': 'c3',
    revisions: '["c3"]',
  })
})

test('from the branch itself: the heads at the merge base', async () => {
  const folder = repository([create('a1')], [create('b2'), create('c3')])
  const step = await preview(folder)
  expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'prior-head': 'a1', revisions: '["b2","c3"]' })
})

test('scripts with tuples, annotations, labels and dependencies, in a directory that has moved since', async () => {
  const base = [create('a1'), create('b2', { down: 'a1' }), create('c3', { down: 'a1' }), create('d4', { down: null })]
  const folder = repository(base, [], project => {
    const change = (id: string, edit: (text: string) => string) => {
      const path = join(project, 'migrations/versions', `${id}.py`)
      writeFileSync(path, edit(readFileSync(path, 'utf8')))
    }
    change('b2', text =>
      text
        .replace('revision = "b2"', 'revision: str = "b2"\nbranch_labels = ("left",)')
        .replace('down_revision = ', 'down_revision: str | None = '),
    )
    change('d4', text => `${text.replace('down_revision = None', 'down_revision = None\ndepends_on = "left"')}`)
    // Not an Alembic script of this project.
    writeFileSync(join(project, 'other.py'), 'revision = "zz"\ndown_revision = None\n')
  })
  const versions = join(folder, 'migrations/versions')
  const merged = create('e5', { down: 'b2' })
  const more = writeProject({ scripts: [merged] })
  const script = readFileSync(join(more, 'migrations/versions/e5.py'), 'utf8')
  writeFileSync(join(versions, 'e5.py'), script.replace('down_revision = "b2"', 'down_revision = ("b2", "c3")'))
  renameSync(join(folder, 'migrations'), join(folder, 'db'))
  git(folder, 'add', '.')
  git(folder, 'commit', '-qm', 'move and merge')
  expect(readdirSync(join(folder, 'db/versions'))).toContain('e5.py')
  const step = await start(
    folder,
    '',
    { comment: 'false', directory: 'db', revision: 'heads' },
    { event: event(folder) },
  )
  expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'prior-head': 'c3,d4', revisions: '["e5"]' })
})

test('a shallow clone: what to set on actions/checkout', async () => {
  const folder = repository([create('a1')], [create('b2')])
  const base = event(folder)
  const branch = mkdtempSync(join(tmpdir(), 'atomic-upgrade-shallow-'))
  execFileSync('git', ['clone', '-q', '--depth', '1', '-b', 'change', `file://${folder}`, branch])
  const alone = await start(branch, '', { comment: 'false' }, { event: base })
  expect(alone.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'invalid-input' })
  expect(alone.log).toContain('fetch-depth: 0')

  merge(folder)
  const merged = mkdtempSync(join(tmpdir(), 'atomic-upgrade-shallow-'))
  execFileSync('git', ['clone', '-q', '--depth', '1', `file://${folder}`, merged])
  expect((await start(merged, '', { comment: 'false' }, { event: base })).log).toContain('fetch-depth: 2')
  const deeper = mkdtempSync(join(tmpdir(), 'atomic-upgrade-shallow-'))
  execFileSync('git', ['clone', '-q', '--depth', '2', `file://${folder}`, deeper])
  expect((await start(deeper, '', { comment: 'false' }, { event: base })).outputs).toMatchObject({
    outcome: 'previewed',
    'prior-head': 'a1',
  })
})

test('without a checkout, or an event that names a base: what to give instead', async () => {
  const folder = repository([create('a1')], [])
  const push = await start(folder, '', { comment: 'false' }, { event: { name: 'push', payload: {} } })
  expect(push.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'invalid-input' })
  expect(push.log).toMatch(/names no base branch.*Give database-url, or from-revision/s)
  rmSync(join(folder, '.git'), { recursive: true })
  const bare = await start(folder, '', { comment: 'false' }, { event: { name: 'push', payload: {} } })
  expect(bare.log).toContain('There is no git checkout')
})

test('from-revision: ids, their prefixes, several, and base', async () => {
  const scripts = [
    create('a1a1'),
    create('b2b2', { down: 'a1a1' }),
    create('c3c3', { down: 'a1a1' }),
    create('d4d4', { down: 'b2b2' }),
  ]
  const folder = writeProject({ scripts })
  const from = async (revision: string) =>
    (await start(folder, '', { 'from-revision': revision, revision: 'heads' })).outputs
  expect(await from('base')).toMatchObject({ 'prior-head': '', pending: '4' })
  expect(await from('a1')).toMatchObject({ 'prior-head': 'a1a1', pending: '3' })
  expect(await from('c3c3, b2b2')).toMatchObject({ 'prior-head': 'b2b2,c3c3', revisions: '["d4d4"]' })
  expect(await from('zzzz')).toMatchObject({ outcome: 'refused', 'failure-reason': 'unknown-revision' })
})
