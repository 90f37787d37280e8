import { scanSync } from 'libpg-query'

/**
 * A statement with its constants replaced by `$1`, `$2` and so on. Lengths and scales of types, which tell nothing of
 * anybody, stay. Comments go. Needs the parser to be loaded.
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
  const pieces: string[] = []
  let [at, count] = [0, 0]
  // Of a type, the parenthesis behind its name, and what was read in it, up to now.
  let [word, isOfType] = ['', false]
  for (const { start, end, tokenType, text } of tokens) {
    const comment = comments.has(tokenType)
    if (!comment) {
      if (text === '(') isOfType = sized.test(word)
      else if (text !== ',' && tokenType !== integer) isOfType = false
      word = text
    }
    if (!comment && !strings.has(tokenType) && (!numbers.has(tokenType) || isOfType)) continue
    pieces.push(bytes.toString('utf8', at, start), comment ? '' : `$${++count}`)
    at = end
  }
  return [...pieces, bytes.toString('utf8', at)].join('').trim()
}

/** In characters. */
const longest = 4_000_000

/** The last word of PostgreSQL's types that have a length, a precision or a scale, and of pgvector's; none is a function's. */
const sized =
  /^(varchar|varying|char|character|nchar|bpchar|numeric|decimal|dec|bit|varbit|float|time|timetz|timestamp|timestamptz|interval|vector|halfvec|sparsevec)$/i

/** FCONST, SCONST, USCONST, BCONST, XCONST and ICONST of PostgreSQL 18's grammar. */
const [float, string, unicodeString, bits, hex, integer] = [260, 261, 262, 263, 264, 266]
const strings = new Set([string, unicodeString, bits, hex])
const numbers = new Set([float, integer])
/** Its SQL_COMMENT and C_COMMENT. */
export const comments = new Set([275, 276])
