import { splitStatements } from './statements'
import { treesOf } from './transactional'

/** The index that a CREATE INDEX CONCURRENTLY makes, as the statement names it. */
export interface MadeIndex {
  name: string
  /** As SQL names it: in quotes, with its schema where it was written. */
  table: string
}

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** What a statement makes; undefined where it is no CREATE INDEX CONCURRENTLY, or leaves the name to the server. */
export function indexMadeBy(sql: string): MadeIndex | undefined {
  const [tree] = treesOf(sql)
  if (!tree || !('IndexStmt' in tree) || !tree.IndexStmt.concurrent) return undefined
  const { idxname: name, relation: { schemaname, relname = '' } = {} } = tree.IndexStmt
  return name
    ? { name, table: [schemaname, relname].flatMap(part => (part ? [quoted(part)] : [])).join('.') }
    : undefined
}

/**
 * Whether an index is what the statement makes, by the definition that PostgreSQL gives (pg_get_indexdef). False where
 * it only may be: PostgreSQL writes expressions in its own way.
 */
export function isMadeBy(sql: string, definition: string): boolean {
  const [one, other] = [indexIn(sql), indexIn(definition)]
  return one !== undefined && one === other
}

/** An index without what its name, place and building add, as text to compare. */
function indexIn(sql: string): string | undefined {
  const [tree] = treesOf(sql)
  if (!tree || !('IndexStmt' in tree)) return undefined
  const { concurrent: _, if_not_exists: __, relation, accessMethod = 'btree', ...index } = tree.IndexStmt
  const text = JSON.stringify({ ...index, accessMethod, table: relation?.relname, only: relation?.inh !== true })
  return text.replaceAll(/"(\w*location)":\d+,?/g, '').replaceAll(',}', '}')
}

/** The same statement, content with an index of that name. */
export function unlessThere(sql: string): string {
  const [{ tree } = { tree: undefined }] = splitStatements(sql)
  if (!tree || !('IndexStmt' in tree) || tree.IndexStmt.if_not_exists) return sql
  return sql.replace(/^(\s*CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY)\b/i, '$1 IF NOT EXISTS')
}
