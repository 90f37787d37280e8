import type { Node } from 'libpg-query'
import { nameOf, textOf } from './nodes'
import { type Site, sitesOf, stringsIn } from './sites'

/** What a statement means to new values of enums. */
export type EnumFinding =
  /** `was`: its name before, where it is only renamed. */
  | { kind: 'adds'; value: string; was?: string }
  | { kind: 'uses'; value: string; why: string }
  /** In a text of its own, such as the body of a DO block: only running it tells. */
  | { kind: 'may-use'; value: string }

/** An enum that the database has, with what leads to it: names of relations, types and functions. */
export interface KnownEnum {
  labels: string[]
  /** With the columns that do, of a relation. */
  leading: { name: string; columns: string[] }[]
}

/**
 * Values that the batch adds to enums: PostgreSQL lets nobody use one before the transaction that added it has ended.
 * Those of a type that the same transaction has made are no exception (measured on 14 to 18) but on PostgreSQL 17 and
 * later, outside of savepoints; through the gate every statement of a script is in one.
 */
export class NewEnumValues {
  #added: { value: string; type: string; isOfMade: boolean }[] = []
  /** Types that the transaction has made, with their values. */
  readonly #made = new Map<string, Set<string>>()
  /** Types that were there before, with theirs. */
  readonly #known: Map<string, Set<string>>
  /** What has a value of a type made or known, by its name, and in which columns; null: any of its columns may. */
  readonly #leading = new Map<string, Map<string, Set<string> | null>>()

  /**
   * `usable`: which values can be used, those of types that the transaction has made too, or all, where somebody else
   * asks. `known`: enums of the database, by name.
   */
  constructor(
    private readonly usable: 'committed' | 'made' | 'all' = 'committed',
    known: ReadonlyMap<string, KnownEnum> = new Map(),
  ) {
    this.#known = new Map([...known].map(([type, { labels }]) => [type, new Set(labels)]))
    for (const [type, { leading }] of known) {
      for (const { name, columns } of leading) this.#lead(name, type, new Set(columns))
    }
  }

  mayBeUsedIn(sql: string): boolean {
    // What makes a column of a new type is noted too.
    const notes = this.#made.size > 0 || this.#known.size > 0
    return notes || this.#added.some(({ value }) => sql.includes(value.replaceAll("'", "''")))
  }

  /** The new value that a string of a script is, or holds as a constant of SQL. */
  mentionedIn(text: string): string | undefined {
    const isIn = (value: string) => text === value || text.includes(quoted(value))
    return this.#added.find(({ value }) => isIn(value))?.value
  }

  /** Notes what a statement makes, and says which new value it uses. */
  read(tree: Node): EnumFinding[] {
    if ('CreateEnumStmt' in tree) {
      const { typeName, vals = [] } = tree.CreateEnumStmt
      const type = nameOf(typeName)
      this.#made.set(type, new Set(vals.map(textOf)))
      this.#lead(type, type, new Set())
      return []
    }
    if ('AlterEnumStmt' in tree) return this.#alter(tree.AlterEnumStmt)
    if ('DropStmt' in tree && tree.DropStmt.removeType === 'OBJECT_TYPE') return this.#drop(tree.DropStmt)
    if ('RenameStmt' in tree && tree.RenameStmt.renameType === 'OBJECT_TYPE') this.#rename(tree.RenameStmt)
    const names = this.#leading.size > 0 ? namesIn(tree) : []
    const types = new Set(names.flatMap(name => [...(this.#leading.get(name)?.keys() ?? [])]))
    for (const type of types) {
      const columns = columnsMadeBy(tree, name => this.#leading.get(name)?.has(type) === true)
      for (const name of madeBy(tree)) this.#lead(name, type, columns)
    }
    const strings = this.#added.length > 0 ? stringsIn(tree) : []
    for (const { value, type, isOfMade } of this.#added) {
      if (!strings.includes(value)) continue
      const isLed = isOfMade || this.#known.has(type)
      const sites = sitesOf(tree, value)
      // A type that nothing is known of can be anywhere.
      if (!sites.some(site => !isLed || this.#leads(site, names, type))) continue
      const why = `the value '${value}' is new in the enum ${type}, and it must be committed before it can be used`
      const but = ' (by a plan file, PostgreSQL 17 and later can use it, since the batch makes the type as well)'
      return [{ kind: 'uses', value, why: isOfMade ? why + but : why }]
    }
    const held = 'CreateFunctionStmt' in tree || 'CommentStmt' in tree ? [] : strings
    const mayUse = this.#added.find(({ value }) => held.some(text => holds(text, value)))
    return mayUse ? [{ kind: 'may-use', value: mayUse.value }] : []
  }

  #lead(name: string, type: string, columns: Set<string> | null): void {
    const types = this.#leading.get(name) ?? new Map<string, Set<string> | null>()
    const before = types.get(type)
    types.set(type, before === null || columns === null ? null : new Set([...(before ?? []), ...columns]))
    this.#leading.set(name, types)
  }

  /** Whether what stands there in a statement with these names can be a value of the type. */
  #leads(site: Site, names: string[], type: string): boolean {
    if (site !== 'anything' && 'type' in site) return this.#leading.get(site.type)?.has(type) === true
    return names.some(name => {
      const columns = this.#leading.get(name)?.get(type)
      return columns !== undefined && (site === 'anything' || columns === null || columns.has(site.column))
    })
  }

  #alter({ typeName, newVal: value = '', oldVal, skipIfNewValExists }: AlterEnum): EnumFinding[] {
    const type = nameOf(typeName)
    const made = this.#made.get(type)
    const known = this.#known.get(type)
    if (oldVal) {
      if (known?.delete(oldVal)) known.add(value)
      // Under its new name it is as old as it was.
      const added = this.#added.find(each => each.value === oldVal && each.type === type)
      if (!added) return []
      added.value = value
      return [{ kind: 'adds', value, was: oldVal }]
    }
    if (skipIfNewValExists && (made ?? known)?.has(value)) return []
    if (this.usable === 'all' || (made && this.usable === 'made')) return []
    this.#added.push({ value, type, isOfMade: made !== undefined })
    return [{ kind: 'adds', value }]
  }

  /** Of a type that the transaction has made nothing is left; one of its name is another. */
  #drop({ objects = [] }: Drop): EnumFinding[] {
    for (const each of objects) {
      const type = 'TypeName' in each ? nameOf(each.TypeName.names) : ''
      if (!this.#made.delete(type) && !this.#known.delete(type)) continue
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
    // Of one that was there before, what leads to it is not followed to its new name.
    for (const name of [type, newname]) this.#known.delete(name)
    const led = this.#leading.get(type)
    this.#leading.delete(type)
    if (led) this.#leading.set(newname, led)
    for (const types of this.#leading.values()) {
      const columns = types.get(type)
      if (types.delete(type) && made && columns !== undefined) types.set(newname, columns)
    }
    for (const added of this.#added) if (added.type === type) added.type = newname
  }

  /** The transaction ends: everything up to here can be used. */
  commit(): void {
    for (const types of this.#leading.values()) for (const type of this.#made.keys()) types.delete(type)
    this.#made.clear()
    this.#added = []
  }
}

const quoted = (value: string): string => `'${value.replaceAll("'", "''")}'`

/** Whether a text has the value as a constant of SQL, or as an element of an array. */
const holds = (text: string, value: string): boolean =>
  text.includes(quoted(value)) || (/^\{.*\}$/s.test(text) && text.includes(value))

type AlterEnum = Extract<Node, { AlterEnumStmt: unknown }>['AlterEnumStmt']
type Drop = Extract<Node, { DropStmt: unknown }>['DropStmt']
type Rename = Extract<Node, { RenameStmt: unknown }>['RenameStmt']

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
  // A column's new name may be what the relation has of the type.
  if ('RenameStmt' in tree) return [tree.RenameStmt.newname ?? '', tree.RenameStmt.relation?.relname ?? '']
  return []
}

/** The columns that a statement gives its relation of a type that `leads`; null where that cannot be told. */
function columnsMadeBy(tree: Node, leads: (type: string) => boolean): Set<string> | null {
  const columns = (definitions: (Node | undefined)[]) =>
    definitions.flatMap(each => {
      if (!each || !('ColumnDef' in each)) return []
      const { colname = '', typeName } = each.ColumnDef
      return leads(nameOf(typeName?.names)) ? [colname] : []
    })
  if ('CreateStmt' in tree) {
    const { tableElts = [], inhRelations, ofTypename, partbound } = tree.CreateStmt
    const isWhole = !inhRelations && !ofTypename && !partbound && !tableElts.some(each => 'TableLikeClause' in each)
    return isWhole ? new Set(columns(tableElts)) : null
  }
  if ('AlterTableStmt' in tree) {
    const commands = (tree.AlterTableStmt.cmds ?? []).flatMap(each =>
      'AlterTableCmd' in each ? each.AlterTableCmd : [],
    )
    const names = columns(
      commands.map(({ subtype, name = '', def }) =>
        subtype === 'AT_AlterColumnType' && def && 'ColumnDef' in def
          ? { ColumnDef: { ...def.ColumnDef, colname: name } }
          : def,
      ),
    )
    return commands.some(({ subtype = '' }) => /Inherit|Partition|Of$/.test(subtype)) ? null : new Set(names)
  }
  return 'CompositeTypeStmt' in tree || 'CreateDomainStmt' in tree || 'CreateFunctionStmt' in tree ? new Set() : null
}
