import { isUtf8 } from 'node:buffer'
import type { Node } from 'libpg-query'
import { standsAlone } from '../../plan/segments'
import { type Effect, effectOf, type Statement, splitStatements } from '../../plan/statements'
import { forbiddenForm } from '../../plan/transactional'
import { type Leaving, leavingOf } from './leavings'
import { asksForAdvisoryLock } from './looks'

/** One statement of a client's message, and what the gate has to do about it. */
export interface Understood {
  /** Goes upstream as it is. */
  bytes: Buffer
  text: string
  effect: GateEffect
  /** What it leaves in the session, or until the next COMMIT. */
  leaves: Leaving | undefined
  /** Names of the settings that a set_config() in it sets. */
  configured: { name: string; local: boolean }[]
  /** Whether PostgreSQL runs it outside of a transaction only. */
  alone: boolean
  /** The cursor that it reads from, whose rows are those of the time when it was declared. */
  fetches: string | undefined
  /** The cursor that it closes. */
  closes: string | undefined
  /** Whether it takes advisory locks, asks for them or gives them back. */
  advisory: boolean
}

export type GateEffect =
  | Exclude<Effect, { kind: 'begin' | 'reset' | 'other' }>
  | { kind: 'begin'; tag: 'BEGIN' | 'START TRANSACTION'; level: string | undefined }
  /** Of one setting, or of all of them. */
  | { kind: 'reset'; name: string | null }
  | { kind: 'set'; name: string }
  | { kind: 'refuse'; why: string }
  | { kind: 'other' }

/** What may be anything. */
export const unknown: Understood = {
  bytes: Buffer.alloc(0),
  text: '',
  effect: { kind: 'other' },
  leaves: undefined,
  configured: [],
  alone: false,
  fetches: undefined,
  closes: undefined,
  advisory: false,
}

/**
 * Reads the SQL of a Query or Parse message. What we misread cannot end the transaction: each piece goes upstream as
 * one extended-protocol statement, which the server refuses (42601) when it counts more than one, or without a semicolon
 * in it; and none goes whose first words are transaction control. Those are the same for every reader: no setting and no
 * encoding changes how PostgreSQL reads white space and comments.
 */
export function understand(bytes: Buffer): Understood[] {
  // Every byte is kept, also of text in another client_encoding.
  const encoding = isUtf8(bytes) ? 'utf8' : 'latin1'
  const text = bytes.toString(encoding)
  if (isPlain(text)) return [{ ...unknown, bytes, text }]
  try {
    const statements = splitStatements(text)
    const [first, ...more] = statements
    if (first && more.length === 0) return [read(bytes, text, first.tree)]
    return statements.map(({ sql, tree }) => read(Buffer.from(sql, encoding), sql, tree))
  } catch {
    // Not in our parser's grammar, or too big for it: the server decides, unless it might be transaction control.
    const effect = { kind: /^copy$/i.test(firstWord(text)[0]) ? ('copy-in' as const) : ('other' as const) }
    return [guarded({ ...unknown, bytes, text, effect })]
  }
}

/** Most of what a migration does to rows: it can only be one statement, and one that the gate has nothing to do about. */
const isPlain = (text: string): boolean =>
  !text.includes(';') && /^(insert|update|delete)$/i.test(firstWord(text)[0]) && !setsSomething.test(text)

const setsSomething = /set_config|pg_\w*advisory/i

/** The statements that the gate carries out in the server's place: nothing of them goes upstream as the client wrote it. */
export const isControl = ({ effect }: Understood): boolean => controls.has(effect.kind)

const controls = new Set<GateEffect['kind']>([
  'begin',
  'commit',
  'rollback',
  'savepoint',
  'release',
  'rollback-to',
  'prepare',
  'commit-prepared',
  'rollback-prepared',
  'deallocate',
  'refuse',
])

function read(bytes: Buffer, text: string, tree: Statement['tree']): Understood {
  const configured = [...text.slice(0, 100_000).matchAll(setConfig)].map(([, name = '', local = '']) => ({
    name,
    local: /^t/i.test(local),
  }))
  const alone = standsAlone(forbiddenForm(tree))
  const fetches = 'FetchStmt' in tree ? tree.FetchStmt.portalname : undefined
  const closes = 'ClosePortalStmt' in tree ? tree.ClosePortalStmt.portalname : undefined
  const effect = gateEffectOf(tree)
  const advisory = asksForAdvisoryLock(text)
  return guarded({ bytes, text, effect, leaves: leavingOf(tree), configured, alone, fetches, closes, advisory })
}

const setConfig = /\bset_config\s*\(\s*'([\w.]+)'\s*,.{0,1000}?,\s*(true|false)\s*\)/gis

function gateEffectOf(tree: Statement['tree']): GateEffect {
  if ('VariableSetStmt' in tree) {
    const { kind, name = '', is_local = false } = tree.VariableSetStmt
    if (kind === 'VAR_RESET_ALL') return { kind: 'reset', name: null }
    if (kind === 'VAR_RESET' || (kind === 'VAR_SET_DEFAULT' && !is_local)) return { kind: 'reset', name }
    if (kind === 'VAR_SET_MULTI') return { kind: 'other' }
    return { kind: is_local ? 'set-local' : 'set', name }
  }
  const effect = effectOf(tree)
  if (effect.kind === 'begin') {
    const { kind = 'TRANS_STMT_BEGIN', options = [] } = 'TransactionStmt' in tree ? tree.TransactionStmt : {}
    return { kind: 'begin', tag: kind === 'TRANS_STMT_START' ? 'START TRANSACTION' : 'BEGIN', level: levelOf(options) }
  }
  return effect.kind === 'reset' ? { kind: 'other' } : effect
}

/** The isolation level among the options of a BEGIN, as the setting has it. */
function levelOf(options: Node[]): string | undefined {
  for (const option of options) {
    const { defname, arg } = 'DefElem' in option ? option.DefElem : {}
    if (defname === 'transaction_isolation' && arg && 'A_Const' in arg) {
      return arg.A_Const.sval?.sval
    }
  }
  return undefined
}

/** The second lock, which does not need the parser: transaction control that was not understood is refused. */
function guarded(understood: Understood): Understood {
  if (controls.has(understood.effect.kind)) return understood
  const [word, rest] = firstWord(understood.text)
  const control = /^(abort|begin|commit|end|release|rollback|savepoint|start)$/i.test(word)
  if (!control && !(/^prepare$/i.test(word) && /^transaction$/i.test(firstWord(rest)[0]))) return understood
  const why = `Atomic Upgrade's gate cannot read this ${word.toUpperCase()} statement`
  return { ...understood, effect: { kind: 'refuse', why } }
}

/** The first word of a statement and what follows; source: the lexer's rules in PostgreSQL's scan.l. */
function firstWord(text: string): [string, string] {
  let at = 0
  for (;;) {
    at = behind(/[\s;]*/y, text, at)
    if (text.startsWith('--', at)) at = behind(/[^\n\r]*/y, text, at)
    else if (text.startsWith('/*', at)) at = endOfComment(text, at)
    else break
  }
  const end = behind(/\w*/y, text, at)
  return [text.slice(at, end), text.slice(end)]
}

function behind(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at
  pattern.test(text)
  return pattern.lastIndex
}

/** Comments nest in PostgreSQL. */
function endOfComment(text: string, start: number): number {
  const marks = /\/\*|\*\//g
  marks.lastIndex = start
  let depth = 0
  for (let mark = marks.exec(text); mark; mark = marks.exec(text)) {
    depth += mark[0] === '/*' ? 1 : -1
    if (depth === 0) return marks.lastIndex
  }
  return text.length
}
