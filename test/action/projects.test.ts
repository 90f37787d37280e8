import { describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { type Shape, shapes, withDriver } from '../support/shapes.mts'

/** What a raw run of a shape's history leaves, at its heads and, where that is asked for, back at its base. */
interface Twin {
  up: string
  down: () => Promise<string>
}

async function raw({ raw }: Shape): Promise<Twin> {
  const url = await createDatabase()
  await raw(url, 'upgrade', 'heads')
  const up = await contents(url)
  let down: Promise<string> | undefined
  const backAtBase = async () => {
    await raw(url, 'downgrade', 'base')
    return contents(url)
  }
  return { up, down: () => (down ??= backAtBase()) }
}

/** The shapes that leave something of their own; all the others leave the same. */
const ownTwin =
  /version table|two heads|branches|plain Alembic, template async, asyncpg|revisions that commit by themselves/
let common: Promise<Twin> | undefined
const twinOf = (name: string, shape: Shape): Promise<Twin> => {
  if (ownTwin.test(name)) return raw(shape)
  common ??= raw(shape)
  return common
}

const ways = ['preview', 'rehearse', 'downgrade'] as const
/** Those that go each way; the others take turns, and every driver and kind of project goes each way all the same. */
const inFull = /Flask-Migrate with psycopg2|template async, asyncpg|in env\.py|branches/

/** Each shape is applied, previewed, rehearsed or downgraded, and compared with what a raw run leaves. */
describe('The same as without the action, for', () => {
  for (const [at, [name, make]] of Object.entries(shapes).entries()) {
    const goes = (way: (typeof ways)[number]) => inFull.test(name) || ways[at % ways.length] === way
    test(name, async () => {
      const shape = make()
      const { folder, inputs, driver, environment = {} } = shape
      const ours = await createDatabase()
      const empty = await contents(ours)
      const run = (more: Record<string, string>) =>
        start(folder, withDriver(ours, driver), { ...inputs, revision: 'heads', ...more }, { environment })

      const beforehand = []
      if (goes('preview')) {
        const preview = await run({})
        expect(preview.outputs, preview.log).toMatchObject({ outcome: 'previewed', 'prior-head': '' })
        beforehand.push(preview)
      }
      if (goes('rehearse')) {
        const rehearsal = await run({ mode: 'rehearse' })
        expect(rehearsal.outputs, rehearsal.log).toMatchObject({ outcome: 'rehearsed' })
        beforehand.push(rehearsal)
      }
      expect(await contents(ours)).toBe(empty)

      const applied = await run({ mode: 'apply' })
      expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied' })
      for (const step of beforehand) {
        expect(step.outputs['new-head']).toBe(applied.outputs['new-head'])
        expect(step.outputs.revisions).toBe(applied.outputs.revisions)
      }
      const twin = await twinOf(name, shape)
      expect(await contents(ours)).toBe(twin.up)

      if (goes('downgrade')) {
        const down = await run({ mode: 'apply', direction: 'downgrade', revision: 'base' })
        expect(down.outputs, down.log).toMatchObject({ outcome: 'applied', 'new-head': '' })
        expect(await contents(ours)).toBe(await twin.down())
      }
      expect(await leftovers(ours)).toEqual([])
    })
  }
})
