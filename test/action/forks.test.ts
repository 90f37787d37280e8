import { cpSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getOctokit } from '@actions/github'
import MarkdownIt from 'markdown-it'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { parse } from 'yaml'
import { start } from '../support/action.mts'
import { bot, type GitHub, pullRequest, startGitHub } from '../support/github.mts'
import { type Script, writeProject } from '../support/project.mts'
import { root } from '../support/runner.mts'

/** The script of docs/recipes/forks-comment.yml. */
const recipe = parse(readFileSync(join(root, 'docs/recipes/forks-comment.yml'), 'utf8')) as {
  jobs: { comment: { steps: { uses: string; with: { script: string; path: string } }[] } }
}
const { script } = recipe.jobs.comment.steps.find(step => step.uses.startsWith('actions/github-script@'))!.with

let github: GitHub
beforeEach(async () => {
  github = await startGitHub()
  const head = { label: 'stranger:change', ref: 'change', sha: 'cafe' }
  github.proposed.set('stranger:change', [pullRequest(7, { head })])
})
afterEach(async () => {
  process.chdir(root)
  await github.stop()
})

/** Runs the script as actions/github-script does: the body of an async function of these arguments. */
async function comment(head_sha = 'cafe'): Promise<string[]> {
  const run = {
    head_repository: { owner: { login: 'stranger' }, full_name: 'stranger/shop' },
    head_branch: 'change',
    head_sha,
    html_url: 'https://github.com/acme/shop/actions/runs/1',
  }
  const told: string[] = []
  const names = ['github', 'context', 'core', 'require']
  const body = Object.getPrototypeOf(async () => {}).constructor(...names, script)
  await body(
    getOctokit('ghs_standin', { baseUrl: github.url }),
    { repo: { owner: 'acme', repo: 'shop' }, payload: { workflow_run: run } },
    { info: (text: string) => told.push(text) },
    createRequire(import.meta.url),
  )
  return told
}

/** What the artifact of a fork's preview leaves in the workspace of the second workflow. */
async function artifact(...scripts: Script[]): Promise<void> {
  const preview = await start(writeProject({ scripts }), '', { 'from-revision': 'base', comment: 'false' })
  expect(preview.outputs.outcome, preview.log).toBe('previewed')
  const workspace = mkdtempSync(join(tmpdir(), 'atomic-upgrade-fork-'))
  mkdirSync(join(workspace, 'fork'))
  if (preview.outputs['sql-file']) cpSync(preview.outputs['sql-file'], join(workspace, 'fork/atomic-upgrade.sql'))
  process.chdir(workspace)
}

const create = (table: string): Script => ({ id: 'a1', upgrade: `op.execute("CREATE TABLE ${table} (id int)")` })

test('the SQL of a fork’s preview comes to its pull request, in one comment that the next preview brings up to date', async () => {
  await artifact(create('one'))
  await comment()
  await artifact(create('two'))
  await comment()
  expect(github.comments.get(7)).toHaveLength(1)
  const { body, user } = github.comments.get(7)![0]!
  expect(user.login).toBe(bot)
  expect(body).toContain('CREATE TABLE two (id int);')
  expect(body).not.toContain('CREATE TABLE one')
})

test('whatever a fork writes into its SQL stays in the code fence', async () => {
  const hostile = '```\\n````sql\\n@everyone [look](https://example.com) <!-- -->\\r`````\\n# hello'
  await artifact({ id: 'a1', upgrade: `op.execute("SELECT $$${hostile}$$")` })
  await comment()
  const tokens = new MarkdownIt({ html: true }).parse(github.comments.get(7)![0]!.body, {})
  const fences = tokens.filter(token => token.type === 'fence')
  expect(fences).toHaveLength(1)
  expect(tokens.at(-1)).toBe(fences[0])
  expect(fences[0]!.content).toContain('# hello')
})

test('a script that cannot be shown: no comment, or a word in the one that is there', async () => {
  const reads = { id: 'a1', upgrade: 'op.get_bind().execute(sa.text("SELECT 1")).scalar()' }
  await artifact(reads)
  await comment()
  expect(github.comments.get(7)).toBeUndefined()
  await artifact(create('one'))
  await comment()
  await artifact(reads)
  await comment()
  expect(github.comments.get(7)![0]!.body).toMatch(/It has no SQL to show\.$/)
})

test('a comment of somebody else is left alone, and so is a pull request that has moved on', async () => {
  const other = github.add(7, 'stranger', '<!-- migrations of a fork -->\nmine')
  await artifact(create('one'))
  await comment()
  expect(other.body).toContain('mine')
  expect(github.comments.get(7)).toHaveLength(2)
  const before = github.requests.length
  expect(await comment('beef')).toEqual(['The pull request has moved on or is closed.'])
  expect(github.requests.slice(before)).toEqual(['GET /repos/acme/shop/pulls'])
})
