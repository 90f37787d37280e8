import type { Plan, RenderedStatement } from './plan'
import { splitStatements } from './statements'

/**
 * The plan with each statement by itself, where a script has executed several at once: what is shown is what PostgreSQL
 * gets, one after another. Comments stay where they are. Needs the parser to be loaded.
 */
export function separate(plan: Plan): Plan {
  const revisions = plan.revisions.map(({ statements, ...revision }) => {
    return statements ? { ...revision, statements: statements.flatMap(apart) } : revision
  })
  return { ...plan, revisions }
}

function apart(statement: RenderedStatement): RenderedStatement[] {
  try {
    return mayBeSeveral(statement.sql) ? textsOf(statement.sql).map(sql => ({ ...statement, sql })) : [statement]
  } catch {
    // It is shown as it stands, and the server will say what is wrong with it.
    return [statement]
  }
}

function textsOf(sql: string): string[] {
  const ends = splitStatements(sql).map(({ end }) => end)
  if (ends.length < 2) return [sql]
  const bytes = Buffer.from(sql)
  const starts = [0, ...ends.slice(0, -1).map(end => end + 1)]
  return starts.map((start, n) => bytes.toString('utf8', start, n < starts.length - 1 ? ends[n] : bytes.length).trim())
}

/** How many statements PostgreSQL sees in SQL text. Throws libpg-query's `SqlError` where its grammar does not accept it. */
export const countStatements = (sql: string): number => (mayBeSeveral(sql) ? splitStatements(sql).length : 1)

/** Without these it is one, and megabytes of data need not be parsed. */
const mayBeSeveral = (sql: string): boolean => sql.includes(';') || /^\s*(--|\/\*|$)/.test(sql)
