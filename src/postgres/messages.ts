import type { Client } from 'pg'
import { type ServerError, serverError } from './gate/tape'
import { Upstream } from './gate/upstream'
import * as wire from './gate/wire'

/** How PostgreSQL answered a command: its tag's words, and the rows that it touched. */
export interface CommandTag {
  /** Such as `INSERT` or `CREATE TABLE`. */
  command: string
  /** null where the tag has no number. */
  rows: number | null
}

/** PostgreSQL refused a command of a message, or the connection was lost. */
export class MessageError extends Error {
  constructor(
    /** undefined where the connection was lost. */
    readonly refused: ServerError | undefined,
    message: string,
    /** The commands before it. */
    readonly answered: CommandTag[],
  ) {
    super(message)
  }
}

/**
 * Messages of the simple query protocol on the connection of an idle client, each sent without waiting for the answer to
 * the one before. Rows are not kept; a COPY FROM STDIN, for which there is no data, ends the connection.
 * Source: protocol-flow.html, "Simple Query" and "Pipelining".
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

  /** Sends SQL text and resolves with the answer to each of its commands. Throws a MessageError. */
  send(text: string): Promise<CommandTag[]> {
    const answered: CommandTag[] = []
    const sent = new Promise<CommandTag[]>((resolve, reject) => {
      let refused: ServerError | undefined
      const lose = (error: Error) => reject(new MessageError(refused, (refused ?? error).message, answered))
      if (this.#upstream.lost) return lose(this.#upstream.lost)
      this.#losses.add(lose)
      this.#upstream.send({
        bytes: wire.query(text),
        expected: [
          {
            ends: 'Z',
            deliver({ type, body }) {
              if (type === 'C') answered.push(tagOf(wire.readCString(body).text))
              if (type === 'E') refused = serverError(wire.readFields(body))
            },
            done: () => {
              this.#losses.delete(lose)
              if (refused) reject(new MessageError(refused, refused.message, answered))
              else resolve(answered)
            },
          },
        ],
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

/** `INSERT 0 2` and `UPDATE 2` end with the rows, `CREATE TABLE` has none. */
function tagOf(text: string): CommandTag {
  const rows = /\d+$/.exec(text)?.[0]
  return { command: text.replace(/[ \d]+$/, ''), rows: rows === undefined ? null : Number(rows) }
}
