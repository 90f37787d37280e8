import { afterAll, beforeAll, expect, test } from 'vitest'
import { Stage } from '../connections/stage.mts'
import { tableOf, walk } from '../connections/walk.mts'
import { createDatabase } from '../support/action.mts'

let stage: Stage

beforeAll(async () => {
  stage = await Stage.open({ raw: await createDatabase(), gate: await createDatabase() })
})

afterAll(() => stage.close())

test('200 programs over two and three connections end as on a server itself, or are refused with reason', async () => {
  const counts = await walk(stage, 1, 200)
  console.log(tableOf(counts))
  expect(counts.get('same')).toBeGreaterThan(150)
}, 240_000)
