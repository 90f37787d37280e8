import { scanSync } from 'libpg-query'

/**
 * A statement with its constants replaced by `$1`, `$2` and so on: strings in any statement, and numbers where they are
 * data. In DDL numbers are lengths and scales, which tell nothing of anybody. Comments go. Needs the parser to be loaded.
 */
export function hideLiterals(sql: string): string {
  if (sql.length > longest) return '/* not shown: it is too long for its constants to be told from the rest */'
  // A call of Python's, where a script has no SQL.
  const call = /^[\w.]+\.\w+\(/.exec(sql)?.[0]
  if (call) return `${call}…)`
  let tokens: ReturnType<typeof scanSync>['tokens']
  try {
    tokens = scanSync(sql.replaceAll('\0', '')).tokens
  } catch {
    return '/* not shown: its constants cannot be told from the rest */'
  }
  const bytes = Buffer.from(sql.replaceAll('\0', ''))
  const first = tokens.find(({ tokenType }) => !comments.has(tokenType))
  const hidden = isData(first?.text ?? '') ? new Set([...strings, ...numbers]) : strings
  const pieces: string[] = []
  let [at, count] = [0, 0]
  for (const { start, end, tokenType } of tokens) {
    const comment = comments.has(tokenType)
    if (!comment && !hidden.has(tokenType)) continue
    pieces.push(bytes.toString('utf8', at, start), comment ? '' : `$${++count}`)
    at = end
  }
  return [...pieces, bytes.toString('utf8', at)].join('').trim()
}

/** In characters. */
const longest = 4_000_000

const isData = (word: string): boolean =>
  /^(select|insert|update|delete|merge|with|values|copy|call|execute)$/i.test(word)

/** FCONST, SCONST, USCONST, BCONST, XCONST and ICONST of PostgreSQL 18's grammar. */
const [float, string, unicodeString, bits, hex, integer] = [260, 261, 262, 263, 264, 266]
const strings = new Set([string, unicodeString, bits, hex])
const numbers = new Set([float, integer])
/** Its SQL_COMMENT and C_COMMENT. */
export const comments = new Set([275, 276])
