/** User text in Markdown: nothing of it may end its fence or cell, become HTML, or mention people. */

/** A zero-width space: invisible, and what follows is no mention, reference or link any more. */
const gap = '\u200b'

/** Characters that neither Markdown nor a terminal should get to see; tabs and line feeds stay. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are the point
const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g

export const printable = (text: string): string => text.replaceAll('\r\n', '\n').replace(controls, '\ufffd')

/** Text in running Markdown, on one line. */
export function prose(text: string): string {
  return printable(text)
    .replaceAll(/\s+/g, ' ')
    .trim()
    .replaceAll(/[&<>]/g, character => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[character]!)
    .replaceAll(/[\\`*_{}[\]()|~!$]/g, '\\$&')
    .replaceAll(/[@#]|:\/\/|www\./gi, mark => mark + gap)
    .replaceAll(/\b(GH)-(\d)/gi, `$1${gap}-$2`)
}

/** Inline code on one line, in a table cell too. */
export function code(text: string): string {
  const line = printable(text).replaceAll(/\s+/g, ' ').trim()
  if (line === '') return ''
  if (!/[`|]/.test(line)) return `\`${line}\``
  return `<code>${line
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll(/[\\`*_{}[\]()|~!$#@:]/g, character => `&#${character.codePointAt(0)};`)}</code>`
}

/** A fenced block whose fence is longer than any run of backticks in the text. */
export function fenced(text: string, language: string): string {
  const body = printable(text)
  const longest = Math.max(2, ...[...body.matchAll(/`+/g)].map(run => run[0].length))
  const fence = '`'.repeat(longest + 1)
  return `${fence}${language}\n${body}\n${fence}`
}

/** A folded section; `summary` is Markdown-free HTML. */
export const folded = (summary: string, body: string): string =>
  `<details><summary>${summary}</summary>\n\n${body}\n\n</details>`

/** Text for an HTML context. */
export const html = (text: string): string =>
  printable(text)
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/[&<>"]/g, character => `&#${character.codePointAt(0)};`)
    .replaceAll(/[@#]/g, mark => mark + gap)
