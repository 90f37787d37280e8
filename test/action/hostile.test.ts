import { mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lifeOf } from '../../src/report/life'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { type GitHub, startGitHub } from '../support/github.mts'
import { query } from '../support/postgres.mts'
import { type Script, writeProject } from '../support/project.mts'
import type { Step, StepOptions } from '../support/runner.mts'
import { expectIntact } from '../unit/intact'

let github: GitHub
beforeEach(async () => {
  github = await startGitHub()
})
afterEach(() => github.stop())

/** One line with the tricks of Markdown, HTML, GitHub and the runner. */
const line =
  '</summary></details> ``` ~~~ | `x` @acme/admins closes #1 GH-7 https://evil.example ![x](//evil.example/x.png) <img src=x onerror=y> <!-- --> ##[add-mask]mask :tada: %0A%25'
/** Lines that begin with a command, that end an output, that colour, hide or turn what follows, that end a fence. */
const evil = [
  line,
  '::stop-commands::endtoken',
  '  ::set-output name=outcome::applied',
  '::add-mask::a',
  '##[set-env name=PATH]/tmp/evil',
  'outcome<<EOF',
  'applied',
  'EOF',
  '\u001b[31mred \u001b]8;;https://evil.example\u0007link\u001b[8m \u009b31m hidden\rover \b\u202eturned',
  '```',
  '</details>',
  '# @everyone',
].join('\n')

/** As Python writes it, in ASCII. */
const python = (text: string) =>
  JSON.stringify(text).replaceAll(/[\u007f-\uffff]/g, each => `\\u${each.charCodeAt(0).toString(16).padStart(4, '0')}`)
const quoted = (text: string) => `'${text.replaceAll("'", "''")}'`
const execute = (sql: string) => `op.execute(sa.text(${python(sql.replaceAll(':', '\\:'))}))`

const label = `prod ${line.slice(0, 60)}\n::error::x`
/** At most 63 bytes. */
const table = 't</summary>```|`x`@acme #1 ::error::x ##[error]\n::debug::\u001b[31m'
/** At most 32 characters, without what Alembic does not allow: @ - + and : */
const id = 'a|`<b>#1,\nx=1\nk<<EOF\n##[error]'

/** What Python prints past its own `print`: commands, bytes that are no UTF-8, a null byte, and a line without an end. */
const print = `
import os
os.write(1, b"\\n::stop-commands::x\\n\\xff\\xfe\\xc3 ##[set-output name=a]b\\r::add-mask::a\\r\\n\\x00\\x1b[2J\\n")
os.write(2, b"::add-mask::b\\n\\xf0\\x9f::error::without an end")`

/** Everything of it is hostile that can be: its name, id, message, table, SQL and notices, and what it prints. */
const hostile: Script = {
  id,
  name: '::error::`x` @acme #1 <b>|##[error]\u001b[31m.py',
  message: `${line}\\x1b[31m\\x00\\u202e`,
  upgrade: `
${execute(`CREATE TABLE "${table}" (v text)`)}
${execute(`INSERT INTO "${table}" VALUES (${quoted(evil)}) -- ${line}`)}
${execute(`DO ${quoted(`BEGIN RAISE NOTICE '%', ${quoted(evil)}; END`)}`)}
${print}`,
  downgrade: execute(`DROP TABLE "${table}"`),
}

const event = { name: 'pull_request', payload: { pull_request: { number: 7 } } }
const run = (workspace: string, url: string, inputs: Record<string, string>, options: Partial<StepOptions> = {}) =>
  start(workspace, url, { label, ...inputs }, { github: github.url, event, ...options })

/** Nothing of the text is a command, an output, another line of ours, or anything but text in comment and summary. */
function expectHarmless({ log, commands, outputs, summary }: Step, groups: RegExp[], errors: (string | RegExp)[] = []) {
  const named = (name: string) => commands.filter(each => each.name === name).map(({ text }) => text)
  expect(named('group')).toEqual(groups.map(each => expect.stringMatching(each)))
  expect(named('endgroup')).toHaveLength(groups.length)
  expect(named('error')).toEqual(errors.map(each => expect.stringMatching(each)))
  for (const mask of named('add-mask')) expect(mask).toMatch(/^(p@ss:w\/rd%41|p%40ss.*|ghs_standin)$/)
  const others = commands.filter(({ name }) => !['group', 'endgroup', 'error', 'add-mask'].includes(name))
  expect(others).toEqual([])
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
  expect(log).not.toMatch(/[\0\b\r\u007f-\u009f\u202e]|\u001b(?!\[[\d;]*m)|\u001b\[8m[^\u001b]*\n/)
  expect(log.match(/^Outcome: .*$/gm)).toEqual([expect.stringContaining(`Outcome: ${outputs.outcome}.`)])
  expectIntact(summary)
  for (const text of github.written) expectIntact(text, { items: lifeOf(text).history.length })
}

test('a preview shows hostile text as text, and an apply of it does too', async () => {
  const workspace = writeProject({ scripts: [hostile], app: print })
  const url = await createDatabase()
  const revision = /^a\|`<b>#1, x=1 k<<EOF ##\u200b\[error\] <\/summary>/
  const preview = await run(workspace, url, {})
  expectHarmless(preview, [/^Output of the app$/, /^Output of the dry run$/, revision])
  const heads = { 'prior-head': '', 'new-head': id.replaceAll('\n', '\ufffd'), revisions: JSON.stringify([id]) }
  expect(preview.outputs).toMatchObject({ outcome: 'previewed', pending: '1', ...heads })
  expect(readFileSync(preview.outputs['sql-file']!, 'utf8')).toContain(evil.replaceAll("'", "''"))
  const files = dirname(preview.outputs['sql-file']!)
  for (const name of ['env', 'path', 'state']) expect(readFileSync(join(files, name), 'utf8'), name).toBe('')

  const apply = await run(workspace, url, { mode: 'apply' })
  const after = [/^Notices of PostgreSQL$/, /^Output of the scripts$/]
  expectHarmless(apply, [/^Output of the app$/, /^Output of the dry run$/, revision, ...after])
  expect(apply.outputs).toMatchObject({ outcome: 'applied', ...heads })
  expect(github.comments.get(7)).toHaveLength(1)
  const { rows } = await query(url, `SELECT v, (SELECT version_num FROM alembic_version) AS head FROM "${table}"`)
  expect(rows).toEqual([{ v: evil, head: id }])

  // The hostile head is now the database's, and in the way of another checkout.
  const other = writeProject({ scripts: [{ id: 'b', upgrade: 'pass' }] })
  const before = await contents(url)
  const refused = await run(other, url, { mode: 'apply' })
  expectHarmless(refused, [], [/^Can't locate revision identified by 'a\|`<b>#1,/])
  expect(refused.outputs).toMatchObject({ outcome: 'refused', 'failure-reason': 'unknown-revision' })
  expect(refused.outputs['new-head']).toBe(heads['new-head'])
  expect(await contents(url)).toBe(before)
})

test('10 MB in each place: the log, the comment and the memory stay small, and a failure is told', async () => {
  const size = 10 * 1024 * 1024
  const raise = `RAISE EXCEPTION USING MESSAGE = ${quoted(evil)} || repeat('x', ${size}), DETAIL = ${quoted(evil)} || repeat('y', ${size}), HINT = ${quoted(evil)}`
  const failing: Script = {
    id: 'failing',
    upgrade: `
from alembic import context
if context.is_offline_mode():
    raise Exception(${python(evil)} + "x" * ${size})
print("z" * ${size}, end="", flush=True)
op.execute("DO 'BEGIN RAISE NOTICE ''%', repeat(''n'', ${size}); END'".replace("%'", "%''"))
${execute(`DO ${quoted(`BEGIN ${raise}; END`)}`)}`,
  }
  const literal: Script = {
    id: 'literal',
    upgrade: `
op.execute("CREATE TABLE big (v text)")
op.execute("INSERT INTO big VALUES ('" + "v" * ${size} + "')")`,
  }
  const workspace = writeProject({ scripts: [literal, failing] })
  const url = await createDatabase()
  const before = await contents(url)
  const peak = mkdtempSync(join(tmpdir(), 'atomic-upgrade-peak-'))
  // Node's own words at the end of the process; the kernel's measure is in KiB.
  const measure = `import { writeFileSync } from 'node:fs'; process.on('exit', () => writeFileSync('${peak}/' + process.pid, String(process.resourceUsage().maxRSS)))`
  const environment = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(measure)}` }
  const step = await run(workspace, url, { mode: 'apply' }, { environment })
  const groups = [/^literal/, /^Notices of PostgreSQL$/, /^Output of the scripts$/]
  expectHarmless(step, groups, [
    /^Revision failing \(failing\) failed: <\/summary>.*The database is at base, as before\./s,
  ])
  expect(step.outputs).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'migration-failed' })
  expect(await contents(url)).toBe(before)
  expect(step.log.length).toBeLessThan(100_000)
  expect(step.summary.length).toBeLessThan(20_000)
  const [rss = 0] = readdirSync(peak).map(name => Number(readFileSync(join(peak, name), 'utf8')) / 1024)
  expect(rss).toBeGreaterThan(0)
  expect(rss).toBeLessThan(600)
})
