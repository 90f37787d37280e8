import { setFlagsFromString } from 'node:v8'
import { loadModule, type Node, parseSync, type RawStmt, SqlError } from 'libpg-query'

/** One SQL statement as PostgreSQL's own parser delimits it. */
export interface Statement {
  sql: string
  /** The parse tree's node, keyed by its type: `{ SelectStmt: … }`. */
  tree: Node
  /** Where its terminator is, in bytes of the whole text, or the text's end. */
  end: number
}

/**
 * Loads the parser's WASM once; await it before any other function of this file. V8 is told to leave it at its first
 * compilation: the optimizing one takes half a gigabyte and a second for the parser's tables, and never pays that back.
 */
export async function loadParser(): Promise<void> {
  for (const flag of ['--no-wasm-tier-up', '--no-wasm-dynamic-tiering']) setFlagsFromString(flag)
  await loadModule()
}

/**
 * Splits SQL text into its statements, without their terminators and leading comments.
 * Throws libpg-query's `SqlError` where PostgreSQL 18's grammar does not accept the text.
 */
export function splitStatements(sql: string): Statement[] {
  if (sql.trim() === '') return []
  // The parser would take it for the end, and overlook what follows.
  if (sql.includes('\0')) throw new SqlError('a null byte is not possible in SQL')
  const bytes = Buffer.from(sql)
  // By way of UTF-8, so that the offsets count the same bytes where half a surrogate pair is in the text.
  return (parseSync(bytes.toString()).stmts ?? []).map((raw: RawStmt) => {
    // Offsets are bytes of UTF-8; a length of 0 means "to the end of the text".
    const start = raw.stmt_location ?? 0
    const end = raw.stmt_len ? start + raw.stmt_len : bytes.length
    return { sql: bytes.toString('utf8', start, end).trim(), tree: raw.stmt as Node, end }
  })
}

/** What a statement means to a transaction and to the session around it. */
export type Effect =
  | { kind: 'begin' }
  | { kind: 'commit' | 'rollback'; chain: boolean }
  | { kind: 'savepoint' | 'release' | 'rollback-to'; name: string }
  | { kind: 'prepare' | 'commit-prepared' | 'rollback-prepared'; gid: string }
  | { kind: 'deallocate'; name: string }
  | { kind: 'copy-in' }
  | { kind: 'set-local'; name: string }
  | { kind: 'reset' }
  | { kind: 'read' }
  | { kind: 'other' }

/** Classifies one statement; `read` changes neither data nor session by itself (a function it calls still may). */
export function effectOf(tree: Node): Effect {
  if ('TransactionStmt' in tree) {
    const { kind, chain = false, savepoint_name: name = '', gid = '' } = tree.TransactionStmt
    switch (kind) {
      case 'TRANS_STMT_BEGIN':
      case 'TRANS_STMT_START':
        return { kind: 'begin' }
      case 'TRANS_STMT_COMMIT':
        return { kind: 'commit', chain }
      case 'TRANS_STMT_ROLLBACK':
        return { kind: 'rollback', chain }
      case 'TRANS_STMT_SAVEPOINT':
        return { kind: 'savepoint', name }
      case 'TRANS_STMT_RELEASE':
        return { kind: 'release', name }
      case 'TRANS_STMT_ROLLBACK_TO':
        return { kind: 'rollback-to', name }
      case 'TRANS_STMT_PREPARE':
        return { kind: 'prepare', gid }
      case 'TRANS_STMT_COMMIT_PREPARED':
        return { kind: 'commit-prepared', gid }
      case 'TRANS_STMT_ROLLBACK_PREPARED':
        return { kind: 'rollback-prepared', gid }
    }
  }
  if ('CopyStmt' in tree) {
    const { is_from, filename } = tree.CopyStmt
    return { kind: is_from && !filename ? 'copy-in' : 'other' }
  }
  if ('VariableSetStmt' in tree) {
    const { kind, is_local, name = '' } = tree.VariableSetStmt
    if (kind === 'VAR_RESET_ALL' || kind === 'VAR_RESET') return { kind: 'reset' }
    if (is_local && kind !== 'VAR_SET_MULTI') return { kind: 'set-local', name }
    return { kind: 'other' }
  }
  if ('DeallocateStmt' in tree) return { kind: 'deallocate', name: tree.DeallocateStmt.name ?? '' }
  if ('VariableShowStmt' in tree) return { kind: 'read' }
  if ('SelectStmt' in tree && isPlainSelect(tree.SelectStmt)) return { kind: 'read' }
  return { kind: 'other' }
}

function isPlainSelect(select: Extract<Node, { SelectStmt: unknown }>['SelectStmt']): boolean {
  const { intoClause, lockingClause, withClause, larg, rarg } = select
  if (intoClause || lockingClause?.length || withClause) return false
  // The INTO of a UNION stands in its first branch.
  return (!larg || isPlainSelect(larg)) && (!rarg || isPlainSelect(rarg))
}
