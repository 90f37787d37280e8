import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createDatabase, secondProject, seedProject, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { bot, type GitHub, startGitHub } from '../support/github.mts'

let github: GitHub
let url: string

beforeEach(async () => {
  github = await startGitHub()
  url = await createDatabase()
})
afterEach(() => github.stop())

const pullRequest = { name: 'pull_request', payload: { pull_request: { number: 7 } } }
const bodies = (number = 7) => (github.comments.get(number) ?? []).map(comment => comment.body)

test('a preview posts the batch’s SQL on the pull request, and a second one brings the same comment up to date', async () => {
  const step = await start(seedProject, url, {}, { github: github.url, event: pullRequest })
  expect(bodies()).toHaveLength(1)
  const [body] = bodies()
  expect(body).toContain('4 revisions to upgrade')
  expect(body).toContain(
    '| 1 | `dd7c69423ad9` | create customers | `migrations/versions/dd7c69423ad9_create_customers.py` | 2 |',
  )
  expect(body).toContain("DEFAULT '0%' NOT NULL")
  expect(step.outputs['comment-url']).toBe(github.comments.get(7)![0]!.html_url)
  expect(step.summary).toBe(body)
  expect(readFileSync(step.outputs['sql-file']!, 'utf8')).toContain("LIKE '%a%';")

  github.requests.length = 0
  await start(seedProject, url, {}, { github: github.url, event: pullRequest })
  expect(github.requests.filter(request => /^(POST|PATCH) \/repos/.test(request))).toEqual([])

  await start(seedProject, url, { revision: 'dd7c69423ad9' }, { github: github.url, event: pullRequest })
  expect(bodies()).toHaveLength(1)
  expect(bodies()[0]).toContain('1 revision to upgrade')
})

test('the comment is found by its author too, over all pages, and each label has its own', async () => {
  for (let i = 0; i < 130; i++) github.add(7, 'somebody', `comment ${i}`)
  const step = await start(seedProject, url, { label: 'staging' }, { github: github.url, event: pullRequest })
  const marker = bodies().at(-1)!.split('\n')[0]!
  github.comments.get(7)!.unshift({ ...github.add(8, 'mallory', `${marker}\nforged`) })

  const again = await start(seedProject, url, { label: 'staging' }, { github: github.url, event: pullRequest })
  expect(again.outputs['comment-url']).toBe(step.outputs['comment-url'])
  expect(bodies()[0]).toContain('forged')
  const other = await start(seedProject, url, { label: 'production' }, { github: github.url, event: pullRequest })
  expect(other.outputs['comment-url']).not.toBe(step.outputs['comment-url'])
  expect(github.comments.get(7)!.filter(comment => comment.user.login === bot)).toHaveLength(2)
})

test('after a push, the outcome goes to the merged pull request of the commit', async () => {
  const sha = '0123456789abcdef0123456789abcdef01234567'
  github.pulls.set(sha, [
    { number: 5, merged_at: null, merge_commit_sha: 'f'.repeat(40) },
    { number: 9, merged_at: '2024-05-01T10:00:00Z', merge_commit_sha: sha },
  ])
  const event = { name: 'push', payload: {} }
  const step = await start(secondProject, url, { mode: 'apply' }, { github: github.url, event })
  expect(step.outputs.outcome).toBe('applied')
  expect(bodies(9)).toHaveLength(1)
  expect(bodies(9)[0]).toContain('3 revisions applied')
  expect(bodies(9)[0]).toMatch(/`8c24d5e6f7a0` \| give every mail domain a row \| .* \| 4 \| 0\.\d\d&nbsp;s \|/)
})

test('a script that needs the database is named with its line instead of SQL', async () => {
  const step = await start(secondProject, url, {}, { github: github.url, event: pullRequest })
  expect(step.outputs).toMatchObject({ outcome: 'previewed', pending: '3', 'sql-file': '' })
  expect(bodies()[0]).toContain('<code>8c24d5e6f7a0</code> give every mail domain a row – not rendered')
  expect(bodies()[0]).toContain('`migrations/versions/8c24d5e6f7a0_create_domains.py:20`')
  expect(bodies()[0]).toContain("SET account_limit = 100 WHERE name LIKE '%.com';")
})

test('without the permission to comment: a warning with the lines to add, the summary has it all, the step goes on', async () => {
  github.fails = method => (method === 'POST' ? 403 : undefined)
  const step = await start(secondProject, url, { mode: 'apply' }, { github: github.url, event: pullRequest })
  expect(step.outputs).toMatchObject({ outcome: 'applied', 'comment-url': '' })
  expect(step.exitCode).toBe(0)
  const warnings = step.commands.filter(({ name }) => name === 'warning')
  expect(warnings).toHaveLength(1)
  expect(warnings[0]!.text).toContain('pull-requests: write')
  expect(step.summary).toContain('3 revisions applied')
})

test('GitHub failing after the COMMIT does not make the step lie about the database', async () => {
  let commented = 0
  github.fails = (method, path) => {
    if (method === 'POST' && path.endsWith('/comments')) commented++
    return method === 'PATCH' ? 500 : undefined
  }
  const step = await start(secondProject, url, { mode: 'apply' }, { github: github.url, event: pullRequest })
  expect(commented).toBe(1)
  expect(step.outputs).toMatchObject({ outcome: 'applied', 'new-head': 'b7e0aa41d9c3' })
  expect(step.exitCode).toBe(0)
  expect(await contents(url)).toContain('b7e0aa41d9c3')
})

test('comment: false and an event without a pull request: the summary only, and no request to GitHub', async () => {
  const silent = await start(seedProject, url, { comment: 'false' }, { github: github.url, event: pullRequest })
  const alone = await start(seedProject, url, {}, { github: github.url })
  expect(github.requests).toEqual([])
  for (const step of [silent, alone]) expect(step.summary).toContain('4 revisions to upgrade')
})
