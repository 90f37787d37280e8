import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { root } from '../support/runner.mts'

const read = (path: string) => readFileSync(join(root, path), 'utf8')

/** The anchors of a page's headings, as GitHub makes them. */
const anchors = (markdown: string) =>
  [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  )

describe('Every link leads somewhere:', () => {
  for (const page of ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...globSync('docs/*.md', { cwd: root })]) {
    test(page, () => {
      for (const [, target] of read(page).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^https?:/.test(target!)) continue
        const [path, anchor] = target!.split('#')
        const file = path ? join(dirname(page), path) : page
        expect(existsSync(join(root, file)), target).toBe(true)
        if (anchor) expect(anchors(read(file)), target).toContain(anchor)
      }
    })
  }
})
