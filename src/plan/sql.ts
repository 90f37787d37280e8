import type { Plan, RenderedStatement, Revision } from './plan'
import { nameHeads } from './result'

/** One statement with its terminator, which a trailing line comment must not swallow. */
export function terminated(sql: string): string {
  const lastLine = sql.slice(sql.lastIndexOf('\n') + 1)
  return lastLine.includes('--') ? `${sql}\n;` : `${sql};`
}

export const sqlOf = (statements: RenderedStatement[]): string =>
  statements.map(statement => terminated(statement.sql)).join('\n\n')

/** What a person reads of a revision: its script's statements, without Alembic's bookkeeping. */
export const ownStatements = (revision: Revision): RenderedStatement[] =>
  (revision.statements ?? []).filter(statement => !statement.own)

/** The whole batch as one SQL script, as `--sql` would print it; throws when a revision is not rendered. */
export function sqlScript(plan: Plan): string {
  const parts = plan.revisions.map(({ id, message, statements }) => {
    if (!statements) throw new Error(`revision ${id} is not rendered`)
    return `${sqlComment(`${plan.direction} ${id}${message && `: ${message}`}`)}\n\n${sqlOf(statements)}`
  })
  const heads = sqlComment(`${nameHeads(plan.priorHeads)} -> ${nameHeads(plan.newHeads)}`)
  return [heads, 'BEGIN;', ...parts, 'COMMIT;', ''].join('\n\n')
}

/** A comment ends at its line's end; what follows it would run. */
export const sqlComment = (text: string): string => `-- ${text.replaceAll(/[\r\n]+/g, ' ')}`
