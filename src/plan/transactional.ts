import type { Node } from 'libpg-query'
import type { Plan, Revision } from './plan'
import { effectOf, splitStatements } from './statements'

/** A statement of the batch that PostgreSQL does not run in one transaction with the others. */
export interface Obstacle {
  revision: Revision
  /** The line of the script that it comes from. */
  line: number | null
  /** The statement, or the Python that makes it. */
  text: string
  /** What PostgreSQL says of it. */
  why: string
}

/**
 * What of the batch cannot be part of one transaction, by PostgreSQL's own parse tree of the dry run, and by Alembic's
 * arguments in scripts that could not be rendered. What a statement hides (a DO block, a function) is not seen.
 * Needs the parser to be loaded.
 */
export function obstaclesOf(plan: Plan): Obstacle[] {
  const values = new NewEnumValues()
  return plan.revisions.flatMap(revision => [
    ...(revision.concurrently ?? []).map(({ line, text }) => {
      return { revision, line, text, why: cannot('CONCURRENTLY') }
    }),
    ...(revision.statements ?? []).flatMap(({ sql, line, own }) =>
      own
        ? []
        : findingsIn(sql, values).flatMap(({ why }) => (why === undefined ? [] : [{ revision, line, text: sql, why }])),
    ),
  ])
}

/** What a statement means to the transaction around it, with PostgreSQL's words where that is a reason against it. */
export type Finding =
  | { kind: 'forbidden'; form: string; why: string }
  | { kind: 'adds'; value: string; why?: undefined }
  | { kind: 'uses'; value: string; why: string }

/** Without these words no statement needs to be parsed. */
const telling =
  /concurrently|vacuum|cluster|reindex|system|database|tablespace|subscription|discard|add\s+value|create\s+type/i

/** Reads one statement of the batch, behind those that `values` has seen. */
export function findingsIn(sql: string, values: NewEnumValues): Finding[] {
  if (!telling.test(sql) && !values.mayBeUsedIn(sql)) return []
  return treesOf(sql).flatMap(tree => {
    const form = forbiddenForm(tree)
    return form ? [{ kind: 'forbidden', form, why: cannot(form) }] : values.read(tree)
  })
}

/** The parse trees of SQL; none where it is not in our parser's grammar: the server will say. */
export function treesOf(sql: string): Node[] {
  try {
    return splitStatements(sql).map(({ tree }) => tree)
  } catch {
    return []
  }
}

/** Whether a statement adds that value to an enum. */
export const addsValue = (sql: string, value: string): boolean =>
  sql.includes(value.replaceAll("'", "''")) &&
  treesOf(sql).some(tree => 'AlterEnumStmt' in tree && tree.AlterEnumStmt.newVal === value)

/** Whether SQL leaves nothing in the database: it reads, or sets something for the session. */
export const isRead = (sql: string): boolean =>
  treesOf(sql).every(tree => effectOf(tree).kind === 'read' || 'VariableSetStmt' in tree) && treesOf(sql).length > 0

/** PostgreSQL's words. */
export const cannot = (form: string): string => `${form} cannot run inside a transaction block`

/** The name of a statement that calls PreventInTransactionBlock in PostgreSQL 14 to 18, as far as its syntax tells. */
export function forbiddenForm(tree: Node): string | undefined {
  if ('IndexStmt' in tree && tree.IndexStmt.concurrent) return 'CREATE INDEX CONCURRENTLY'
  if ('DropStmt' in tree && tree.DropStmt.concurrent) return 'DROP INDEX CONCURRENTLY'
  if ('VacuumStmt' in tree && tree.VacuumStmt.is_vacuumcmd) return 'VACUUM'
  if ('AlterSystemStmt' in tree) return 'ALTER SYSTEM'
  if ('CreatedbStmt' in tree) return 'CREATE DATABASE'
  if ('DropdbStmt' in tree) return 'DROP DATABASE'
  if ('CreateTableSpaceStmt' in tree) return 'CREATE TABLESPACE'
  if ('DropTableSpaceStmt' in tree) return 'DROP TABLESPACE'
  if ('ClusterStmt' in tree && !tree.ClusterStmt.relation) return 'CLUSTER'
  if ('DiscardStmt' in tree && tree.DiscardStmt.target === 'DISCARD_ALL') return 'DISCARD ALL'
  if ('AlterDatabaseStmt' in tree && optionOf(tree.AlterDatabaseStmt.options, 'tablespace') !== undefined) {
    return 'ALTER DATABASE SET TABLESPACE'
  }
  if ('CreateSubscriptionStmt' in tree) {
    const { options } = tree.CreateSubscriptionStmt
    const without = ['create_slot', 'connect'].some(name => isFalse(optionOf(options, name)))
    return without ? undefined : 'CREATE SUBSCRIPTION ... WITH (create_slot = true)'
  }
  if ('ReindexStmt' in tree) {
    const { kind = '', params } = tree.ReindexStmt
    const concurrently = optionOf(params, 'concurrently')
    if (concurrently !== undefined && !isFalse(concurrently)) return 'REINDEX CONCURRENTLY'
    const whole = /^REINDEX_OBJECT_(SCHEMA|SYSTEM|DATABASE)$/.exec(kind)?.[1]
    return whole && `REINDEX ${whole}`
  }
  if ('AlterTableStmt' in tree) {
    const detaches = (tree.AlterTableStmt.cmds ?? []).some(
      command =>
        'AlterTableCmd' in command &&
        command.AlterTableCmd.def &&
        'PartitionCmd' in command.AlterTableCmd.def &&
        command.AlterTableCmd.def.PartitionCmd.concurrent,
    )
    if (detaches) return 'ALTER TABLE ... DETACH CONCURRENTLY'
  }
  return undefined
}

/** The value of an option: its text, empty where it has none; undefined where the option is not there. */
function optionOf(options: Node[] | undefined, name: string): string | undefined {
  for (const option of options ?? []) {
    if (!('DefElem' in option) || option.DefElem.defname !== name) continue
    const { arg } = option.DefElem
    if (arg && 'String' in arg) return arg.String.sval ?? ''
    if (arg && 'Integer' in arg) return String(arg.Integer.ival ?? 0)
    if (arg && 'Boolean' in arg) return String(arg.Boolean.boolval ?? false)
    return ''
  }
  return undefined
}

const isFalse = (value: string | undefined): boolean => /^(false|off|no|0)$/i.test(value ?? '')

/** Values that the batch adds to enums: PostgreSQL lets nobody use one before the transaction that added it has ended. */
export class NewEnumValues {
  readonly #made = new Set<string>()
  readonly #added = new Map<string, string>()

  mayBeUsedIn(sql: string): boolean {
    return [...this.#added.keys()].some(value => sql.includes(value.replaceAll("'", "''")))
  }

  /** The new value that a string of a script is, or holds as a constant of SQL. */
  mentionedIn(text: string): string | undefined {
    return [...this.#added.keys()].find(value => text === value || text.includes(`'${value.replaceAll("'", "''")}'`))
  }

  /** Notes what a statement makes, and says which new value it uses. */
  read(tree: Node): Finding[] {
    if ('CreateEnumStmt' in tree) this.#made.add(nameOf(tree.CreateEnumStmt.typeName))
    else if ('AlterEnumStmt' in tree) {
      const { typeName, newVal: value = '', oldVal } = tree.AlterEnumStmt
      const type = nameOf(typeName)
      if (oldVal !== undefined || this.#made.has(type)) return []
      this.#added.set(value, type)
      return [{ kind: 'adds', value }]
    } else if (this.#added.size > 0) {
      const text = JSON.stringify(tree)
      for (const [value, type] of this.#added) {
        // A string constant; names are other nodes.
        if (!text.includes(`"sval":{"sval":${JSON.stringify(value)}}`)) continue
        const why = `the value '${value}' is new in the enum ${type}, and it must be committed before it can be used`
        return [{ kind: 'uses', value, why }]
      }
    }
    return []
  }

  /** The transaction ends: everything up to here can be used. */
  commit(): void {
    this.#made.clear()
    this.#added.clear()
  }
}

/** A type's name without its schema. */
function nameOf(names: Node[] | undefined): string {
  const last = names?.at(-1)
  return last && 'String' in last ? (last.String.sval ?? '') : ''
}
