/** What a client's message says, before anything is done about it. */
import type { PreparedStatements } from './prepared'
import { type Understood, understand } from './understand'
import * as wire from './wire'

/** The statement that a message sends, binds, describes or executes, where it is one alone. */
export function statementOf({ type, body }: wire.Message, statements: PreparedStatements): Understood | undefined {
  switch (type) {
    case 'Q':
      return onlyOne(wire.readCString(body).bytes)
    case 'P':
      return onlyOne(wire.readCString(body, wire.readCString(body).next).bytes)
    case 'B':
      return statements.get(wire.readCString(body, wire.readCString(body).next).text)
    case 'D': {
      const { text } = wire.readCString(body, 1)
      return body[0] === 0x53 ? statements.get(text) : statements.portals.get(text)?.statement
    }
    case 'E':
      return statements.portals.get(wire.readCString(body).text)?.statement
    default:
      return undefined
  }
}

function onlyOne(sql: Buffer): Understood | undefined {
  const [statement, ...more] = understand(sql)
  return more.length > 0 ? undefined : statement
}

/** The same message with other SQL; one that has none stays as it is. */
export function withSql(message: wire.Message, sql: string): wire.Message {
  const { type, body } = message
  const name = type === 'P' ? wire.readCString(body) : undefined
  if (type !== 'Q' && !name) return message
  const given = wire.readCString(body, name?.next)
  if (given.text === sql) return message
  const frame = name
    ? wire.frame('P', wire.cstring(name.bytes), wire.cstring(sql), body.subarray(given.next))
    : wire.query(sql)
  return { type, body: frame.subarray(5), frame }
}
