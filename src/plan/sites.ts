import type { Node } from 'libpg-query'
import { nameOf } from './nodes'

/** What a constant becomes a value of, as far as the syntax tells: a column, a type that it is cast to, or anything. */
export type Site = { column: string } | { type: string } | 'anything'

/** Where a statement has that string as a constant. */
export function sitesOf(tree: Node, value: string): Site[] {
  const sites: Site[] = []
  const isConstant = (node: Part): boolean => node?.A_Const?.sval?.sval === value
  /** The nodes that stand for a column's value, and then the rest of them. */
  const visit = (node: Part, site: Site = 'anything'): void => {
    if (isConstant(node)) sites.push(site)
    else if (Array.isArray(node)) for (const each of node) visit(each)
    else if (typeof node === 'object' && node !== null) {
      for (const [kind, part] of Object.entries(node)) (special[kind] ?? visit)(part)
    }
  }
  const assignments = (targets: Part[] = []): void => {
    for (const { ResTarget } of targets) {
      visit(ResTarget?.val, ResTarget?.name && !ResTarget.indirection ? { column: ResTarget.name } : 'anything')
    }
  }
  const special: Record<string, (part: Part) => void> = {
    InsertStmt({ cols = [], selectStmt, ...part }) {
      const { valuesLists = [], targetList = [], ...select } = selectStmt?.SelectStmt ?? {}
      const rows: Part[][] = valuesLists.map(({ List }: Part) => List?.items ?? [])
      for (const row of [...rows, targetList.map(({ ResTarget }: Part) => ResTarget?.val)]) {
        for (const [at, item] of row.entries()) {
          const column = cols[at]?.ResTarget?.indirection ? undefined : cols[at]?.ResTarget?.name
          visit(item, column === undefined ? 'anything' : { column })
        }
      }
      visit(select)
      visit(part)
    },
    UpdateStmt({ targetList, ...part }) {
      assignments(targetList)
      visit(part)
    },
    onConflictClause({ targetList, ...part }) {
      assignments(targetList)
      visit(part)
    },
    A_Expr({ lexpr, rexpr }) {
      for (const [one, other] of [
        [lexpr, rexpr],
        [rexpr, lexpr],
      ]) {
        const column = nameOf(other?.ColumnRef?.fields)
        for (const each of one?.List ? one.List.items : [one]) visit(each, column === '' ? 'anything' : { column })
      }
    },
    TypeCast({ arg, typeName }) {
      // What is cast twice was text in between.
      visit(arg?.TypeCast?.arg ?? arg, arg?.TypeCast ? 'anything' : { type: nameOf(typeName?.names) })
    },
    ColumnDef({ typeName, constraints = [], ...part }) {
      for (const { Constraint } of constraints) {
        const { raw_expr, ...others } = Constraint ?? {}
        visit(raw_expr, { type: nameOf(typeName?.names) })
        visit(others)
      }
      visit(part)
    },
    AlterTableCmd({ subtype, name, def, ...part }) {
      visit(def, subtype === 'AT_ColumnDefault' ? { column: name } : 'anything')
      visit(part)
    },
  }
  visit(tree)
  // A column of a subquery can be another one's under its name.
  return /"(RangeSubselect|RangeFunction|CommonTableExpr)"/.test(JSON.stringify(tree))
    ? sites.map(() => 'anything')
    : sites
}

/** All strings of a statement: constants, bodies, names. */
export function stringsIn(tree: Node): string[] {
  const strings: string[] = []
  JSON.stringify(tree, (key, value) => {
    if (key === 'sval' && typeof value === 'string') strings.push(value)
    return value
  })
  return strings
}

/** A part of a parse tree, of which not every kind is asked. */
// biome-ignore lint/suspicious/noExplicitAny: the parser's types have a union of every node at each place.
type Part = any
