import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { faces } from './faces'

const folder = join(import.meta.dirname, 'faces')

for (const [name, markdown] of faces) {
  test(name, async () => {
    await expect(markdown).toMatchFileSnapshot(join(folder, `${name}.md`))
  })
}

test('there is no snapshot of what is no more', () => {
  expect(readdirSync(folder).sort()).toEqual([...faces.keys()].map(name => `${name}.md`).sort())
})
