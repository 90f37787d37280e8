import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createDatabase, secondProject, seedProject, start } from '../support/action.mts'
import { type GitHub, startGitHub } from '../support/github.mts'
import { query } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'

let github: GitHub
let url: string
beforeEach(async () => {
  github = await startGitHub()
  url = await createDatabase()
})
afterEach(() => github.stop())

const event = { name: 'pull_request', payload: { pull_request: { number: 7 } } }
const step = (workspace: string, inputs: Record<string, string>) =>
  start(workspace, url, inputs, { github: github.url, event })

/** Compares what was written last with its snapshot; only how long it took may differ. */
async function expectFace(name: string, text = github.written.at(-1)!): Promise<void> {
  const timeless = text.replaceAll(/\d+(\.\d\d)?&nbsp;s/g, '0.00&nbsp;s')
  await expect(timeless).toMatchFileSnapshot(join(import.meta.dirname, 'faces', `${name}.md`))
}

test('the life of a pull request, as its reader sees it', async () => {
  await step(seedProject, {})
  await expectFace('1-previewed')
  await step(seedProject, { mode: 'rehearse', revision: '5a77262c502b' })
  await expectFace('2-rehearsed')
  await step(seedProject, { mode: 'apply' })
  await expectFace('3-upgrading', github.written.at(-2)!)
  await expectFace('4-rolled-back')
  await step(seedProject, { mode: 'apply', revision: '5a77262c502b' })
  await expectFace('5-applied')
  await step(seedProject, { mode: 'apply', revision: '5a77262c502b' })
  expect((await step(seedProject, { revision: '5a77262c502b' })).outputs.outcome).toBe('up-to-date')
  await expectFace('5-applied')
  await step(seedProject, { mode: 'apply', direction: 'downgrade' })
  await expectFace('6-downgraded')
  expect(github.comments.get(7)).toHaveLength(1)
})

test('scripts that read the database', async () => {
  await step(secondProject, {})
  await expectFace('not-rendered')
})

test('300 revisions with 3,000 statements, one of them of 2 MB, are shown as far as GitHub takes it', async () => {
  const letters = 'é'.repeat(300)
  const scripts = Array.from({ length: 300 }, (_, i) => ({
    id: `rev${i + 1}`,
    upgrade:
      i === 0
        ? 'op.execute("CREATE TABLE t (name text)")'
        : `for j in range(10): op.execute("INSERT INTO t VALUES ('${letters} %d')" % j)`,
  }))
  scripts[299]!.upgrade += `\nop.execute("INSERT INTO t VALUES ('" + 2 * 1024 * 1024 * "x" + "')")`
  const { outputs, summary, log } = await step(writeProject({ scripts }), { mode: 'apply' })
  expect(outputs).toMatchObject({ outcome: 'applied', pending: '300', 'new-head': 'rev300' })
  const { rows } = await query(url, 'SELECT count(*)::int AS number, max(length(name)) AS longest FROM t')
  expect(rows).toEqual([{ number: 2_991, longest: 2 * 1024 * 1024 }])

  expect(github.written).toHaveLength(2)
  for (const text of github.written) {
    expect(text.length).toBeLessThanOrEqual(65_536)
    expect(text.match(/^\| \d+ \|/gm)).toHaveLength(300)
    expectWholeSections(text)
  }
  expect(Buffer.byteLength(summary)).toBeLessThanOrEqual(1024 * 1024)
  expect(Buffer.byteLength(summary)).toBeGreaterThan(1000 * 1024)
  expectWholeSections(summary)
  // The log shows the start of the long statement.
  expect(log.length).toBeLessThan(3 * 1024 * 1024)
})

/** Every folded section is closed, and holds all statements of its revision; a note counts those that are missing. */
function expectWholeSections(text: string): void {
  const sections = text.split('<details>').slice(1)
  expect(sections.length).toBeGreaterThan(5)
  for (const [i, section] of sections.entries()) {
    const [sql, rest] = section.split('\n```\n')
    expect(rest).toMatch(/^\n<\/details>\n/)
    expect(sql!.match(/;$/gm)).toHaveLength(i === 0 ? 1 : 10)
  }
  expect(text).toContain(`_The SQL of ${300 - sections.length} more revisions is not shown here: see the`)
}
