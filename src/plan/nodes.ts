import type { Node } from 'libpg-query'

/** The text of a constant; empty for anything else. */
export function textOf(node: Node): string {
  if ('String' in node) return node.String.sval ?? ''
  if ('Integer' in node) return String(node.Integer.ival ?? 0)
  if ('Boolean' in node) return String(node.Boolean.boolval ?? false)
  if (!('A_Const' in node)) return ''
  const { sval, ival } = node.A_Const
  return sval ? (sval.sval ?? '') : ival ? String(ival.ival ?? 0) : ''
}

/** The name of a type, a function or another object without its schema. */
export function nameOf(names: Node[] | undefined): string {
  const last = names?.at(-1)
  return last && 'String' in last ? (last.String.sval ?? '') : ''
}
