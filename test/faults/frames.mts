/** To PostgreSQL, or from it. */
export type Direction = 'up' | 'down'

export interface Frame {
  /** The type's character; empty for a startup packet and for the one-byte answer to a question for TLS. */
  type: string
  /** The SQL of a Query or Parse message; else empty. */
  sql: string
  bytes: Buffer
}

const [cancelRequest, sslRequest, gssRequest] = [80877102, 80877103, 80877104]

/**
 * Cuts the two byte streams of one connection into the protocol's messages.
 * Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
export class Frames {
  #rest = { up: Buffer.alloc(0), down: Buffer.alloc(0) }
  /** Before the StartupMessage, packets have no type. */
  #started = false
  /** How many questions for encryption wait for their answer of one byte. */
  #questions = 0

  /** The messages that are whole now. Throws where TLS begins: what passes then cannot be read. */
  read(direction: Direction, chunk: Buffer): Frame[] {
    this.#rest[direction] = Buffer.concat([this.#rest[direction], chunk])
    const frames: Frame[] = []
    for (let frame = this.#next(direction); frame; frame = this.#next(direction)) frames.push(frame)
    return frames
  }

  #next(direction: Direction): Frame | undefined {
    const rest = this.#rest[direction]
    if (direction === 'down' && this.#questions > 0) return this.#answer(rest)
    if (direction === 'up' && !this.#started) return this.#startup(rest)
    if (rest.length < 5) return undefined
    const bytes = this.#take(direction, 1 + rest.readInt32BE(1))
    if (!bytes) return undefined
    const type = String.fromCharCode(bytes[0]!)
    const sql =
      direction === 'down' ? '' : type === 'Q' ? text(bytes, 5) : type === 'P' ? text(bytes, after(bytes, 5)) : ''
    return { type, sql, bytes }
  }

  #startup(rest: Buffer): Frame | undefined {
    if (rest.length < 8) return undefined
    const code = rest.readInt32BE(4)
    const bytes = this.#take('up', rest.readInt32BE(0))
    if (!bytes) return undefined
    if (code === sslRequest || code === gssRequest) this.#questions++
    else if (code !== cancelRequest) this.#started = true
    return { type: '', sql: '', bytes }
  }

  #answer(rest: Buffer): Frame | undefined {
    if (rest.length === 0) return undefined
    if (rest[0] !== 'N'.charCodeAt(0)) throw new Error('the server speaks TLS')
    this.#questions--
    return { type: '', sql: '', bytes: this.#take('down', 1)! }
  }

  #take(direction: Direction, size: number): Buffer | undefined {
    const rest = this.#rest[direction]
    if (rest.length < size) return undefined
    this.#rest[direction] = rest.subarray(size)
    return rest.subarray(0, size)
  }
}

const after = (bytes: Buffer, offset: number): number => bytes.indexOf(0, offset) + 1
const text = (bytes: Buffer, offset: number): string => bytes.toString('utf8', offset, bytes.indexOf(0, offset))
