import type { Node } from 'libpg-query'
import { type EnumFinding, NewEnumValues } from './new-enum-values'
import { nameOf, textOf } from './nodes'
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
  /** Whether it stays one where the batch may be several transactions: it is about the transaction itself. */
  ofTheTransaction?: boolean
}

/**
 * What of the batch cannot be part of one transaction, by PostgreSQL's own parse tree of the dry run, and by Alembic's
 * arguments in scripts that could not be rendered. What a statement hides (a DO block, a function) is not seen.
 * `values` knows which new values of enums can be used. Needs the parser to be loaded.
 */
export function obstaclesOf(plan: Plan, values = new NewEnumValues()): Obstacle[] {
  return plan.revisions.flatMap(revision => [
    ...(revision.concurrently ?? []).map(({ line, text }) => {
      return { revision, line, text, why: cannot('CONCURRENTLY') }
    }),
    ...(revision.statements ?? []).flatMap(({ sql, line, own }) =>
      own ? [] : findingsIn(sql, values).flatMap(finding => obstacleIn(finding, { revision, line, text: sql }) ?? []),
    ),
  ])
}

/** A finding as an obstacle, where it is a reason against one transaction. */
export function obstacleIn(finding: Finding, at: Pick<Obstacle, 'revision' | 'line' | 'text'>): Obstacle | undefined {
  if (finding.kind === 'adds' || finding.kind === 'may-use') return undefined
  return { ...at, why: finding.why, ...(finding.kind === 'sets' && { ofTheTransaction: true }) }
}

/** What a statement means to the transaction around it, with PostgreSQL's words where that is a reason against it. */
export type Finding = { kind: 'forbidden'; form: string; why: string } | { kind: 'sets'; why: string } | EnumFinding

/** Without these words no statement needs to be parsed. */
const telling =
  /concurrently|vacuum|cluster|reindex|system|database|tablespace|subscription|discard|add\s+value|create\s+type|transaction/i

/** Reads one statement of the batch, behind those that `values` has seen. */
export function findingsIn(sql: string, values: NewEnumValues): Finding[] {
  if (!telling.test(sql) && !values.mayBeUsedIn(sql)) return []
  return treesOf(sql).flatMap((tree): Finding[] => {
    const form = forbiddenForm(tree)
    if (form) return [{ kind: 'forbidden', form, why: cannot(form) }]
    const why = settingOf(tree)
    return why ? [{ kind: 'sets', why }] : values.read(tree)
  })
}

/** PostgreSQL's words against a statement that sets something of a transaction which has begun before it. */
function settingOf(tree: Node): string | undefined {
  if (!('VariableSetStmt' in tree)) return undefined
  const { name, args = [] } = tree.VariableSetStmt
  if (name === 'TRANSACTION SNAPSHOT') return 'SET TRANSACTION SNAPSHOT must be called before any query'
  const level = name === 'TRANSACTION' ? optionOf(args, 'transaction_isolation') : undefined
  const set = name === 'transaction_isolation' && args[0] ? textOf(args[0]) : level
  // What it is already may be set again.
  if (set !== undefined && !/^(read committed|default)$/i.test(set))
    return 'SET TRANSACTION ISOLATION LEVEL must be called before any query'
  if (name === 'transaction_deferrable' || optionOf(name === 'TRANSACTION' ? args : [], 'transaction_deferrable'))
    return 'SET TRANSACTION [NOT] DEFERRABLE must be called before any query'
  return undefined
}

/** Whether an error of PostgreSQL's is about the transaction itself, by the statement, or by its words where a function has it. */
export const isAboutTheTransaction = (sql: string, message: string): boolean =>
  treesOf(sql).some(tree => settingOf(tree) !== undefined) ||
  /SET TRANSACTION|transaction read-write mode/.test(message)

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

/** The names of the types that the batch adds values to, as far as its SQL or its scripts' strings tell. */
export function extendedTypes({ revisions }: Plan): string[] {
  const texts = revisions.flatMap(({ statements = [], strings = [] }) => [
    ...statements.map(({ sql }) => sql),
    ...strings.map(({ text }) => text),
  ])
  const trees = texts.filter(text => /\badd\s+value\b/i.test(text)).flatMap(treesOf)
  return [...new Set(trees.flatMap(tree => ('AlterEnumStmt' in tree ? [nameOf(tree.AlterEnumStmt.typeName)] : [])))]
}

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
    return option.DefElem.arg ? textOf(option.DefElem.arg) : ''
  }
  return undefined
}

const isFalse = (value: string | undefined): boolean => /^(false|off|no|0)$/i.test(value ?? '')
