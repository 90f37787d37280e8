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
  if (finding.kind === 'adds') return undefined
  return { ...at, why: finding.why, ...(finding.kind === 'sets' && { ofTheTransaction: true }) }
}

/** What a statement means to the transaction around it, with PostgreSQL's words where that is a reason against it. */
export type Finding =
  | { kind: 'forbidden'; form: string; why: string }
  | { kind: 'sets'; why: string }
  /** `was`: its name before, where it is only renamed. */
  | { kind: 'adds'; value: string; was?: string }
  | { kind: 'uses'; value: string; why: string }

/** Without these words no statement needs to be parsed. */
const telling =
  /concurrently|vacuum|cluster|reindex|system|database|tablespace|subscription|discard|add\s+value|create\s+type|transaction/i

/** Reads one statement of the batch, behind those that `values` has seen. */
export function findingsIn(sql: string, values: NewEnumValues): Finding[] {
  if (!telling.test(sql) && !values.mayBeUsedIn(sql)) return []
  return treesOf(sql).flatMap(tree => {
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

/** The text of a constant; empty for anything else. */
function textOf(node: Node): string {
  if ('String' in node) return node.String.sval ?? ''
  if ('Integer' in node) return String(node.Integer.ival ?? 0)
  if ('Boolean' in node) return String(node.Boolean.boolval ?? false)
  if (!('A_Const' in node)) return ''
  const { sval, ival } = node.A_Const
  return sval ? (sval.sval ?? '') : ival ? String(ival.ival ?? 0) : ''
}

const isFalse = (value: string | undefined): boolean => /^(false|off|no|0)$/i.test(value ?? '')

/**
 * Values that the batch adds to enums: PostgreSQL lets nobody use one before the transaction that added it has ended.
 * Those of a type that the same transaction has made are no exception (measured on 14 to 18) but on PostgreSQL 17 and
 * later, outside of savepoints; through the gate every statement of a script is in one.
 */
export class NewEnumValues {
  #added: { value: string; type: string; isOfMade: boolean }[] = []
  /** Types that the transaction has made, with their values, and which of them a name leads to: a table that has a column of it. */
  readonly #made = new Map<string, Set<string>>()
  readonly #leading = new Map<string, Set<string>>()

  /** `usesMade`: values of a type that the transaction has made can be used. */
  constructor(private readonly usesMade = false) {}

  mayBeUsedIn(sql: string): boolean {
    // What makes a column of a new type is noted too.
    return this.#made.size > 0 || this.#added.some(({ value }) => sql.includes(value.replaceAll("'", "''")))
  }

  /** The new value that a string of a script is, or holds as a constant of SQL. */
  mentionedIn(text: string): string | undefined {
    const isIn = (value: string) => text === value || text.includes(`'${value.replaceAll("'", "''")}'`)
    return this.#added.find(({ value }) => isIn(value))?.value
  }

  /** Notes what a statement makes, and says which new value it uses. */
  read(tree: Node): Finding[] {
    if ('CreateEnumStmt' in tree) {
      const { typeName, vals = [] } = tree.CreateEnumStmt
      this.#made.set(nameOf(typeName), new Set(vals.map(textOf)))
      this.#leading.set(nameOf(typeName), new Set([nameOf(typeName)]))
      return []
    }
    if ('AlterEnumStmt' in tree) return this.#alter(tree.AlterEnumStmt)
    if ('DropStmt' in tree && tree.DropStmt.removeType === 'OBJECT_TYPE') return this.#drop(tree.DropStmt)
    if ('RenameStmt' in tree && tree.RenameStmt.renameType === 'OBJECT_TYPE') this.#rename(tree.RenameStmt)
    const names = this.#made.size > 0 ? namesIn(tree) : []
    const types = new Set(names.flatMap(name => [...(this.#leading.get(name) ?? [])]))
    if (types.size > 0) {
      for (const name of madeBy(tree)) this.#leading.set(name, new Set([...types, ...(this.#leading.get(name) ?? [])]))
    }
    const text = this.#added.length > 0 ? JSON.stringify(tree) : ''
    for (const { value, type, isOfMade } of this.#added) {
      // A string constant; names are other nodes. A new type's is one only where something leads to that type.
      if (!text.includes(`"sval":{"sval":${JSON.stringify(value)}}`) || (isOfMade && !types.has(type))) continue
      const why = `the value '${value}' is new in the enum ${type}, and it must be committed before it can be used`
      const but = ' (by a plan file, PostgreSQL 17 and later can use it, since the batch makes the type as well)'
      return [{ kind: 'uses', value, why: isOfMade ? why + but : why }]
    }
    return []
  }

  #alter({ typeName, newVal: value = '', oldVal, skipIfNewValExists }: AlterEnum): Finding[] {
    const type = nameOf(typeName)
    const made = this.#made.get(type)
    if (oldVal) {
      // Under its new name it is as old as it was.
      const added = this.#added.find(each => each.value === oldVal && each.type === type)
      if (!added) return []
      added.value = value
      return [{ kind: 'adds', value, was: oldVal }]
    }
    if (made && (this.usesMade || (skipIfNewValExists && made.has(value)))) return []
    this.#added.push({ value, type, isOfMade: made !== undefined })
    return [{ kind: 'adds', value }]
  }

  /** Of a type that the transaction has made nothing is left; one of its name is another. */
  #drop({ objects = [] }: Drop): Finding[] {
    for (const each of objects) {
      const type = 'TypeName' in each ? nameOf(each.TypeName.names) : ''
      if (!this.#made.delete(type)) continue
      this.#added = this.#added.filter(added => added.type !== type)
      this.#leading.delete(type)
      for (const types of this.#leading.values()) types.delete(type)
    }
    return []
  }

  #rename({ object, newname = '' }: Rename): void {
    const type = object && 'List' in object ? nameOf(object.List.items) : ''
    const made = this.#made.get(type)
    this.#made.delete(type)
    if (made) this.#made.set(newname, made)
    const led = this.#leading.get(type)
    this.#leading.delete(type)
    if (led) this.#leading.set(newname, led)
    for (const types of this.#leading.values()) if (made && types.delete(type)) types.add(newname)
    for (const added of this.#added) if (added.type === type) added.type = newname
  }

  /** The transaction ends: everything up to here can be used. */
  commit(): void {
    this.#made.clear()
    this.#leading.clear()
    this.#added = []
  }
}

type AlterEnum = Extract<Node, { AlterEnumStmt: unknown }>['AlterEnumStmt']
type Drop = Extract<Node, { DropStmt: unknown }>['DropStmt']
type Rename = Extract<Node, { RenameStmt: unknown }>['RenameStmt']

/** A type's name without its schema. */
function nameOf(names: Node[] | undefined): string {
  const last = names?.at(-1)
  return last && 'String' in last ? (last.String.sval ?? '') : ''
}

/** The names of relations, types and functions in a statement, without their schemas. */
function namesIn(tree: Node): string[] {
  const names: string[] = []
  JSON.stringify(tree, (key, value) => {
    if (key === 'relname') names.push(value)
    if (key === 'names' || key === 'funcname' || key === 'typeName')
      names.push(nameOf(Array.isArray(value) ? value : []))
    return value
  })
  return names
}

/** The names of what a statement makes or changes, as far as it can have a column, a field or a value of some type. */
function madeBy(tree: Node): string[] {
  if ('CreateStmt' in tree) return [tree.CreateStmt.relation?.relname ?? '']
  if ('AlterTableStmt' in tree) return [tree.AlterTableStmt.relation?.relname ?? '']
  if ('ViewStmt' in tree) return [tree.ViewStmt.view?.relname ?? '']
  if ('CreateTableAsStmt' in tree) return [tree.CreateTableAsStmt.into?.rel?.relname ?? '']
  if ('CompositeTypeStmt' in tree) return [tree.CompositeTypeStmt.typevar?.relname ?? '']
  if ('CreateDomainStmt' in tree) return [nameOf(tree.CreateDomainStmt.domainname)]
  if ('CreateFunctionStmt' in tree) return [nameOf(tree.CreateFunctionStmt.funcname)]
  if ('RenameStmt' in tree) return [tree.RenameStmt.newname ?? '']
  return []
}
