import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, secondProject, seedProject, start } from '../support/action.mts'
import { bot, type GitHub, pullRequest, startGitHub } from '../support/github.mts'
import { query } from '../support/postgres.mts'
import { python, writeProject } from '../support/project.mts'
import { runStep, type Step, type StepOptions } from '../support/runner.mts'

let github: GitHub
beforeEach(async () => {
  github = await startGitHub()
})
afterEach(() => github.stop())

const onPullRequest = { name: 'pull_request', payload: { pull_request: { number: 7 } } }
const bodies = (number = 7) => (github.comments.get(number) ?? []).map(comment => comment.body)
const writes = () => github.requests.filter(request => /^(POST|PATCH) .*comments/.test(request))

/** A preview of the seed's four revisions that needs no database. */
function preview(inputs: Record<string, string> = {}, options: Partial<StepOptions> = {}): Promise<Step> {
  return runStep({
    workspace: seedProject,
    inputs: { python, 'from-revision': 'base', ...inputs },
    github: github.url,
    event: onPullRequest,
    ...options,
  })
}

describe('the pull request is found for', () => {
  const sha = '0123456789abcdef0123456789abcdef01234567'
  const other = 'f'.repeat(40)
  const merged = { state: 'closed', merged_at: '2024-05-01T10:00:00Z' }
  const head = { label: 'fork:feature', ref: 'feature', sha }
  const fromFork = { full_name: 'fork/shop', owner: { login: 'fork' } }
  const here = { full_name: 'acme/shop', owner: { login: 'acme' } }
  const run = { event: 'pull_request', head_sha: sha, head_branch: 'feature', head_repository: here, pull_requests: [] }

  interface Case {
    event: string
    payload?: object
    inputs?: Record<string, string>
    /** The pull requests of `sha`. */
    pulls?: ReturnType<typeof pullRequest>[]
    /** Those from `fork:feature`. */
    proposed?: ReturnType<typeof pullRequest>[]
    /** Where the comment goes; undefined: nowhere. */
    number?: number
    /** Whether GitHub has to be asked to know that there is none. */
    asks?: true
  }
  const cases: Record<string, Case> = {
    pull_request: { event: 'pull_request', payload: { pull_request: { number: 7 } }, number: 7 },
    pull_request_target: { event: 'pull_request_target', payload: { pull_request: { number: 7 } }, number: 7 },
    'a review': { event: 'pull_request_review', payload: { pull_request: { number: 7 }, review: {} }, number: 7 },
    'a comment on it': { event: 'issue_comment', payload: { issue: { number: 8, pull_request: {} } }, number: 8 },
    'a comment on an issue: none': { event: 'issue_comment', payload: { issue: { number: 8 } } },
    'a push that merges it': {
      event: 'push',
      pulls: [pullRequest(5, merged), pullRequest(9, { ...merged, merge_commit_sha: sha })],
      number: 9,
    },
    'a push of its commits, rebased or squashed elsewhere': {
      event: 'push',
      pulls: [pullRequest(4), pullRequest(5, { ...merged, merge_commit_sha: other })],
      number: 5,
    },
    'a push of a commit that is only proposed: none': { event: 'push', pulls: [pullRequest(4, { head })], asks: true },
    'a push without one: none': { event: 'push', asks: true },
    'a merge queue': {
      event: 'merge_group',
      payload: { merge_group: { head_ref: `refs/heads/gh-readonly-queue/fix/pr-3-of-4/pr-12-${other}` } },
      number: 12,
    },
    'workflow_dispatch: none': { event: 'workflow_dispatch', payload: { inputs: {} } },
    'schedule: none': { event: 'schedule', payload: { schedule: '0 4 * * *' } },
    'workflow_dispatch with the input': { event: 'workflow_dispatch', inputs: { 'pull-request': '21' }, number: 21 },
    'the input, before the event’s own': {
      event: 'pull_request',
      payload: { pull_request: { number: 7 } },
      inputs: { 'pull-request': '21' },
      number: 21,
    },
    'the run of a branch': {
      event: 'workflow_run',
      payload: { workflow_run: { ...run, pull_requests: [{ number: 6 }] } },
      number: 6,
    },
    'the run of a fork': {
      event: 'workflow_run',
      payload: { workflow_run: { ...run, head_repository: fromFork } },
      pulls: [pullRequest(5, { head: { ...head, sha: other } }), pullRequest(6, { head })],
      number: 6,
    },
    'the run of a fork whose commits GitHub does not know here': {
      event: 'workflow_run',
      payload: { workflow_run: { ...run, head_repository: fromFork } },
      proposed: [pullRequest(5, { head: { ...head, sha: other } }), pullRequest(6, { head })],
      number: 6,
    },
    'the run of a fork that is gone: none': {
      event: 'workflow_run',
      payload: { workflow_run: { ...run, head_repository: null } },
      asks: true,
    },
    'the run of a push': {
      event: 'workflow_run',
      // GitHub lists what leads from the pushed branch elsewhere.
      payload: { workflow_run: { ...run, event: 'push', head_branch: 'main', pull_requests: [{ number: 30 }] } },
      pulls: [pullRequest(30), pullRequest(9, { ...merged, merge_commit_sha: sha })],
      number: 9,
    },
    'the run of a merge queue': {
      event: 'workflow_run',
      payload: {
        workflow_run: { ...run, event: 'merge_group', head_branch: `gh-readonly-queue/main/pr-12-${other}` },
      },
      number: 12,
    },
    'the run of a schedule: none': { event: 'workflow_run', payload: { workflow_run: { ...run, event: 'schedule' } } },
  }
  for (const [name, { event, payload = {}, inputs = {}, pulls, proposed, number, asks }] of Object.entries(cases)) {
    test(name, async () => {
      if (pulls) github.pulls.set(sha, pulls)
      if (proposed) github.proposed.set('fork:feature', proposed)
      // A refusal is published as everything is, and sooner.
      const given = { python: 'there-is-no-python', 'allow-untrusted': 'true', ...inputs }
      const step = await preview(given, { event: { name: event, payload } })
      expect(step.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'render-failed' })
      expect([...github.comments.keys()]).toEqual(number === undefined ? [] : [number])
      const address = number === undefined ? '' : github.comments.get(number)![0]!.html_url
      expect(step.outputs['comment-url']).toBe(address)
      if (number !== undefined) expect(step.log).toContain(`\nComment: ${address}\n`)
      else if (asks) expect(step.log).toContain('No pull request was found for this commit.')
      else expect(github.requests).toEqual([])
      expect(step.commands.filter(command => command.name === 'warning')).toEqual([])
    })
  }
})

test('a pull-request that is no number is an invalid input', async () => {
  const step = await preview({ 'pull-request': 'refs/pull/7/merge' })
  expect(step.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'invalid-input' })
  expect(step.log).toContain('pull-request is “refs/pull/7/merge”; it can be a number.')
  expect(github.requests).toEqual([])
})

test('comment: false: the summary only, and no request to GitHub', async () => {
  const step = await preview({ comment: 'false' })
  expect(github.requests).toEqual([])
  expect(step.summary).toContain('upgrade by 4 revisions')
})

test('GitHub Enterprise Server has its API elsewhere', async () => {
  await github.stop()
  github = await startGitHub({ root: '/api/v3', graphql: '/api/graphql' })
  const environment = {
    GITHUB_API_URL: `${github.url}/api/v3`,
    GITHUB_GRAPHQL_URL: `${github.url}/api/graphql`,
    GITHUB_SERVER_URL: 'https://git.example',
  }
  await preview({ python: 'there-is-no-python' }, { environment })
  expect(bodies()[0]).toContain('https://git.example/acme/shop/actions/runs/4711')
})

test('a preview posts the batch’s SQL, and the next one brings the same comment up to date', async () => {
  const step = await preview()
  expect(bodies()).toHaveLength(1)
  expect(bodies()[0]).toContain("DEFAULT '0%' NOT NULL")
  expect(step.outputs['comment-url']).toBe(github.comments.get(7)![0]!.html_url)
  // What only a comment has is hidden in it, but for the line about the run.
  const withoutLife = bodies()[0]!
    .replace(/<!-- atomic-upgrade-history -->\n- 📋 \[preview\]\(.*\): .*\n\n/, '')
    .replaceAll(/<!-- \/?atomic-upgrade-previewed.*-->\n\n/g, '')
  expect(step.summary).toBe(withoutLife)
  expect(readFileSync(step.outputs['sql-file']!, 'utf8')).toContain("LIKE '%a%';")
  expect(github.requests).toEqual([
    'POST /graphql',
    'GET /repos/acme/shop/issues/7/comments',
    'POST /repos/acme/shop/issues/7/comments',
  ])

  // As GitHub may store it.
  const [comment] = github.comments.get(7)!
  comment!.body = comment!.body.replaceAll('\n', '\r\n').trimEnd()
  const again = await preview()
  expect(writes()).toHaveLength(1)
  expect(again.outputs['comment-url']).toBe(step.outputs['comment-url'])

  await preview({ revision: 'dd7c69423ad9' })
  expect(bodies()).toHaveLength(1)
  expect(bodies()[0]).toContain('upgrade by 1 revision')
})

test('many rows are shown by the first ones and a count, in comment, summary and log; the SQL file has them all', async () => {
  const rows = (table: string) =>
    `op.bulk_insert(sa.table("${table}", sa.column("name", sa.Text)), [{"name": "name %d" % i} for i in range(300)])`
  const many = `"INSERT INTO t VALUES " + ", ".join("('row %d')" % i for i in range(900))`
  const upgrade = `op.create_table("t", sa.Column("name", sa.Text))\n${rows('t')}\nop.execute(${many})`
  const workspace = writeProject({ scripts: [{ id: 'a1', upgrade }] })
  for (const hides of ['false', 'true']) {
    const step = await preview({ 'hide-literals': hides }, { workspace })
    for (const text of [bodies()[0]!, step.summary, step.log]) {
      const hidden = hides === 'true' && text !== step.log
      const name = (i: number, kind = 'name') => (hidden ? '\\$\\d+' : `'${kind} ${i}'`)
      expect(text).toMatch(new RegExp(`\\(${name(4)}\\);\\s+-- … and 295 more rows, 300 in all\\s`))
      expect(text).toMatch(new RegExp(`\\(${name(4, 'row')}\\)\\n-- … and 895 more rows, 900 in all\\n;`))
      expect(text).not.toMatch(/name 5|row 5/)
    }
    expect(bodies()[0]).toContain('– 302 statements')
    const sql = readFileSync(step.outputs['sql-file']!, 'utf8')
    expect(sql.match(/'name \d+'/g)).toHaveLength(300)
    expect(sql.match(/'row \d+'/g)).toHaveLength(900)
  }
})

test('where there is nothing to do there is no comment, but one that stands there says so', async () => {
  const step = await preview({ revision: '5929dc9c624a', 'from-revision': '5929dc9c624a' })
  expect(step.outputs).toMatchObject({ outcome: 'up-to-date', 'comment-url': '' })
  expect(step.summary).toContain('nothing to do')
  expect(writes()).toEqual([])
  await preview()
  await preview({ revision: '5929dc9c624a', 'from-revision': '5929dc9c624a' })
  expect(bodies()).toHaveLength(1)
  expect(bodies()[0]).toContain('nothing to do')
})

describe('The comment over its life', () => {
  const scripts = ['a1', 'b2'].map(id => ({ id, upgrade: `op.execute("CREATE TABLE t_${id} (id int)")` }))
  const later = { GITHUB_RUN_ID: '4712' }
  let url: string
  let workspace: string
  beforeEach(async () => {
    url = await createDatabase()
    workspace = writeProject({ scripts })
  })

  const step = (inputs: Record<string, string>, options: Partial<StepOptions> = {}) =>
    start(workspace, url, inputs, { github: github.url, event: onPullRequest, ...options })
  const change = (from: string, to: string) => {
    const path = join(workspace, 'migrations/versions/b2.py')
    writeFileSync(path, readFileSync(path, 'utf8').replace(from, to))
  }
  const marked = /<!-- atomic-upgrade-previewed (\S+) -->.*<!-- \/atomic-upgrade-previewed -->/s
  const previewed = (text: string) => marked.exec(text)?.[0] ?? ''
  const runs = (text: string) => text.match(/^- \S+ \[\w+\]\(.*\): .*$/gm)

  test('what was reviewed stands there still when it is running, has failed and is applied, with a line for each run', async () => {
    change('CREATE TABLE t_b2 (id int)', 'CREATE TABLE t_b2 (id no_type)')
    const { digest } = (await step({})).outputs
    const shown = previewed(bodies()[0]!)
    expect(shown).toContain('CREATE TABLE t_b2 (id no_type);')
    expect(shown).toContain(`Digest: \`${digest}\``)
    expect((await step({ mode: 'apply' }, { environment: later })).outputs.outcome).toBe('rolled-back')
    await query(url, 'CREATE DOMAIN no_type AS int')
    expect((await step({ mode: 'apply' }, { environment: later })).outputs.outcome).toBe('applied')
    expect(bodies()).toHaveLength(1)
    for (const text of github.written.slice(1)) {
      expect(text).toContain(`<details><summary>The plan as it was previewed</summary>\n\n${shown}\n\n</details>`)
      expect(text).not.toContain('not the plan that was previewed')
    }
    expect(github.written.map(text => text.split('\n')[2])).toEqual([
      '### 📋 Atomic Upgrade: upgrade by 2 revisions',
      '### ⏳ Atomic Upgrade: upgrading by 2 revisions',
      '### ❌ Atomic Upgrade: failed, everything rolled back',
      '### ⏳ Atomic Upgrade: upgrading by 2 revisions',
      '### ✅ Atomic Upgrade: upgraded by 2 revisions',
    ])
    const at = (run: number) => `(https://github.com/acme/shop/actions/runs/${run})`
    const by = `digest \`${digest!.slice(0, 19)}…\``
    expect(runs(bodies()[0]!)).toEqual([
      `- 📋 [preview]${at(4711)}: upgrade by 2 revisions, ${by}`,
      `- ❌ [apply]${at(4712)}: failed, everything rolled back (migration-failed), ${by}`,
      `- ✅ [apply]${at(4712)}: upgraded by 2 revisions, ${by}`,
    ])

    // Nothing is left to do, and what was done stays to be seen.
    const writes = github.written.length
    const again = await step({ mode: 'apply' })
    expect(again.outputs).toMatchObject({ outcome: 'up-to-date', 'comment-url': github.comments.get(7)![0]!.html_url })
    expect((await step({})).outputs.outcome).toBe('up-to-date')
    expect(github.written).toHaveLength(writes)
  })

  test('an apply of another plan says so, and by what it differs', async () => {
    const { digest } = (await step({})).outputs
    const shown = previewed(bodies()[0]!)
    change('t_b2', 't_other')
    const applied = await step({ mode: 'apply' })
    expect(applied.outputs.outcome).toBe('applied')
    const told = `> This is not the plan that was previewed: the script of revision b2 changed. Its digest is \`${applied.outputs.digest}\`, and the digest of that one is \`${digest}\`.`
    for (const text of github.written.slice(1)) expect(text).toContain(told)
    const [own, reviewed] = bodies()[0]!.split('The plan as it was previewed')
    expect(own).toContain('CREATE TABLE t_other')
    expect(own).not.toContain('CREATE TABLE t_b2')
    expect(reviewed).toContain(shown)
  })

  test('an apply by plan file, and one that expected-digest refuses, leave it as well', async () => {
    const { outputs } = await step({})
    const shown = previewed(bodies()[0]!)
    change('t_b2', 't_other')
    const refused = await step({ mode: 'apply', 'expected-digest': outputs.digest! })
    expect(refused.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'plan-changed' })
    expect(bodies()[0]).toContain('the script of revision b2 changed')
    expect(previewed(bodies()[0]!)).toBe(shown)
    // It can still be told what differs, since the comment keeps the plan that was previewed.
    const again = await step({ mode: 'apply', 'expected-digest': outputs.digest! })
    expect(again.log).toContain('the script of revision b2 changed')
    const applied = await step({ mode: 'apply', 'plan-file': outputs['plan-file']!, python: 'no-python-here' })
    expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', digest: outputs.digest })
    expect(bodies()[0]).not.toContain('not the plan that was previewed')
    expect(previewed(bodies()[0]!)).toBe(shown)
  })

  test('a push is previewed anew: its plan takes the place of the other one, and the same plan changes nothing', async () => {
    await step({})
    await step({}, { environment: later })
    expect(github.written).toHaveLength(1)
    change('t_b2', 't_other')
    const { digest } = (await step({}, { environment: later })).outputs
    expect(previewed(bodies()[0]!)).toContain(digest)
    expect(bodies()[0]).not.toContain('t_b2')
    expect(runs(bodies()[0]!)!.map(line => /runs\/(\d+)\)/.exec(line)![1])).toEqual(['4711', '4712'])
  })

  test('an apply under another label has a comment of its own, and leaves the reviewed one alone', async () => {
    await step({ label: 'production' })
    const before = bodies()[0]
    await step({ mode: 'apply', label: 'staging' })
    expect(bodies()).toEqual([
      before,
      expect.stringContaining('### ✅ Atomic Upgrade, staging: upgraded by 2 revisions'),
    ])
    expect(bodies()[1]).toContain('CREATE TABLE t_b2')
    expect(bodies()[1]).not.toContain('previewed')
  })
})

test('the comment is found by its author too, over all pages, and each label has its own', async () => {
  for (let i = 0; i < 230; i++) github.add(7, 'somebody', `comment ${i}`)
  const step = await preview({ label: 'staging' })
  const [marker] = bodies().at(-1)!.split('\n')
  github.comments.get(7)!.unshift(github.add(8, 'mallory', `${marker}\nforged`))
  // The bot's own words, but not our comment: it only quotes the marker.
  github.comments.get(7)!.unshift(github.add(8, bot, `> ${marker}`))

  const again = await preview({ label: 'staging', revision: 'dd7c69423ad9' })
  expect(again.outputs['comment-url']).toBe(step.outputs['comment-url'])
  expect(bodies().slice(0, 2)).toEqual([`> ${marker}`, `${marker}\nforged`])
  const other = await preview({ label: 'stag' })
  expect(other.outputs['comment-url']).not.toBe(step.outputs['comment-url'])
  const ours = github.comments.get(7)!.filter(comment => comment.user.login === bot && comment.body.startsWith('<!--'))
  expect(ours.map(({ body }) => body.split('\n')[2])).toEqual([
    '### 📋 Atomic Upgrade, staging: upgrade by 1 revision',
    '### 📋 Atomic Upgrade, stag: upgrade by 4 revisions',
  ])
})

describe('GitHub’s troubles do not fail the step, and are told in log and summary', () => {
  const cases: Record<string, { fails: GitHub['fails']; told: string }> = {
    'a token that may not comment': {
      fails: (method, path) => (method === 'POST' && path.endsWith('/comments') ? 403 : undefined),
      told: '(403: Resource not accessible by integration). The job needs `permissions: { contents: read, pull-requests: write }`',
    },
    'a pull request that it cannot see': {
      fails: method => (method === 'GET' ? 404 : undefined),
      told: '(404: Not Found). The job needs `permissions: ',
    },
    'a token that has run out': { fails: () => 401, told: '(401: Bad credentials).' },
    'a server with troubles of its own': { fails: () => 500, told: '(500: Server Error).' },
    'no answer': { fails: () => 'never', told: '(The operation was aborted due to timeout).' },
  }
  for (const [name, { fails, told }] of Object.entries(cases)) {
    test(name, async () => {
      github.fails = fails
      expectWarning(await preview({ python: 'there-is-no-python' }), told)
    })
  }

  test('that pass within a second are not worth a word', async () => {
    github.fails = () => (github.requests.length === 1 ? 502 : undefined)
    const step = await preview({ python: 'there-is-no-python' })
    expect(bodies()).toHaveLength(1)
    expect(step.commands.filter(command => command.name === 'warning')).toEqual([])
  })

  test('no server', async () => {
    const gone = await startGitHub()
    await gone.stop()
    expectWarning(await preview({}, { github: gone.url }), '(connect ECONNREFUSED 127.0.0.1:', 'previewed')
  })

  test('no token', async () => {
    expectWarning(await preview({ 'github-token': '' }), '(there is no github-token).', 'previewed')
    expect(github.requests).toEqual([])
  })

  function expectWarning(step: Step, told: string, outcome = 'refused'): void {
    expect(step.exitCode).toBe(outcome === 'refused' ? 1 : 0)
    expect(step.outputs).toMatchObject({ outcome, 'comment-url': '' })
    const warnings = step.commands.filter(command => command.name === 'warning')
    expect(warnings).toHaveLength(1)
    expect(warnings[0]!.text).toContain(`The comment on the pull request could not be written ${told}`)
    expect(step.summary).toContain(outcome === 'refused' ? 'there-is-no-python' : 'upgrade by 4 revisions')
    expect(step.summary).toContain('> [!WARNING]\n> The comment on the pull request could not be written')
  }
})

test('a cancelled step does not wait for GitHub until it is killed', async () => {
  github.fails = () => 'never'
  let ended = false
  /** As the runner does it. */
  const cancel = async (pid: number): Promise<void> => {
    while (github.requests.length === 0) await sleep(20)
    for (const [signal, later] of [
      ['SIGINT', 7_500],
      ['SIGTERM', 2_500],
      ['SIGKILL', 0],
    ] as const) {
      if (ended) return
      process.kill(pid, signal)
      await sleep(later)
    }
  }
  const step = await preview({}, { started: pid => void cancel(pid) })
  ended = true
  expect(step.exitCode).toBe(1)
  expect(step.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'cancelled' })
})

describe('an apply', () => {
  let url: string
  beforeEach(async () => {
    url = await createDatabase()
  })
  const apply = () => start(secondProject, url, { mode: 'apply' }, { github: github.url, event: onPullRequest })

  test('is announced, and its end is told in the same comment', async () => {
    const step = await apply()
    expect(step.outputs.outcome).toBe('applied')
    expect(writes()).toEqual([
      'POST /repos/acme/shop/issues/7/comments',
      expect.stringMatching(/^PATCH \/repos\/acme\/shop\/issues\/comments\/\d+$/),
    ])
    expect(github.written.map(text => text.split('\n')[2])).toEqual([
      '### ⏳ Atomic Upgrade: upgrading by 3 revisions',
      '### ✅ Atomic Upgrade: upgraded by 3 revisions',
    ])
    expect(bodies()[0]).toMatch(/`8c24d5e6f7a0` \| give every mail domain a row \| 4 \| 0\.\d\d&nbsp;s \| /)
  })

  test('tells its end although GitHub was down when it began', async () => {
    let began = false
    github.fails = () => (began ? undefined : 500)
    const step = await start(
      secondProject,
      url,
      { mode: 'apply' },
      {
        github: github.url,
        event: onPullRequest,
        output: text => {
          began ||= text.includes('in one transaction')
        },
      },
    )
    expect(step.outputs['comment-url']).toBe(github.comments.get(7)![0]!.html_url)
    expect(bodies()).toEqual([expect.stringContaining('upgraded by 3 revisions')])
    expect(step.commands.filter(command => command.name === 'warning')).toEqual([])
  })

  test('has one comment, even where GitHub takes the first one without saying so', async () => {
    let lost = false
    github.fails = (method, path) => {
      if (lost || method !== 'POST' || !path.endsWith('/comments')) return undefined
      lost = true
      github.add(7, bot, '<!-- atomic-upgrade  -->\n\ntaken')
      return 500
    }
    const step = await apply()
    expect(lost).toBe(true)
    expect(bodies()).toEqual([expect.stringContaining('upgraded by 3 revisions')])
    expect(step.outputs['comment-url']).toBe(github.comments.get(7)![0]!.html_url)
  })

  test('is not called anything else because GitHub fails after its COMMIT', async () => {
    github.fails = method => (method === 'PATCH' ? 500 : undefined)
    const step = await apply()
    expect(step.exitCode).toBe(0)
    expect(step.outputs).toMatchObject({ outcome: 'applied', 'new-head': 'b7e0aa41d9c3' })
    expect(bodies()[0]).toContain('It is running now')
    expect(step.summary).toContain('500: Server Error')
  })
})
