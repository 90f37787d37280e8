import type { Node } from 'libpg-query'
import type { Plan, Revision } from './plan'
import { splitStatements } from './statements'

/** A statement of the batch after which data, or what depends on it, is gone. */
export interface Destruction {
  revision: Revision
  /** The line of the script that it comes from. */
  line: number | null
  /** What it does, such as `drops the table orders`. */
  what: string
}

/**
 * What of the batch destroys data by its form, on PostgreSQL's own parse tree: drops, type changes, truncates, and
 * DELETE and UPDATE without WHERE. What scripts without SQL do, and what is inside of functions, is not seen.
 * Needs the parser to be loaded.
 */
export function destructionsOf(plan: Plan): Destruction[] {
  return plan.revisions.flatMap(revision =>
    (revision.statements ?? []).flatMap(({ sql, line, own }) =>
      own ? [] : deedsOf(sql).map(what => ({ revision, line, what })),
    ),
  )
}

/** Without these words no statement needs to be parsed. */
const telling = /\b(drop|truncate|delete|update|type)\b/i

function deedsOf(sql: string): string[] {
  if (!telling.test(sql)) return []
  try {
    return splitStatements(sql).flatMap(({ tree }) => deeds(tree))
  } catch {
    // Not in our parser's grammar: nothing can be said of it.
    return []
  }
}

/** Views, indexes, functions and constraints hold no data. */
const kinds: Record<string, string> = {
  OBJECT_TABLE: 'table',
  OBJECT_FOREIGN_TABLE: 'foreign table',
  OBJECT_MATVIEW: 'materialized view',
  OBJECT_SCHEMA: 'schema',
  OBJECT_SEQUENCE: 'sequence',
  OBJECT_TYPE: 'type',
  OBJECT_EXTENSION: 'extension',
}

function deeds(tree: Node): string[] {
  if ('DropStmt' in tree) {
    const kind = kinds[tree.DropStmt.removeType ?? '']
    return kind ? (tree.DropStmt.objects ?? []).map(object => `drops the ${kind} ${nameOf(object)}`) : []
  }
  if ('DropOwnedStmt' in tree) return ['drops everything that a role owns']
  if ('DropdbStmt' in tree) return [`drops the database ${tree.DropdbStmt.dbname}`]
  if ('TruncateStmt' in tree)
    return (tree.TruncateStmt.relations ?? []).map(table => `empties the table ${nameOf(table)}`)
  if ('AlterTableStmt' in tree) {
    const { relation, cmds = [] } = tree.AlterTableStmt
    const table = relation ? nameOf({ RangeVar: relation }) : ''
    return cmds.flatMap(command => {
      if (!('AlterTableCmd' in command)) return []
      const { subtype, name } = command.AlterTableCmd
      if (subtype === 'AT_DropColumn') return [`drops the column ${name} of ${table}`]
      if (subtype === 'AT_AlterColumnType') return [`changes the type of the column ${name} of ${table}`]
      return []
    })
  }
  return deedsOfData(tree)
}

/** DELETE and UPDATE without WHERE, also in a WITH. */
function deedsOfData(tree: Node): string[] {
  if ('DeleteStmt' in tree && !tree.DeleteStmt.whereClause && !tree.DeleteStmt.usingClause?.length) {
    return [`deletes every row of ${tableOf(tree.DeleteStmt.relation)}`]
  }
  if ('UpdateStmt' in tree && !tree.UpdateStmt.whereClause && !tree.UpdateStmt.fromClause?.length) {
    return [`changes every row of ${tableOf(tree.UpdateStmt.relation)}`]
  }
  const [statement] = Object.values(tree) as { withClause?: { ctes?: Node[] } }[]
  return (statement?.withClause?.ctes ?? []).flatMap(cte =>
    'CommonTableExpr' in cte && cte.CommonTableExpr.ctequery ? deedsOfData(cte.CommonTableExpr.ctequery) : [],
  )
}

const tableOf = (relation: Parameters<typeof nameOfRelation>[0] | undefined): string =>
  relation ? nameOfRelation(relation) : ''

const nameOfRelation = ({ schemaname, relname = '' }: { schemaname?: string; relname?: string }): string =>
  schemaname ? `${schemaname}.${relname}` : relname

/** The name of an object as the parse tree has it, with its schema where it was written. */
function nameOf(object: Node): string {
  if ('RangeVar' in object) return nameOfRelation(object.RangeVar)
  if ('String' in object) return object.String.sval ?? ''
  const parts = 'List' in object ? object.List.items : 'TypeName' in object ? object.TypeName.names : undefined
  return (parts ?? []).map(nameOf).join('.')
}
