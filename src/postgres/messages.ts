import type { Client } from 'pg'
import { type ServerError, serverError } from './gate/tape'
import { type Request, Upstream } from './gate/upstream'
import * as wire from './gate/wire'

/** How PostgreSQL answered a statement: its tag's words, and the rows that it touched. */
export interface CommandTag {
  /** Such as `INSERT` or `CREATE TABLE`; empty where the statement was a mere comment. */
  command: string
  /** null where the tag has no number. */
  rows: number | null
}

/** PostgreSQL refused a statement, or the connection was lost. */
export class MessageError extends Error {
  constructor(
    /** undefined where the connection was lost. */
    readonly refused: ServerError | undefined,
    message: string,
    /** The statements before it. */
    readonly answered: CommandTag[],
  ) {
    super(message)
  }
}

/**
 * Statements on the connection of an idle client whose transaction is open, sent without waiting for the answers to those
 * before. Each goes in a Parse of its own, which the server refuses (42601) where it reads two. Rows are not kept; a COPY
 * FROM STDIN, for which there is no data, ends the connection.
 * Source: protocol-flow.html, "Extended Query" and "Pipelining".
 */
export class Messages {
  readonly #upstream: Upstream
  /** Those that are not answered yet reject with it. */
  readonly #losses = new Set<(error: Error) => void>()

  constructor(client: Client, onNotice: (severity: string, text: string) => void) {
    this.#upstream = new Upstream(client, {
      asynchronous({ type, body }) {
        if (type !== 'N') return
        const { V: severity = '', M: text = '' } = wire.readFields(body)
        onNotice(severity, text)
      },
      lost: error => {
        for (const lose of this.#losses) lose(error)
      },
    })
  }

  /**
   * Sends statements with a Sync behind them, so that those behind one that fails are not run; resolves with the answer to
   * each. Throws a MessageError.
   */
  send(statements: string[]): Promise<CommandTag[]> {
    const answered: CommandTag[] = []
    const sent = new Promise<CommandTag[]>((resolve, reject) => {
      let refused: ServerError | undefined
      const lose = (error: Error) => reject(new MessageError(refused, (refused ?? error).message, answered))
      if (this.#upstream.lost) return lose(this.#upstream.lost)
      this.#losses.add(lose)
      const failed = ({ type, body }: wire.Message): void => {
        if (type === 'E') refused = serverError(wire.readFields(body))
      }
      const deliver = (message: wire.Message): void => {
        failed(message)
        if (message.type === 'C') answered.push(tagOf(wire.readCString(message.body).text))
        else if (message.type === 'I') answered.push({ command: '', rows: null })
      }
      const done = (): void => {
        this.#losses.delete(lose)
        if (refused) reject(new MessageError(refused, refused.message, answered))
        else resolve(answered)
      }
      const setting = (bytes: Buffer): Request => ({ bytes, expected: [{ ends: 'C', deliver: failed }] })
      const requests = [
        // For functions that the statements call: an earlier revision may have made them.
        ...strings.map(setting),
        ...statements.flatMap((sql): Request[] => [
          ...settingsOf(sql).map(setting),
          { bytes: oneStatement(sql), expected: [{ ends: 'CI', deliver }] },
        ]),
      ]
      this.#upstream.send({
        bytes: Buffer.concat([...requests.map(({ bytes }) => bytes), wire.sync]),
        expected: [...requests.flatMap(({ expected }) => expected), { ends: 'Z', done }],
      })
    })
    // It is awaited later, if ever.
    sent.catch(() => {})
    return sent
  }

  /** Gives the connection back to the client; only when everything is answered. */
  close(): void {
    if (!this.#upstream.lost) this.#upstream.release()
  }
}

const oneStatement = (sql: string): Buffer => Buffer.concat([wire.parse('', sql), wire.bind('', ''), wire.execute('')])

/**
 * How a statement's text is read is not for a script, a role or a database to say: it means what it means to whoever was
 * shown it. LOCAL, because a pooler's server connection outlives us.
 */
const strings = ['SET LOCAL standard_conforming_strings = on', 'SET LOCAL backslash_quote = safe_encoding'].map(
  oneStatement,
)
const characters = oneStatement("SET LOCAL client_encoding = 'UTF8'")

/**
 * What a text depends on. A script's own encoding stays where it is for what it may be meant for: COPY reads the server's
 * files in it.
 */
const settingsOf = (sql: string): Buffer[] => [
  ...(/\\|U&/i.test(sql) ? strings : []),
  ...(/[^\0-\x7f]/.test(sql) ? [characters] : []),
]

/** `INSERT 0 2` and `UPDATE 2` end with the rows, `CREATE TABLE` has none. */
function tagOf(text: string): CommandTag {
  const rows = /\d+$/.exec(text)?.[0]
  return { command: text.replace(/[ \d]+$/, ''), rows: rows === undefined ? null : Number(rows) }
}
