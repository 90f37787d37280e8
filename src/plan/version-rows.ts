import type { Node } from 'libpg-query'
import { splitStatements } from './statements'

/** A table by its name; the schema is null where the search path finds it. */
export interface TableName {
  name: string
  schema: string | null
}

/** What a statement of Alembic's own does to the version table: the head that goes, and the one that comes. */
export interface Move {
  from?: string
  to?: string
}

/**
 * Reads a statement of Alembic's own: it makes or drops the version table, or moves one of its rows; undefined where it is
 * anything else, and might do what nobody is shown. Needs the parser to be loaded.
 */
export function moveIn(sql: string, table: TableName): Move | undefined {
  const trees = treesOf(sql)
  const [tree] = trees
  if (!tree || trees.length > 1) return undefined
  if (callsMore(tree)) return undefined
  if ('CreateStmt' in tree) {
    const { relation } = tree.CreateStmt
    return isTable(relation, table) && relation?.relpersistence === 'p' ? {} : undefined
  }
  if ('DropStmt' in tree) return dropsOnly(tree.DropStmt, table) ? {} : undefined
  if ('InsertStmt' in tree && isTable(tree.InsertStmt.relation, table)) {
    const { cols = [], selectStmt } = tree.InsertStmt
    const at = cols.findIndex(isVersion)
    const [row, ...more] = selectStmt && 'SelectStmt' in selectStmt ? (selectStmt.SelectStmt.valuesLists ?? []) : []
    const to = row && 'List' in row ? textOf(row.List.items?.[at]) : undefined
    return to === undefined || more.length > 0 ? undefined : { to }
  }
  if ('UpdateStmt' in tree && isTable(tree.UpdateStmt.relation, table)) {
    const { targetList = [], whereClause } = tree.UpdateStmt
    const target = targetList.find(isVersion)
    const to = target && 'ResTarget' in target ? textOf(target.ResTarget.val) : undefined
    const from = versionIn(whereClause)
    return to === undefined || from === undefined ? undefined : { from, to }
  }
  if ('DeleteStmt' in tree && isTable(tree.DeleteStmt.relation, table)) {
    const from = versionIn(tree.DeleteStmt.whereClause)
    return from === undefined ? undefined : { from }
  }
  return undefined
}

/** The heads behind these moves; undefined where one goes that is not there. */
export function headsBehind(heads: string[], moves: Move[]): Set<string> | undefined {
  const now = new Set(heads)
  for (const { from, to } of moves) {
    if (from !== undefined && !now.delete(from)) return undefined
    if (to !== undefined) now.add(to)
  }
  return now
}

function treesOf(sql: string): Node[] {
  try {
    return splitStatements(sql).map(({ tree }) => tree)
  } catch {
    return []
  }
}

type Relation = { schemaname?: string; relname?: string } | undefined

const isTable = (relation: Relation, { name, schema }: TableName): boolean =>
  relation?.relname === name && (relation.schemaname ?? null) === schema

function dropsOnly({ objects = [] }: { objects?: Node[] }, { name, schema }: TableName): boolean {
  const [object, ...more] = objects
  const parts = object && 'List' in object ? (object.List.items ?? []).map(nameOf) : []
  return more.length === 0 && parts.join('.') === (schema === null ? name : `${schema}.${name}`)
}

/** A version table of the project's own may have a column for the time; nothing else is called. */
const harmless = new Set(['now', 'clock_timestamp', 'statement_timestamp', 'transaction_timestamp'])

function callsMore(tree: Node): boolean {
  let calls = false
  JSON.stringify(tree, (key, value) => {
    if (key === 'SubLink' || key === 'withClause' || key === 'fromClause' || key === 'usingClause') calls = true
    if (key === 'A_Expr') calls ||= (value.name ?? []).map(nameOf).join('.') !== '='
    if (key === 'FuncCall') calls ||= !harmless.has((value.funcname ?? []).map(nameOf).join('.'))
    return value
  })
  return calls
}

const nameOf = (node: Node): string => ('String' in node ? (node.String.sval ?? '') : '')

const isVersion = (node: Node): boolean => 'ResTarget' in node && node.ResTarget.name === 'version_num'

const textOf = (node: Node | undefined): string | undefined =>
  node && 'A_Const' in node ? node.A_Const.sval?.sval : undefined

/** The constant of `alembic_version.version_num = '…'`. */
function versionIn(clause: Node | undefined): string | undefined {
  if (!clause || !('A_Expr' in clause) || (clause.A_Expr.name ?? []).map(nameOf).join() !== '=') return undefined
  const { lexpr, rexpr } = clause.A_Expr
  const column = lexpr && 'ColumnRef' in lexpr ? lexpr.ColumnRef.fields?.at(-1) : undefined
  return column && nameOf(column) === 'version_num' ? textOf(rexpr) : undefined
}
