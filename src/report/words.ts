import type { StatementFailure } from '../failure'

export const count = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? '' : 's'}`

export function seconds(milliseconds: number): string {
  return milliseconds < 9_950 ? `${(milliseconds / 1000).toFixed(2)} s` : `${(milliseconds / 1000).toFixed(0)} s`
}

/** PostgreSQL's words about a statement, with its position as a line and a caret, as psql shows them. */
export function describeStatement({ sql, code, message, detail, hint, position }: StatementFailure): string {
  return [
    code && `ERROR ${code}: ${clip(message, longest)}`,
    detail && `DETAIL: ${clip(detail, longest)}`,
    hint && `HINT: ${clip(hint, longest)}`,
    ...excerpt(sql, position),
  ]
    .filter(line => line !== undefined && line !== '')
    .join('\n')
}

/** How much to show of a message, a detail and a hint; a script can raise what it likes. */
export const longest = 1_500

/** The longest piece of a line to show, in characters, and the most lines. */
const width = 160
const height = 8

function excerpt(sql: string, position: number | undefined): string[] {
  if (position === undefined) {
    const lines = sql.split(/\r?\n/)
    const shown = lines.slice(0, height).map(line => `  ${clip(line, width)}`)
    return lines.length > height ? [...shown, '  …'] : shown
  }
  // PostgreSQL counts characters, not UTF-16 units.
  const before = [...sql].slice(0, Math.max(0, position - 1)).join('')
  const start = before.lastIndexOf('\n') + 1
  const end = sql.indexOf('\n', start)
  // A tab would move the caret; psql shows it as a space too.
  const line = [
    ...sql
      .slice(start, end < 0 ? undefined : end)
      .replace(/\r$/, '')
      .replaceAll('\t', ' '),
  ]
  const column = [...before.slice(start)].length
  const from = Math.max(0, column - width / 2)
  const head = `LINE ${before.split('\n').length}: ${from > 0 ? '…' : ''}`
  const shown = line.slice(from, from + width).join('')
  return [`${head}${shown}${from + width < line.length ? '…' : ''}`, `${' '.repeat(head.length + column - from)}^`]
}

/** The longest name, message and paragraph shown, in characters: what is never dropped must fit in any case. */
export const [nameLength, messageLength, paragraphLength] = [200, 300, 1_500]

/** At most `length` UTF-16 units and a mark that something is missing; no character is cut in two. */
export const clip = (text: string, length: number): string =>
  text.length > length ? `${text.slice(0, length).replace(/[\ud800-\udbff]$/, '')}…` : text
