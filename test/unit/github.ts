import MarkdownIt from 'markdown-it'

/** Reads Markdown as GitHub does, as far as structure goes: CommonMark with tables, strike-through and raw HTML. */
const parser = new MarkdownIt('default', { html: true })

export interface Block {
  type: string
  markup: string
  info: string
  /** The text; of inline blocks what a reader sees. */
  content: string
  children: { type: string; markup: string; content: string }[]
}

export function blocks(markdown: string): Block[] {
  return parser.parse(markdown, {}).map(({ type, markup, info, content, children }) => ({
    type,
    markup,
    info,
    content,
    children: (children ?? []).map(child => ({ type: child.type, markup: child.markup, content: child.content })),
  }))
}

/** Where links and images lead to. */
export const targets = (markdown: string): string[] =>
  parser
    .parse(markdown, {})
    .flatMap(({ children }) => children ?? [])
    .flatMap(child => [child.attrGet('href'), child.attrGet('src')])
    .filter(target => typeof target === 'string')

export const types = (markdown: string): string[] => blocks(markdown).map(({ type }) => type)

/** Raw HTML, piece by piece. */
export const rawHtml = (markdown: string): string[] =>
  blocks(markdown).flatMap(({ type, content, children }) =>
    type === 'html_block'
      ? [content]
      : children.filter(child => child.type === 'html_inline').map(child => child.content),
  )

/** Kinds of inline content, without plain text. */
export const inlines = (markdown: string): string[] =>
  blocks(markdown)
    .flatMap(({ children }) => children.map(child => child.type))
    .filter(type => !['text', 'text_special', 'softbreak'].includes(type))

/** What a reader sees outside of code, where GitHub looks for mentions and references. */
export const running = (markdown: string): string =>
  blocks(markdown)
    .flatMap(({ type, content, children }) => {
      if (type === 'html_block') return [entities(content.replaceAll(/<code>.*?<\/code>|<[^>]*>/gs, ''))]
      let inCode = false
      return [
        children
          .map(child => {
            if (child.type === 'html_inline')
              inCode = child.content === '<code>' || (inCode && child.content !== '</code>')
            return !inCode && /^text/.test(child.type) ? child.content : ' '
          })
          .join(''),
      ]
    })
    .join('\n')

const named: Record<string, string> = { lt: '<', gt: '>', quot: '"', amp: '&' }

export const entities = (html: string): string =>
  html.replaceAll(/&(?:#(\d+)|(lt|gt|quot|amp));/g, (_, number: string | undefined, name: string) =>
    number ? String.fromCodePoint(Number(number)) : named[name]!,
  )

/** What GitHub would turn into a mention, a reference, a link or an emoji. */
export const meaningful = /@\w|#\d|\bGH-\d|:\/\/|www\.|:[\w+-]+:/i
