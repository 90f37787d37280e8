import type { Client, Connection, DatabaseError, Submittable } from 'pg'

/** How PostgreSQL answered a command: its tag's words, and the rows that it touched. */
export interface CommandTag {
  /** Such as `INSERT` or `CREATE TABLE`. */
  command: string
  /** null where the tag has no number. */
  rows: number | null
}

/** PostgreSQL refused a command of a message. */
export class MessageError extends Error {
  constructor(
    override readonly cause: Error | DatabaseError,
    /** The commands before it. */
    readonly answered: CommandTag[],
  ) {
    super(cause.message)
  }
}

/**
 * Sends SQL text as one message of the simple query protocol and resolves with the answer to each command; rows are not
 * kept. Source: protocol-flow.html, "Simple Query". Throws a MessageError.
 */
export function sendMessage(client: Client, text: string): Promise<CommandTag[]> {
  return new Promise((resolve, reject) => client.query(new Message(text, resolve, reject)))
}

/** What pg calls as the answers come in. */
class Message implements Submittable {
  readonly #answered: CommandTag[] = []

  constructor(
    private readonly text: string,
    private readonly resolve: (answered: CommandTag[]) => void,
    private readonly reject: (error: Error) => void,
  ) {}

  submit(connection: Connection): void {
    connection.query(this.text)
  }

  handleRowDescription(): void {}
  handleDataRow(): void {}
  handleEmptyQuery(): void {}

  handleCommandComplete({ text }: { text: string }): void {
    // `INSERT 0 2` and `UPDATE 2` end with the rows, `CREATE TABLE` has none.
    const rows = /\d+$/.exec(text)?.[0]
    const command = text.replace(/[ \d]+$/, '')
    this.#answered.push({ command, rows: rows === undefined ? null : Number(rows) })
  }

  handleCopyInResponse(connection: Connection & { sendCopyFail(why: string): void }): void {
    connection.sendCopyFail('a plan file has no data for COPY')
  }

  handleCopyData(): void {}

  handleError(error: Error): void {
    this.reject(new MessageError(error, this.#answered))
  }

  handleReadyForQuery(): void {
    this.resolve(this.#answered)
  }
}
