import { execFileSync, spawn } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pullRequest, startGitHub } from '../test/support/github.mts'
import { query, startServer } from '../test/support/postgres.mts'
import { python, writeProject } from '../test/support/project.mts'
import { root } from '../test/support/runner.mts'

const act = process.argv[2]!
const home = mkdtempSync(join(tmpdir(), 'atomic-upgrade-recipes-'))
const [postgres, github] = [await startServer(), await startGitHub()]

/** A pull request of our own, with a database at base and without any: two revisions, and the one that it adds. */
async function preview(): Promise<void> {
  const url = await postgres.create('preview')
  const event = { pull_request: proposedFrom('acme/shop') }
  const withDatabase = await run('preview.yml', 'pull_request', event, { MIGRATIONS_PREVIEW_URL: url })
  holds('the batch', withDatabase, '::set-output:: revisions=["a1","b2"]')
  holds('the comment', comment('production'), /CREATE TABLE first.*CREATE TABLE second/s)
  holds('nothing is written', await tables(url), /^$/)
  const without = await run('preview-without-database.yml', 'pull_request', event, {})
  holds('the batch', without, '::set-output:: revisions=["b2"]')
  holds('the comment', comment(''), /^(?!.*CREATE TABLE first).*CREATE TABLE second/s)
}

/** It is merged: the database is upgraded, once. */
async function deploy(): Promise<void> {
  const url = await postgres.create('deployed')
  const secrets = { MIGRATIONS_URL: url }
  const log = await run('deploy.yml', 'push', {}, secrets)
  holds('the comment', comment('production'), /✅.*`base`.*`b2`/s)
  holds('the tables', await tables(url), /^alembic_version, first, second$/)
  holds('the step after it', log, 'The database is at b2.')
  holds('a second deploy', await run('deploy.yml', 'push', {}, secrets), '::set-output:: outcome=up-to-date')
}

/** act has no secrets of an environment, so both jobs that apply have the same database here. */
async function stagingThenProduction(): Promise<void> {
  const [staging, production] = [await postgres.create('staging'), await postgres.create('production')]
  const secrets = { MIGRATIONS_URL: staging, MIGRATIONS_PREVIEW_URL: production }
  const log = await run('staging-production.yml', 'push', {}, secrets)
  holds('staging', comment('staging'), /✅.*`base`.*`b2`/s)
  holds('the tables of staging', await tables(staging), /^alembic_version, first, second$/)
  holds('production is shown', log, /\[Deploy\/preview *\].*::set-output:: outcome=previewed/)
  holds('the job for production runs', log, '[Deploy/production] 🏁  Job succeeded')
  const nothing = await run('staging-production.yml', 'push', {}, { ...secrets, MIGRATIONS_PREVIEW_URL: staging })
  holds('with nothing pending, production is left out', nothing, /^(?!.*\[Deploy\/production\] ⭐)/s)
}

/** What was shown is what runs; a batch that starts elsewhere by then is refused. */
async function productionByDigest(): Promise<void> {
  const [url, ahead] = [await postgres.create('by_digest'), await postgres.create('ahead')]
  await query(
    ahead,
    "CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('a1')",
  )
  const secrets = { MIGRATIONS_URL: ahead, MIGRATIONS_PREVIEW_URL: url }
  const refused = await failing('production-by-digest.yml', 'push', {}, secrets)
  holds('another batch', refused, /::error .*revision a1 went from it; it starts from a1 and not base/)
  holds('its database', await tables(ahead), /^alembic_version$/)
  await run('production-by-digest.yml', 'push', {}, { ...secrets, MIGRATIONS_URL: url })
  holds('the comment', comment('production'), /✅.*The plan as it was previewed.*CREATE TABLE second/s)
  holds('the tables', await tables(url), /^alembic_version, first, second$/)
}

/** The SQL of the signed file runs, without the scripts. */
async function productionByPlanFile(): Promise<void> {
  const url = await postgres.create('by_plan_file')
  const secrets = { MIGRATIONS_URL: url, MIGRATIONS_PREVIEW_URL: url, PLAN_KEY: 'a long random text' }
  const log = await run('production-by-plan-file.yml', 'push', {}, secrets)
  holds('no Python in production', log, /^(?!.*\[Deploy by plan file\/production\][^\n]*(setup-python|pip install))/s)
  holds('the comment', comment('production'), /✅.*The plan as it was previewed.*CREATE TABLE second/s)
  holds('the tables', await tables(url), /^alembic_version, first, second$/)
}

/** Scripts whose pull requests nobody has approved do not run. */
async function productionWithReview(): Promise<void> {
  const url = await postgres.create('with_review')
  const refused = await failing('production-with-review.yml', 'push', {}, { MIGRATIONS_URL: url })
  holds('without a review', refused, /::error .*Revision a1.*Revision b2.*pull request #7: it has no approval/s)
  holds('the database', await tables(url), /^$/)
  const user = { login: 'colleague', id: 2, type: 'User' }
  for (const { number, head } of [...github.pulls.values()].flat()) {
    const review = { id: number, state: 'APPROVED', commit_id: head.sha, author_association: 'MEMBER' as const, user }
    github.reviews.set(number, [review])
  }
  await run('production-with-review.yml', 'push', {}, { MIGRATIONS_URL: url })
  holds('the tables', await tables(url), /^alembic_version, first, second$/)
}

/** A pull request from a fork: no secret, no comment of its own; a second workflow brings its SQL. */
async function fork(): Promise<void> {
  const before = github.requests.length
  await run('forks-preview.yml', 'pull_request', { pull_request: proposedFrom('stranger/shop') }, {})
  holds('the fork’s run asks nothing of GitHub', String(github.requests.length - before), /^0$/)
  const workflow_run = {
    id: 1,
    event: 'pull_request',
    head_sha: 'cafe',
    head_branch: 'change',
    head_repository: { full_name: 'stranger/shop', owner: { login: 'stranger' } },
    html_url: 'https://github.com/acme/shop/actions/runs/1',
  }
  const head = { label: 'stranger:change', ref: 'change', sha: 'cafe' }
  github.proposed.set('stranger:change', [pullRequest(8, { head })])
  await run('forks-comment.yml', 'workflow_run', { workflow_run }, {})
  holds('the comment on the fork’s pull request', github.comments.get(8)?.at(-1)?.body, 'CREATE TABLE second')

  const ours = await run('forks-preview.yml', 'pull_request', { pull_request: proposedFrom('acme/shop') }, {})
  holds('our own pull requests are commented on at once', ours, '::set-output:: comment-url=https://github.com/')
}

/** Runs one recipe in the repository as the runner would; throws when a job fails. Resolves with the log. */
async function run(recipe: string, event: string, payload: object, secrets: Record<string, string>): Promise<string> {
  console.log(`\n━━ ${recipe}`)
  rmSync(join(shop, '.github'), { recursive: true, force: true })
  mkdirSync(join(shop, '.github/workflows'), { recursive: true })
  cpSync(join(root, 'docs/recipes', recipe), join(shop, '.github/workflows', recipe))
  const eventFile = join(home, 'event.json')
  writeFileSync(eventFile, JSON.stringify(payload))
  const args = [
    ...[event, '--workflows', `.github/workflows/${recipe}`, '--eventpath', eventFile],
    // On this machine itself, one job at a time.
    ...['--platform', 'ubuntu-latest=-self-hosted', '--concurrent-jobs', '1', '--no-cache-server'],
    ...['--action-cache-path', join(home, 'actions')],
    ...['--local-repository', `atomic-upgrade/atomic-upgrade@v1=${root}`],
    ...standIns.flatMap(({ name, folder }) => ['--local-repository', `${name}=${folder}`]),
    ...['--env', `GITHUB_API_URL=${github.url}`, '--env', `GITHUB_GRAPHQL_URL=${github.url}/graphql`],
    ...['--env', `STAND_IN_PYTHON=${dirname(python)}`, '--env', `STAND_IN_ARTIFACTS=${join(home, 'artifacts')}`],
    ...['--env', `STAND_IN_MODULES=${join(root, 'node_modules')}`],
    ...Object.entries({ ...secrets, GITHUB_TOKEN: 'ghs_standin' }).flatMap(([name, value]) => [
      '--secret',
      `${name}=${value}`,
    ]),
  ]
  const child = spawn(act, args, { cwd: shop, env: { ...process.env, HOME: home } })
  let log = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', text => (log += text))
  const exitCode = await new Promise(done => child.once('close', done))
  if (exitCode !== 0) throw new Error(`${recipe} failed:\n${log}`)
  return log
}

/** The log of a recipe that has to fail. */
async function failing(...args: Parameters<typeof run>): Promise<string> {
  const log = await run(...args).then(
    () => undefined,
    error => String(error),
  )
  if (log === undefined) throw new Error(`${args[0]} did not fail`)
  return log
}

/** Fails loudly when a text is not what it should be. */
function holds(what: string, text: string | undefined, wanted: string | RegExp): void {
  const right = typeof wanted === 'string' ? text?.includes(wanted) : wanted.test(text ?? '')
  if (!right) throw new Error(`${what}: ${wanted} is not in\n${text}`)
  console.log(`✓ ${what}: ${wanted}`)
}

/** The comment on pull request 7 with this label. */
const comment = (label: string): string | undefined =>
  github.comments.get(7)?.find(({ body }) => body.startsWith(`<!-- atomic-upgrade ${label} -->`))?.body

async function tables(url: string): Promise<string> {
  const { rows } = await query(
    url,
    `SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1`,
  )
  return rows.map(row => row.relname).join(', ')
}

const proposedFrom = (from: string) => ({ number: 7, base: { sha: '' }, head: { repo: { full_name: from } } })

/** A checkout of a pull request as GitHub makes it: a merge of `main`, with one script, and a branch that adds one. */
function writeRepository(): string {
  const create = (id: string, name: string) => ({ id, upgrade: `op.execute("CREATE TABLE ${name} (id int)")` })
  const folder = writeProject({ scripts: [create('a1', 'first'), create('b2', 'second')] })
  cpSync(join(root, 'migrations-fixture/requirements.txt'), join(folder, 'requirements.txt'))
  const identity = ['-c', 'user.name=Test', '-c', 'user.email=test@example.com', '-c', 'commit.gpgsign=false']
  const git = (...args: string[]) =>
    execFileSync('git', [...identity, ...args], { cwd: folder, encoding: 'utf8' }).trim()
  const second = join(folder, 'migrations/versions/b2.py')
  const script = readFileSync(second, 'utf8')
  rmSync(second)
  writeFileSync(join(folder, '.gitignore'), '.github\n__pycache__\n')
  git('init', '--quiet', '--initial-branch', 'main')
  git('remote', 'add', 'origin', 'https://github.com/acme/shop')
  git('add', '.')
  git('commit', '--quiet', '--message', 'base')
  git('checkout', '--quiet', '-b', 'change')
  writeFileSync(second, script)
  git('add', '.')
  git('commit', '--quiet', '--message', 'change')
  git('checkout', '--quiet', 'main')
  git('commit', '--quiet', '--allow-empty', '--message', 'main moves on')
  git('merge', '--quiet', '--no-ff', '--message', 'merge', 'change')
  const merge = git('rev-parse', 'HEAD')
  const merged = (number: number, id: string, head: string) => {
    const path = `migrations/versions/${id}.py`
    github.files.set(number, [{ filename: path, sha: git('rev-parse', `${head}:${path}`), status: 'added' }])
    const at = { label: 'acme:change', ref: 'change', sha: head }
    return pullRequest(number, { merged_at: '2026-01-01T00:00:00Z', merge_commit_sha: merge, head: at })
  }
  const [base, change] = [git('rev-parse', 'change^'), git('rev-parse', 'change')]
  github.pulls.set(base, [merged(6, 'a1', base)])
  for (const commit of [merge, change]) github.pulls.set(commit, [merged(7, 'b2', change)])
  return folder
}

/** Of the actions that the recipes use, as much as they need here: nothing is fetched from GitHub. */
function writeStandIns(): { name: string; folder: string }[] {
  const composite = (script: string) => ({ using: 'composite', steps: [{ run: script, shell: 'bash' }] })
  const actions: Record<string, object> = {
    // act leaves the checkout out, since it copies the repository itself.
    'actions/checkout@v5': composite('true'),
    'actions/setup-python@v6': composite('echo "$STAND_IN_PYTHON" >>"$GITHUB_PATH"'),
    'actions/upload-artifact@v6': composite(
      // biome-ignore lint/suspicious/noTemplateCurlyInString: an expression of GitHub's
      'mkdir -p "$STAND_IN_ARTIFACTS" && cp "${{ inputs.path }}" "$STAND_IN_ARTIFACTS"',
    ),
    // biome-ignore lint/suspicious/noTemplateCurlyInString: an expression of GitHub's
    'actions/download-artifact@v7': composite('cp -r "$STAND_IN_ARTIFACTS" "${{ inputs.path }}"'),
    'actions/github-script@v8': { using: 'node24', main: 'index.mjs' },
  }
  return Object.entries(actions).map(([name, runs]) => {
    const folder = join(home, 'stand-ins', name.split('@')[0]!)
    mkdirSync(folder, { recursive: true })
    const inputs = Object.fromEntries(
      [
        'python-version',
        'fetch-depth',
        'persist-credentials',
        'name',
        'path',
        'retention-days',
        'run-id',
        'if-no-files-found',
      ]
        .concat(['github-token', 'script'])
        .map(input => [input, { description: input }]),
    )
    // JSON is YAML.
    writeFileSync(join(folder, 'action.yml'), JSON.stringify({ name, description: name, inputs, runs }))
    writeFileSync(join(folder, 'index.mjs'), gitHubScript)
    if (!existsSync(join(folder, '.git'))) execFileSync('git', ['init', '--quiet'], { cwd: folder })
    return { name, folder }
  })
}

/** What actions/github-script does with its input `script`. */
const gitHubScript = `
import { createRequire } from 'node:module'
const { context, getOctokit } = await import(process.env.STAND_IN_MODULES + '/@actions/github/lib/github.js')
const names = ['github', 'context', 'core', 'require']
const run = Object.getPrototypeOf(async () => {}).constructor(...names, process.env.INPUT_SCRIPT)
await run(getOctokit('ghs_standin'), context, { info: console.log }, createRequire(import.meta.url))
`

const shop = writeRepository()
const standIns = writeStandIns()
try {
  await preview()
  await deploy()
  await stagingThenProduction()
  await productionByDigest()
  await productionByPlanFile()
  await productionWithReview()
  await fork()
  console.log('\nThe recipes do what docs/recipes.md says.')
} finally {
  await postgres.stop()
  await github.stop()
  rmSync(home, { recursive: true, force: true })
}
