import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createDatabase, seedProject, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { root } from '../support/runner.mts'

const grants = /## Two roles.*?```sql\n(.*?)```/s.exec(readFileSync(join(root, 'docs/security.md'), 'utf8'))![1]!

test('the two roles of docs/security.md: one that can preview and nothing else, and one that can apply', async () => {
  const url = await createDatabase()
  const first = { mode: 'apply', revision: 'dd7c69423ad9' }
  expect((await start(seedProject, url, first)).outputs.outcome).toBe('applied')
  const shop = new URL(url).pathname.slice(1)
  await query(url, grants.replaceAll('shop', shop).replaceAll('…', 'hunter2hunter2'))
  const tables = await query(
    url,
    `SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`,
  )
  for (const { relname } of tables.rows) await query(url, `ALTER TABLE "${relname}" OWNER TO migrations`)
  try {
    const as = (role: string) => url.replace(/\/\/[^@]*@/, `//${role}:hunter2hunter2@`)
    const before = await contents(url)

    const preview = await start(seedProject, as('migrations_preview'), { mode: 'preview' })
    expect(preview.outputs, preview.log).toMatchObject({ outcome: 'previewed', 'prior-head': 'dd7c69423ad9' })
    for (const mode of ['rehearse', 'apply']) {
      const refused = await start(seedProject, as('migrations_preview'), { mode })
      expect(refused.outputs, refused.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-permitted' })
    }
    await expect(query(as('migrations_preview'), 'CREATE TABLE t (id int)')).rejects.toThrow('permission denied')
    expect(await contents(url)).toBe(before)

    const apply = await start(seedProject, as('migrations'), { mode: 'apply', revision: '5a77262c502b' })
    expect(apply.outputs, apply.log).toMatchObject({ outcome: 'applied', 'new-head': '5a77262c502b' })
  } finally {
    // Roles belong to the whole server.
    for (const role of ['migrations_preview', 'migrations'])
      await query(url, `REASSIGN OWNED BY ${role} TO postgres; DROP OWNED BY ${role}; DROP ROLE ${role}`)
  }
})

test('a grant on the column of the version table is enough to read it', async () => {
  const url = await createDatabase()
  expect((await start(seedProject, url, { mode: 'apply', revision: 'dd7c69423ad9' })).outputs.outcome).toBe('applied')
  const role = `reader_${url.slice(-6)}`
  await query(
    url,
    `CREATE ROLE ${role} LOGIN PASSWORD 'hunter2hunter2'; GRANT SELECT (version_num) ON alembic_version TO ${role}`,
  )
  try {
    const preview = await start(seedProject, url.replace(/\/\/[^@]*@/, `//${role}:hunter2hunter2@`), {})
    expect(preview.outputs, preview.log).toMatchObject({ outcome: 'previewed', 'prior-head': 'dd7c69423ad9' })
  } finally {
    await query(url, `DROP OWNED BY ${role}; DROP ROLE ${role}`)
  }
})
