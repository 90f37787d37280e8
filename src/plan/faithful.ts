import type { Node, VariableSetStmt } from 'libpg-query'
import type { NewEnumValues } from './new-enum-values'
import type { Plan, RenderedStatement, Revision } from './plan'
import { countStatements } from './separate'
import { effectOf, splitStatements } from './statements'
import { type Obstacle, obstaclesOf } from './transactional'

/** Why a revision cannot be part of a plan file. */
export type Unfaithful = Pick<Obstacle, 'revision' | 'line' | 'why'>

/**
 * What of the SQL of a batch cannot be applied as its SQL in one transaction: statements that end the transaction or
 * cannot be in it, and those that change how the rest is read. `values`: see obstaclesOf. Needs the parser to be loaded.
 */
export function unfaithfulOf(plan: Plan, values: NewEnumValues): Unfaithful[] {
  return [...plan.revisions.flatMap(inStatements), ...obstaclesOf(plan, values)]
}

const inStatements = (revision: Revision): Unfaithful[] =>
  (revision.statements ?? []).flatMap(({ sql, line }: RenderedStatement) =>
    reasonsAgainst(sql).map(why => ({ revision, line, why })),
  )

/** Without these words no statement needs to be parsed. */
const telling = /\b(begin|start|commit|end|rollback|abort|prepare|copy)\b|standard_conforming_strings|backslash_quote/i

function reasonsAgainst(sql: string): string[] {
  try {
    const several = countStatements(sql) > 1 ? ['it holds several statements in one'] : []
    return telling.test(sql)
      ? [...splitStatements(sql).flatMap(({ tree }) => reasonAgainst(tree)), ...several]
      : several
  } catch {
    return ['PostgreSQL 18’s parser does not read it']
  }
}

/** How strings are read is not for a script to say. Set to what it is there, they change nothing, as in a dump. */
const readsStrings = new Map([
  ['standard_conforming_strings', /^(on|true|yes|1)$/i],
  ['backslash_quote', /^safe_encoding$/i],
])

function reasonAgainst(tree: Node): string[] {
  switch (effectOf(tree).kind) {
    case 'begin':
    case 'commit':
    case 'rollback':
    case 'prepare':
    case 'commit-prepared':
    case 'rollback-prepared':
      return [`it holds a ${nameOf(tree)}`]
    case 'copy-in':
      return ['COPY FROM STDIN needs its data, which is not in the SQL']
    default:
      return 'VariableSetStmt' in tree ? inSetting(tree.VariableSetStmt) : []
  }
}

function inSetting({ name = '', args: [value] = [] }: VariableSetStmt): string[] {
  const text = value && 'A_Const' in value ? value.A_Const.sval?.sval : undefined
  return readsStrings.get(name.toLowerCase())?.test(text ?? '') === false ? [`it sets ${name}`] : []
}

/** `COMMIT` for TRANS_STMT_COMMIT. */
const nameOf = (tree: Node): string =>
  'TransactionStmt' in tree ? (tree.TransactionStmt.kind ?? '').replace('TRANS_STMT_', '').replaceAll('_', ' ') : ''
