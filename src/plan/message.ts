import type { RenderedStatement } from './plan'
import { terminated } from './sql'
import { splitStatements } from './statements'

/** The statements of a revision as one message of PostgreSQL's simple query protocol. */
export interface Message {
  text: string
  /** Where each statement begins in the text, in UTF-16 units. */
  starts: { statement: RenderedStatement; at: number }[]
  /** The statement of each command: a script can execute several at once, or a mere comment. */
  commands: RenderedStatement[]
}

/** Throws libpg-query's `SqlError` where PostgreSQL 18's grammar does not accept a statement. */
export function messageOf(statements: RenderedStatement[]): Message {
  const message: Message = { text: '', starts: [], commands: [] }
  for (const statement of statements) {
    message.starts.push({ statement, at: message.text.length })
    message.text += `${terminated(statement.sql)}\n`
    for (let n = countCommands(statement.sql); n > 0; n--) message.commands.push(statement)
  }
  return message
}

/** How many commands PostgreSQL sees in SQL text. Throws as `messageOf`. */
export function countCommands(sql: string): number {
  // Without these it is one, and megabytes of data need not be parsed.
  const isOne = !sql.includes(';') && !/^\s*(--|\/\*|$)/.test(sql)
  return isOne ? 1 : splitStatements(sql).length
}

/** The statement that PostgreSQL refused, and the character in it, counted from 1. */
export interface Refused {
  statement: RenderedStatement | undefined
  position?: number
}

/**
 * The statement that PostgreSQL refused, and where in it: `position` counts characters of the message from 1, as in an
 * ErrorResponse; without one it is the command behind the `answered` ones.
 */
export function refusedIn(message: Message, position: number | undefined, answered: number): Refused {
  if (position === undefined) return { statement: message.commands[answered] }
  const at = unitsIn(message.text, position - 1)
  const part = message.starts.findLast(start => start.at <= at)
  if (!part) return { statement: undefined }
  const before = message.text.slice(part.at, at)
  return { statement: part.statement, position: [...before].length + 1 }
}

/** How many UTF-16 units the first characters of a text take. */
function unitsIn(text: string, characters: number): number {
  let units = 0
  for (let n = 0; n < characters && units < text.length; n++) units += text.codePointAt(units)! > 0xffff ? 2 : 1
  return units
}
