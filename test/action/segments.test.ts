import { describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { flask, type Script, writeProject } from '../support/project.mts'
import { dividedShapes, withDriver } from '../support/shapes.mts'

/** Shaped like real ones: an index that is built while the table is in use, and an enum that grows. */
const history: Script[] = [
  {
    id: 'a1',
    upgrade: `
op.execute("CREATE TABLE orders (id int PRIMARY KEY, email text NOT NULL, note text)")
op.execute("INSERT INTO orders SELECT n, 'customer' || n || '@example.com' FROM generate_series(1, 500) AS n")`,
  },
  { id: 'a2', upgrade: `op.execute("CREATE TYPE status AS ENUM ('new', 'paid')")` },
  { id: 'a3', upgrade: `op.execute("ALTER TABLE orders ADD COLUMN status status NOT NULL DEFAULT 'new'")` },
  {
    id: 'b4',
    message: 'find orders by address',
    upgrade: `
with op.get_context().autocommit_block():
    op.create_index("orders_email", "orders", ["email"], unique=True, postgresql_concurrently=True)`,
  },
  { id: 'b5', upgrade: `op.execute("UPDATE orders SET note = 'seen' WHERE id % 2 = 0")` },
  { id: 'b6', upgrade: `op.execute("CREATE VIEW paid AS SELECT id FROM orders WHERE status = 'paid'")` },
  {
    id: 'b7',
    message: 'orders can be sent',
    upgrade: `
with op.get_context().autocommit_block():
    op.execute("ALTER TYPE status ADD VALUE 'sent'")`,
  },
  { id: 'c8', upgrade: `op.execute("UPDATE orders SET status = 'sent' WHERE id = 1")` },
  { id: 'c9', upgrade: `op.execute("CREATE TABLE parcels (id int PRIMARY KEY)")` },
  { id: 'c10', upgrade: `op.execute("INSERT INTO parcels SELECT id FROM orders WHERE status = 'sent'")` },
]

/** The history with other bodies for some of its scripts. */
const withScripts = (bodies: Record<string, string>): string =>
  writeProject({ scripts: history.map(script => ({ ...script, upgrade: bodies[script.id] ?? script.upgrade })) })

const apply = { mode: 'apply', segments: 'true', comment: 'false' }

const segmentsIn = (outputs: Record<string, string>) =>
  (JSON.parse(outputs.segments!) as { revisions: string[]; statement?: string; outcome: string }[]).map(
    ({ revisions, statement, outcome }) => `${statement ? '!' : ''}${revisions.join(' ')}: ${outcome}`,
  )

describe('A batch that is not one transaction', () => {
  const project = withScripts({})

  test('is refused without segments, before anything runs, and the way out is named', async () => {
    const url = await createDatabase()
    const step = await start(project, url, { ...apply, segments: 'false' })
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'refused',
      'failure-reason': 'not-transactional',
      segments: '[]',
    })
    expect(step.log).toContain('`segments: true`')
    expect(await contents(url)).not.toContain('alembic_version')
  })

  test('runs in the fewest segments, and leaves what a raw upgrade leaves', async () => {
    const [url, raw] = [await createDatabase(), await createDatabase()]
    const step = await start(project, url, apply)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'failure-reason': '', 'new-head': 'c10' })
    expect(segmentsIn(step.outputs)).toEqual([
      'a1 a2 a3: applied',
      '!b4: applied',
      'b4 b5 b6 b7: applied',
      'c8 c9 c10: applied',
    ])
    expect(await flask(project, raw, 'db', 'upgrade')).toMatchObject({ failed: false })
    expect(await contents(url)).toBe(await contents(raw))
    expect(await leftovers(url)).toEqual([])
    expect((await start(project, url, apply)).outputs).toMatchObject({ outcome: 'up-to-date', segments: '[]' })
  })
})

describe('Whoever sends it, it leaves what a raw upgrade leaves:', () => {
  test.each(Object.entries(dividedShapes))('%s', async (_, make) => {
    const shape = make()
    const [url, raw] = [await createDatabase(), await createDatabase()]
    const { folder, inputs, driver } = shape
    const step = await start(folder, withDriver(url, driver), { ...apply, ...inputs })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'aa04' })
    expect(segmentsIn(step.outputs)).toEqual([
      'aa01: applied',
      '!aa02: applied',
      '!aa02: applied',
      'aa02 aa03: applied',
      'aa04: applied',
    ])
    await shape.raw(raw, 'upgrade', 'head')
    expect(await contents(url)).toBe(await contents(raw))
    expect(await leftovers(url)).toEqual([])
  })
})

describe('A later segment fails', () => {
  test('the ninth revision: the segments before it stand, and a second run goes on', async () => {
    const url = await createDatabase()
    const step = await start(withScripts({ c9: 'op.execute("SELECT 1 / 0")' }), url, apply)
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'partly-applied',
      'failure-reason': 'migration-failed',
      'prior-head': '',
      'new-head': 'b7',
    })
    expect(segmentsIn(step.outputs)).toEqual([
      'a1 a2 a3: applied',
      '!b4: applied',
      'b4 b5 b6 b7: applied',
      'c8 c9 c10: rolled-back',
    ])
    const error = step.commands.find(({ name }) => name === 'error')!.text
    expect(error).toContain('The database is at b7.')
    expect(error).toContain('Mend the script. Run the step again: it goes on from b7.')
    expect((await query(url, 'SELECT version_num FROM alembic_version')).rows).toEqual([{ version_num: 'b7' }])
    expect(await contents(url)).not.toContain('parcels')
    expect(await leftovers(url)).toEqual([])
    const second = await start(withScripts({}), url, apply)
    expect(second.outputs, second.log).toMatchObject({ outcome: 'applied', 'prior-head': 'b7', 'new-head': 'c10' })
    expect(segmentsIn(second.outputs)).toEqual(['c8 c9 c10: applied'])
  })

  test('behind the index: it is named as standing outside of any revision, and found there by a second run', async () => {
    const url = await createDatabase()
    const step = await start(withScripts({ b5: 'op.execute("SELECT 1 / 0")' }), url, apply)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'partly-applied', 'new-head': 'a3' })
    expect(segmentsIn(step.outputs)).toEqual([
      'a1 a2 a3: applied',
      '!b4: applied',
      'b4 b5 b6 b7: rolled-back',
      'c8 c9 c10: not-run',
    ])
    const standing = 'CREATE UNIQUE INDEX CONCURRENTLY orders_email ON orders (email)'
    expect(step.log).toContain(`Outside of any revision, this of b4 stands: ${standing}.`)
    const second = await start(withScripts({}), url, apply)
    expect(second.outputs, second.log).toMatchObject({ outcome: 'applied', 'new-head': 'c10' })
    expect(second.log).toContain('The index public.orders_email is there already, as this statement makes it.')
  })

  test('the index itself, by rows that are not unique: found invalid, dropped, and built by the second run', async () => {
    const url = await createDatabase()
    const doubled = { a3: `${history[2]!.upgrade}\nop.execute("UPDATE orders SET email = 'same' WHERE id < 3")` }
    const step = await start(withScripts(doubled), url, apply)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'partly-applied', 'new-head': 'a3' })
    expect(segmentsIn(step.outputs).slice(0, 3)).toEqual(['a1 a2 a3: applied', '!b4: failed', 'b4 b5 b6 b7: not-run'])
    expect(step.log).toContain('The index public.orders_email was left invalid.')
    await query(url, `UPDATE orders SET email = 'other' WHERE id = 1`)
    const second = await start(withScripts({}), url, apply)
    expect(second.outputs, second.log).toMatchObject({ outcome: 'applied', 'new-head': 'c10' })
    expect(second.log).toContain('The index public.orders_email is invalid, left by a build that failed')
    expect(await contents(url)).toMatch(/UNIQUE INDEX orders_email .* \| true/)
  })

  test('in the middle of a script that is not made for it: what stands of it is said, and that it cannot go on', async () => {
    const url = await createDatabase()
    const half = `op.execute("CREATE TABLE marks (id int)")\n${history[3]!.upgrade.trim()}\nop.execute("SELECT 1 / 0")`
    const preview = await start(withScripts({ b4: half }), url, { ...apply, mode: 'preview' })
    expect(preview.log).toContain('Revision b4 may come to stand half')
    const step = await start(withScripts({ b4: half }), url, apply)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'partly-applied', 'new-head': 'a3' })
    expect(segmentsIn(step.outputs).slice(0, 3)).toEqual([
      'a1 a2 a3 b4: applied',
      '!b4: applied',
      'b4 b5 b6 b7: rolled-back',
    ])
    expect(step.log).toContain('stands: CREATE TABLE marks (id int); CREATE UNIQUE INDEX CONCURRENTLY orders_email')
    expect(step.log).toContain('Alembic runs revision b4 from its start again, and a part of it is there already')
  })
})

describe('Beforehand', () => {
  test('a preview shows the segments, and where the run can stop', async () => {
    const url = await createDatabase()
    const step = await start(withScripts({}), url, { ...apply, mode: 'preview' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'plan-file': '' })
    expect(segmentsIn(step.outputs)).toEqual([
      'a1 a2 a3: planned',
      '!b4: planned',
      'b4 b5 b6 b7: planned',
      'c8 c9 c10: planned',
    ])
    expect(step.summary).toContain('stops behind it at `a3`, with a part of `b4`')
    expect(step.log).not.toContain('An apply will refuse')
  })

  test('a rehearsal is refused: it could not be undone', async () => {
    const url = await createDatabase()
    const step = await start(withScripts({}), url, { ...apply, mode: 'rehearse' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'not-transactional' })
    expect(step.log).toContain('A rehearsal is rolled back, and this could not be undone.')
    expect(await contents(url)).not.toContain('alembic_version')
  })

  test('nothing of it is said of a batch that is one transaction', async () => {
    const url = await createDatabase()
    const step = await start(withScripts({}), url, { ...apply, revision: 'a3' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'a3' })
    expect(segmentsIn(step.outputs)).toEqual(['a1 a2 a3: applied'])
    expect(step.summary).toContain('in one transaction')
    expect(step.summary).not.toContain('segment')
  })
})
