import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import MarkdownIt from 'markdown-it'
import { startChromium } from './chromium.mts'

const root = join(import.meta.dirname, '..')
const snapshots = join(root, 'test', 'unit', 'faces')
const stylesheet = readFileSync(
  createRequire(import.meta.url).resolve('github-markdown-css/github-markdown-light.css'),
  'utf8',
)

/** The keywords of SQL that occur in our examples; GitHub knows all of them. */
const keywords =
  /\b(ALTER|AND|CONCURRENTLY|COLUMN|CREATE|DEFAULT|DELETE|DROP|FOREIGN|FROM|INDEX|INSERT|INTO|IS|KEY|NOT|NULL|ON|OR|PRIMARY|REFERENCES|SELECT|SET|TABLE|TO|UPDATE|VALUES|WHERE|LIKE)\b/g

const escaped = (text: string) =>
  text.replaceAll(/[&<>]/g, character => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[character]!)

/** SQL in the colours that GitHub gives to strings, comments and keywords. */
function colored(sql: string): string {
  return sql
    .split(/('[^']*'|--.*)/)
    .map((part, i) => {
      if (i % 2 === 1) return `<span class="pl-${part.startsWith('--') ? 'c' : 's'}">${escaped(part)}</span>`
      return escaped(part).replaceAll(keywords, '<span class="pl-k">$1</span>')
    })
    .join('')
}

const markdown = new MarkdownIt('default', {
  html: true,
  highlight: (text, language) => (language === 'sql' ? colored(text) : escaped(text)),
})

/** As GitHub draws a comment, with its first folded section open. */
function page(text: string, open: boolean): string {
  const html = markdown
    .render(text)
    .replaceAll(
      /<blockquote>\n<p>\[!(NOTE|WARNING)\]\n(.*?)<\/blockquote>/gs,
      (_, kind: string, rest: string) =>
        `<div class="markdown-alert markdown-alert-${kind.toLowerCase()}"><p class="markdown-alert-title">${kind[0]}${kind.slice(1).toLowerCase()}</p><p>${rest}</div>`,
    )
    .replace('<details>', open ? '<details open>' : '<details>')
  return `<!doctype html><meta charset="utf-8"><style>${stylesheet}
    body { margin: 0; padding: 16px; background: #fff; font-family: -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; }
    .comment { border: 1px solid #d1d9e0; border-radius: 6px; }
    .author { background: #f6f8fa; border-bottom: 1px solid #d1d9e0; border-radius: 6px 6px 0 0; padding: 8px 16px; font-size: 14px; color: #59636e; }
    .author b { color: #1f2328; }
    .bot { border: 1px solid #d1d9e0; border-radius: 2em; padding: 0 7px; font-size: 12px; }
    .markdown-body { padding: 16px; font-size: 14px; }
  </style><div class="comment"><div class="author"><b>github-actions</b> <span class="bot">bot</span> commented</div>
  <div class="markdown-body">${html}</div></div>`
}

const readme = process.argv.includes('--readme')
const folder = resolve(process.argv.slice(2).find(argument => !argument.startsWith('-')) ?? '.cache/faces')
const pages = mkdtempSync(join(tmpdir(), 'atomic-upgrade-faces-'))
const chromium = await startChromium(process.env.CHROMIUM ?? 'chromium')
const draw = async (name: string, picture: string, open: boolean) => {
  const file = join(pages, `${name}.html`)
  writeFileSync(file, page(readFileSync(join(snapshots, `${name}.md`), 'utf8'), open))
  // The width of a comment on GitHub's page.
  writeFileSync(picture, await chromium.picture(pathToFileURL(file).href, 880))
  console.log(picture)
}
if (readme) await draw('previewed', join(root, 'docs', 'images', 'comment.png'), true)
else {
  mkdirSync(folder, { recursive: true })
  for (const file of readdirSync(snapshots)) {
    const name = file.replace(/\.md$/, '')
    await draw(name, join(folder, `${name}.png`), name === 'hostile' || name.startsWith('previewed'))
  }
}
await chromium.stop()
rmSync(pages, { recursive: true })
