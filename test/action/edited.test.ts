import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { type GitHub, startGitHub } from '../support/github.mts'
import { writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

const scripts = ['a1', 'b2', 'c3'].map(id => ({ id, upgrade: `op.execute("CREATE TABLE t_${id} (id int)")` }))
const told = 'Scripts that the base branch has are not the same here. Databases that ran them will not run them again:'

let folder: string
let github: GitHub
beforeEach(async () => {
  github = await startGitHub()
  folder = writeProject({ scripts })
  writeFileSync(join(folder, '.gitignore'), '__pycache__/\n')
  git('init', '-q', '-b', 'main')
  commit()
  git('checkout', '-q', '-b', 'change')
})
afterEach(() => github.stop())

function git(...args: string[]): string {
  const who = ['-c', 'user.name=A', '-c', 'user.email=a@example.com', '-c', 'commit.gpgsign=false']
  return execFileSync('git', [...who, ...args], { cwd: folder, encoding: 'utf8', stdio: 'pipe' }).trim()
}

function commit(): void {
  git('add', '-A')
  git('commit', '-q', '--allow-empty', '-m', 'change')
}

const pathOf = (id: string): string => join(folder, 'migrations/versions', `${id}.py`)
const change = (id: string, edit: (text: string) => string): void =>
  writeFileSync(pathOf(id), edit(readFileSync(pathOf(id), 'utf8')))

/** A preview in an event whose pull request leads to main. */
function preview(url = '', inputs: Record<string, string> = {}, name = 'pull_request'): Promise<Step> {
  const event = { name, payload: { pull_request: { number: 7, base: { sha: git('rev-parse', 'main') } } } }
  return start(folder, url, inputs, { github: github.url, event })
}

const warned = ({ commands }: Step): string[] =>
  commands.filter(({ name }) => name === 'warning').map(({ text }) => text)

describe('Scripts that the base branch has and that are not the same here are named', () => {
  test('in comment, summary and log, although there is nothing else to do', async () => {
    change('a1', text => text.replace('t_a1', 't_other'))
    commit()
    const step = await preview()
    expect(step.outputs, step.log).toMatchObject({ outcome: 'up-to-date', pending: '0' })
    expect(warned(step)).toEqual([`${told}\na1 is changed (migrations/versions/a1.py)`])
    for (const text of [github.comments.get(7)![0]!.body, step.summary]) {
      expect(text).toContain(`> [!WARNING]\n> ${told}\n> - \`a1\` is changed (\`migrations/versions/a1.py\`)\n`)
    }
    // Taken back.
    change('a1', text => text.replace('t_other', 't_a1'))
    commit()
    expect(warned(await preview())).toEqual([])
    expect(github.comments.get(7)![0]!.body).not.toContain('WARNING')
  })

  test('with a database that is behind, and on the merge commit that GitHub checks out', async () => {
    rmSync(pathOf('c3'))
    change('b2', text => `${text}\n`)
    commit()
    git('checkout', '-q', 'main')
    git('commit', '-q', '--allow-empty', '-m', 'main moves on')
    git('merge', '-q', '--no-ff', '-m', 'merge', 'change')
    const step = await start(
      folder,
      await createDatabase(),
      {},
      {
        github: github.url,
        event: {
          name: 'pull_request',
          payload: { pull_request: { number: 7, base: { sha: git('rev-parse', 'main^1') } } },
        },
      },
    )
    expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', pending: '2' })
    expect(warned(step)).toEqual([
      `${told}\nb2 is changed (migrations/versions/b2.py)\nc3 is gone (migrations/versions/c3.py)`,
    ])
  })
})

describe('Nothing is said', () => {
  test('of scripts that moved, of other line ends, of new ones, and of other projects', async () => {
    git('checkout', '-q', 'main')
    const other = join(folder, 'other/versions')
    mkdirSync(other, { recursive: true })
    writeFileSync(join(other, 'zz.py'), 'revision = "zz"\ndown_revision = None\n')
    commit()
    git('checkout', '-q', '-b', 'second')
    rmSync(join(other, 'zz.py'))
    change('a1', text => text.replaceAll('\n', '\r\n'))
    renameSync(pathOf('b2'), join(folder, 'migrations/versions/2026_b2.py'))
    change('c3', text => text.replaceAll('\n', '\r'))
    renameSync(join(folder, 'migrations'), join(folder, 'db'))
    const more = writeProject({ scripts: [{ ...scripts[0]!, id: 'd4', down: 'c3' }] })
    writeFileSync(join(folder, 'db/versions/d4.py'), readFileSync(join(more, 'migrations/versions/d4.py')))
    commit()
    const step = await preview('', { directory: 'db', 'from-revision': 'c3' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', revisions: '["d4"]' })
    expect(warned(step)).toEqual([])
    expect(step.log).not.toContain('is not known')
  })

  test('where the checkout is the base itself', async () => {
    git('checkout', '-q', 'main')
    change('a1', text => `${text}\n`)
    commit()
    expect(warned(await preview('', { 'from-revision': 'base' }, 'pull_request_target'))).toEqual([])
  })

  test('by an apply, and where no pull request is', async () => {
    change('a1', text => `${text}\n`)
    commit()
    expect(warned(await preview(await createDatabase(), { mode: 'apply' }))).toEqual([])
    const push = { name: 'push', payload: {} }
    const step = await start(folder, '', { 'from-revision': 'base', comment: 'false' }, { event: push })
    expect(step.outputs.outcome).toBe('previewed')
    expect(warned(step)).toEqual([])
    expect(step.log).not.toContain('is not known')
  })

  test.each([
    [
      'in a shallow clone',
      () => {
        const clone = mkdtempSync(join(tmpdir(), 'atomic-upgrade-clone-'))
        execFileSync('git', ['clone', '-q', '--depth', '1', '-b', 'change', `file://${folder}`, clone], {
          stdio: 'pipe',
        })
        return clone
      },
      'The clone is too shallow',
    ],
    [
      'without git',
      () => {
        rmSync(join(folder, '.git'), { recursive: true })
        return folder
      },
      'not a git repository',
    ],
  ])('%s, but for a line in the log', async (_, arrange, why) => {
    change('a1', text => `${text}\n`)
    commit()
    const event = {
      name: 'pull_request',
      payload: { pull_request: { number: 7, base: { sha: git('rev-parse', 'main') } } },
    }
    const step = await start(arrange(), '', { 'from-revision': 'base', comment: 'false' }, { event })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'failure-reason': '' })
    expect(warned(step)).toEqual([])
    expect(step.log).toMatch(new RegExp(`Whether scripts of the base branch were edited is not known: .*${why}`, 's'))
  })
})
