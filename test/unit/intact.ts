import { expect } from 'vitest'
import { blocks, meaningful, rawHtml, running, targets } from './github'

/** The only place that a report leads to. */
export const runLink = 'https://github.com/acme/shop/actions/runs/4711'

/** The report is built of our own blocks alone, each of them closed, and nothing in it has a meaning for GitHub but our links. */
export function expectIntact(
  text: string,
  { sections, items = 0, lists = items > 0 ? 1 : 0 }: { sections?: number; items?: number; lists?: number } = {},
): void {
  const all = blocks(text)
  const open = all.filter(({ type, content }) => type === 'html_block' && content.startsWith('<details>'))
  const close = all.filter(({ type, content }) => type === 'html_block' && content.trim() === '</details>')
  expect(close).toHaveLength(open.length)
  if (sections !== undefined) expect(open).toHaveLength(sections)
  for (const html of rawHtml(text)) {
    if (html.trim() === '<details><summary>The plan as it was previewed</summary>') continue
    const shell = html.replaceAll(/&#\d+;|[^<>&]/g, '')
    expect(['<><><><><>', '<><>', '<>', '<'], html).toContain(shell)
    if (!html.startsWith('<!--')) {
      expect(html.replaceAll(/<\/?(details|summary|code)>/g, '').replaceAll(/&#\d+;/g, ''), html).not.toMatch(/[<>&]/)
    }
  }
  // Fences and code are the reader's; the rest must not do anything.
  const rest = running(text).replaceAll('summary of the run', '')
  expect(rest).not.toMatch(meaningful)
  expect(all.filter(({ type }) => /^(ordered_list|hr|code_block)/.test(type))).toEqual([])
  // A line for each of several databases.
  expect(all.filter(({ type }) => type === 'bullet_list_open')).toHaveLength(lists)
  expect(all.filter(({ type }) => type === 'list_item_open')).toHaveLength(items)
  expect(all.filter(({ type }) => type === 'heading_open')).toHaveLength(1)
  for (const target of targets(text)) expect(target).toBe(runLink)
}
