import type { Node } from 'libpg-query'
import { countCommands } from './message'
import type { Plan, RenderedStatement, Revision } from './plan'
import { effectOf, splitStatements } from './statements'
import { type NewEnumValues, type Obstacle, obstaclesOf } from './transactional'

/** Why a revision cannot be part of a plan file. */
export type Unfaithful = Pick<Obstacle, 'revision' | 'line' | 'why'>

/**
 * What of a batch cannot be applied as its SQL in one transaction: scripts without SQL, statements that end the
 * transaction or cannot be in it, and those that change how the rest is read. `values`: see obstaclesOf. Needs the parser to be loaded.
 */
export function unfaithfulOf(plan: Plan, values: NewEnumValues): Unfaithful[] {
  const revisions = plan.revisions.flatMap(revision => notRendered(revision) ?? inStatements(revision))
  return [...revisions, ...obstaclesOf(plan, values)]
}

function notRendered(revision: Revision): Unfaithful[] | undefined {
  const { notRenderable } = revision
  return notRenderable && [{ revision, line: notRenderable.line, why: notRenderable.reason }]
}

const inStatements = (revision: Revision): Unfaithful[] =>
  (revision.statements ?? []).flatMap(({ sql, line }: RenderedStatement) =>
    reasonsAgainst(sql).map(why => ({ revision, line, why })),
  )

/** Without these words no statement needs to be parsed. */
const telling = /\b(begin|start|commit|end|rollback|abort|prepare|copy)\b|standard_conforming_strings|backslash_quote/i

function reasonsAgainst(sql: string): string[] {
  try {
    countCommands(sql)
    return telling.test(sql) ? splitStatements(sql).flatMap(({ tree }) => reasonAgainst(tree)) : []
  } catch {
    return ['PostgreSQL 18’s parser does not read it']
  }
}

/** A message is read as a whole before any of it runs: what is set in it would come too late. */
const readsStrings = new Set(['standard_conforming_strings', 'backslash_quote'])

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
      return 'VariableSetStmt' in tree && readsStrings.has(tree.VariableSetStmt.name ?? '')
        ? [`it sets ${tree.VariableSetStmt.name}`]
        : []
  }
}

/** `COMMIT` for TRANS_STMT_COMMIT. */
const nameOf = (tree: Node): string =>
  'TransactionStmt' in tree ? (tree.TransactionStmt.kind ?? '').replace('TRANS_STMT_', '').replaceAll('_', ' ') : ''
