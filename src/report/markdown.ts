/** User text in Markdown: nothing of it may end its fence or cell, become HTML, or mention people. */

/** A zero-width space: invisible, and what follows is no mention, reference or link any more. */
const gap = '\u200b'

/** Characters that neither Markdown nor a terminal should get to see, halves of surrogate pairs too; tabs and line feeds stay. */
const controls =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are the point
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\p{Cs}]/gu

export const printable = (text: string): string => text.replaceAll('\r\n', '\n').replace(controls, '\ufffd')

const oneLine = (text: string): string => printable(text).replaceAll(/\s+/g, ' ').trim()

/** Takes the meaning from what GitHub finds in any text: mentions, references, links and emoji names. */
const defused = (text: string): string =>
  text
    .replaceAll(/[@#]|:(?=\/\/|[\w+-]+(?::|$))|www(?=\.)/gi, mark => mark + gap)
    .replaceAll(/\b(GH)-(\d)/gi, `$1${gap}-$2`)

/** Text in running Markdown, on one line. */
export function prose(text: string): string {
  return defused(oneLine(text))
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll(/[\\`*_{}[\]()|~!$]/g, '\\$&')
    .replace(/^(\d*)([-+=.])/, '$1\\$2')
}

/** The same with code where the text has it between backticks. */
export function proseWithCode(text: string): string {
  const pieces = oneLine(text).split(/`([^`]+)`/)
  return pieces.map((piece, i) => (i % 2 === 0 ? spaced(piece, prose) : code(piece))).join('')
}

/** Keeps the spaces at both ends, which part it from its neighbours. */
const spaced = (text: string, change: (text: string) => string): string =>
  text.replace(
    /^( ?)(.*?)( ?)$/s,
    (_, before: string, middle: string, after: string) => before + change(middle) + after,
  )

/** Inline code on one line, in a table cell too. */
export function code(text: string): string {
  const line = oneLine(text)
  if (line === '') return ''
  if (!/[`|]/.test(line)) return `\`${line}\``
  const escaped = line
    .replaceAll(/[&<>\\`*_{}[\]()|~!$#@:.]/g, character => `&#${character.codePointAt(0)};`)
    .replaceAll('&#64;', `&#64;${gap}`)
  return `<code>${escaped}</code>`
}

/** A fenced block whose fence is longer than any run of backticks in the text. */
export function fenced(text: string, language: string): string {
  const body = printable(text)
  let longest = 2
  for (const [run] of body.matchAll(/`+/g)) longest = Math.max(longest, run.length)
  const fence = '`'.repeat(longest + 1)
  return `${fence}${language}\n${body}\n${fence}`
}

/** A folded section; `summary` is Markdown-free HTML. */
export const folded = (summary: string, body: string): string =>
  `<details><summary>${summary}</summary>\n\n${body}\n\n</details>`

/** Text for an HTML context, on one line. */
export const html = (text: string): string =>
  defused(oneLine(text)).replaceAll(/[&<>"]/g, character => `&#${character.codePointAt(0)};`)
