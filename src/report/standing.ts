import type { DatabaseResult } from '../plan/result'

/** How ids and SQL are written. */
export interface Style {
  id(text: string): string
  sql(text: string): string
}

/** For the log. */
export const plain: Style = { id: text => text, sql: text => text.replaceAll(/\s+/g, ' ').trim() }

/** What is there besides the heads, in sentences; empty where there is nothing. */
export function besidesHeads(database: DatabaseResult, { id, sql }: Style = plain): string {
  if (database.plan === null) return ''
  const { standing, invalidIndex, segments } = database
  const unanswered = segments.find(
    ({ outcome, statement }) => outcome === 'in-doubt' && statement !== undefined,
  )?.statement
  return [
    standing &&
      `Outside of any revision, this of ${id(standing.revision)} stands: ${standing.statements.map(sql).join('; ')}.`,
    invalidIndex && `The index ${id(invalidIndex)} was left invalid.`,
    unanswered && `Whether this was carried out is not known: ${sql(unanswered)}.`,
  ]
    .filter(Boolean)
    .join(' ')
}
