// biome-ignore-all lint/suspicious/noTemplateCurlyInString: expressions of GitHub workflows are shown as they are
import { join } from 'node:path'
import { contents } from '../test/support/database.mts'
import { startGitHub } from '../test/support/github.mts'
import { query, startServer } from '../test/support/postgres.mts'
import { python } from '../test/support/project.mts'
import { root, runStep } from '../test/support/runner.mts'

const color = process.stdout.isTTY
const paint = (code: number, text: string) => (color ? `\u001b[${code}m${text}\u001b[0m` : text)
const rule = (title: string) =>
  console.log(`\n${paint(1, `━━ ${title} ${'━'.repeat(Math.max(0, 96 - title.length))}`)}\n`)
const quote = (text: string) =>
  console.log(
    text
      .trimEnd()
      .split('\n')
      .map(line => `  ${paint(90, '│')} ${line}`)
      .join('\n'),
  )

const postgres = await startServer()
const github = await startGitHub()
const url = await postgres.create('shop')
const workspace = join(root, 'migrations-fixture')
const event = { name: 'pull_request', payload: { pull_request: { number: 42 } } }

async function holds(): Promise<string> {
  const heads = await query(url, "SELECT to_regclass('alembic_version') IS NOT NULL AS there")
  const versions = heads.rows[0].there ? (await query(url, 'SELECT version_num FROM alembic_version')).rows : []
  const tables = await query(
    url,
    `SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname`,
  )
  const heading = versions.map(row => row.version_num).join(', ') || 'base'
  return `at ${heading}; tables: ${tables.rows.map(row => row.relname).join(', ') || 'none'}`
}

async function play(title: string, inputs: Record<string, string>): Promise<void> {
  rule(title)
  const shown = Object.entries(inputs).map(([name, value]) => `${name}: ${value}`)
  quote(
    [
      '- uses: ./',
      '  with:',
      ...[...shown, 'database-url: ${{ secrets.DATABASE_URL }}'].map(line => `    ${line}`),
    ].join('\n'),
  )
  const [before, whole] = [await holds(), await contents(url)]
  const step = await runStep({
    inputs: { 'database-url': url, python, ...inputs },
    workspace,
    event,
    github: github.url,
  })
  console.log(`\n${paint(36, 'Log')}`)
  quote(readable(step.log))
  console.log(`\n${paint(36, 'Outputs')}  (exit code ${step.exitCode})`)
  quote(
    Object.entries(step.outputs)
      .map(([name, value]) => `${name}: ${value}`)
      .join('\n'),
  )
  const unchanged = (await contents(url)) === whole
  console.log(`\n${paint(36, 'Database')}`)
  quote(
    `before: ${before}\nafter:  ${await holds()}${unchanged ? paint(32, '  (every row and the whole catalog as before)') : ''}`,
  )
}

/** The log as GitHub's page shows it: groups folded out, commands as what they do. */
function readable(log: string): string {
  return log
    .replaceAll(/^::add-mask::.*\n/gm, '')
    .replaceAll(/^::group::(.*)$/gm, '▾ $1')
    .replaceAll(/^::endgroup::\n/gm, '')
    .replaceAll(
      /^::error (?:[^:]*)::(.*)$/gm,
      (_, text: string) => `✖ ${text.replaceAll('%0A', '\n  ').replaceAll('%25', '%')}`,
    )
    .replaceAll(/\n{2,}/g, '\n')
}

const started = performance.now()
console.log(`Atomic Upgrade on PostgreSQL ${postgres.version}, with a stand-in for GitHub at ${github.url}`)
await play('A pull request is opened: the batch is shown, nothing is written', { mode: 'preview' })
rule('The comment on the pull request')
quote(github.comments.get(42)!.at(-1)!.body)
await play('Scenario: single migration in set succeeds', { mode: 'apply', revision: 'dd7c69423ad9' })
await play('Scenario: multiple migrations in set, 1 fails in the set', { mode: 'apply', revision: 'head' })
await play('Up to the last stable revision', { mode: 'apply', revision: '5a77262c502b' })
await play('Scenario: single migration in set fails', { mode: 'apply', revision: '653d68312991' })
rule('The comment on the pull request, brought up to date')
quote(github.comments.get(42)!.at(-1)!.body)
await play('One revision back', { mode: 'apply', direction: 'downgrade' })
console.log(`\nDone in ${((performance.now() - started) / 1000).toFixed(0)} s.`)
await github.stop()
await postgres.stop()
