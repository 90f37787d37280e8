import { relative } from 'node:path'

/** A file for people: relative to the workspace where it lies inside it. */
export function shownPath(absolute: string): string {
  const inside = relative(process.env.GITHUB_WORKSPACE ?? process.cwd(), absolute)
  return inside.startsWith('..') ? absolute : inside.replaceAll('\\', '/')
}
