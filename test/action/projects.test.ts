import { describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { shapes, withDriver } from '../support/shapes.mts'

/** Each shape is previewed, rehearsed, applied and downgraded, and compared with a raw run on a twin database. */
describe('The same as without the action, for', () => {
  for (const [name, make] of Object.entries(shapes)) {
    test(name, async () => {
      const { folder, inputs, driver, raw, environment = {} } = make()
      const [ours, twin] = [await createDatabase(), await createDatabase()]
      const empty = await contents(ours)
      const run = (more: Record<string, string>) =>
        start(folder, withDriver(ours, driver), { ...inputs, revision: 'heads', ...more }, { environment })

      const preview = await run({})
      expect(preview.outputs, preview.log).toMatchObject({ outcome: 'previewed', 'prior-head': '' })
      const rehearsal = await run({ mode: 'rehearse' })
      expect(rehearsal.outputs, rehearsal.log).toMatchObject({ outcome: 'rehearsed' })
      expect(await contents(ours)).toBe(empty)

      const applied = await run({ mode: 'apply' })
      expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied' })
      for (const step of [preview, rehearsal]) {
        expect(step.outputs['new-head']).toBe(applied.outputs['new-head'])
        expect(step.outputs.revisions).toBe(applied.outputs.revisions)
      }
      await raw(twin, 'upgrade', 'heads')
      expect(await contents(ours)).toBe(await contents(twin))

      const down = await run({ mode: 'apply', direction: 'downgrade', revision: 'base' })
      expect(down.outputs, down.log).toMatchObject({ outcome: 'applied', 'new-head': '' })
      await raw(twin, 'downgrade', 'base')
      expect(await contents(ours)).toBe(await contents(twin))
      expect(await leftovers(ours)).toEqual([])
    })
  }
})
