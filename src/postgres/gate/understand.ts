import { type Effect, effectOf, splitStatements } from '../../plan/statements'

/** One statement of a client's message, and what the gate has to do about it. */
export interface Understood {
  /** Goes upstream as it is. */
  bytes: Buffer
  text: string
  effect: Effect | { kind: 'refuse'; why: string }
}

/**
 * Reads the SQL of a Query or Parse message. What we misread cannot end the transaction: each piece goes upstream as
 * one extended-protocol statement, which the server refuses (42601) when it counts more than one.
 */
export function understand(bytes: Buffer): Understood[] {
  const text = bytes.toString('utf8')
  try {
    const statements = splitStatements(text)
    if (statements.length === 1) return [{ bytes, text, effect: effectOf(statements[0]!.tree) }]
    return statements.map(({ sql, tree }) => ({ bytes: Buffer.from(sql), text: sql, effect: effectOf(tree) }))
  } catch {
    // Not in our parser's grammar: the server decides, unless it might be transaction control to the server.
    const [word] = /^\w*/.exec(skipComments(text)) ?? ['']
    const why = `Atomic Upgrade's gate cannot read this ${word.toUpperCase()} statement`
    return [{ bytes, text, effect: controlWords.test(word) ? { kind: 'refuse', why } : { kind: 'other' } }]
  }
}

const controlWords = /^(abort|begin|commit|end|prepare|release|rollback|savepoint|start)$/i

/** The text behind leading white space and comments (which nest in PostgreSQL). */
function skipComments(text: string): string {
  let rest = text.trimStart()
  for (;;) {
    if (rest.startsWith('--')) rest = rest.slice(rest.search(/\n|$/)).trimStart()
    else if (rest.startsWith('/*')) rest = rest.slice(endOfComment(rest)).trimStart()
    else return rest
  }
}

function endOfComment(text: string): number {
  let depth = 0
  for (const { 0: mark, index } of text.matchAll(/\/\*|\*\//g)) {
    depth += mark === '/*' ? 1 : -1
    if (depth === 0) return index + 2
  }
  return text.length
}
