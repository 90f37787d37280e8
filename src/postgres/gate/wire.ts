/**
 * The frames of PostgreSQL's wire protocol 3, as far as the gate reads and writes them.
 * Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
 */

/** One message: its type character, the body behind the length word, and the whole frame to pass on. */
export interface Message {
  type: string
  body: Buffer
  frame: Buffer
}

/** Codes that stand where a StartupMessage has its protocol version. */
export const startupCode = { cancel: 80877102, ssl: 80877103, gss: 80877104 } as const

/** Collects bytes and yields whole messages, wherever the stream was split. */
export class MessageReader {
  #chunks: Buffer[] = []
  #length = 0

  push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#length += chunk.length
  }

  /** The bytes that are not read yet. */
  get size(): number {
    return this.#length
  }

  /** A startup packet has no type character; returns its body (code and parameters) or nothing yet. */
  startup(): Buffer | undefined {
    const size = this.#peek(4)?.readInt32BE(0)
    if (size === undefined) return undefined
    if (size < 8 || size > 10_000) throw new Error(`a startup packet of ${size} bytes`)
    return this.#take(size)?.subarray(4)
  }

  /** A whole message, or nothing yet; throws where one is longer than messages of its type may be. */
  message(limitOf: (type: string) => number = () => Number.POSITIVE_INFINITY): Message | undefined {
    const head = this.#peek(5)
    if (!head) return undefined
    const type = String.fromCharCode(head.readUInt8(0))
    const size = head.readInt32BE(1)
    if (size < 4 || size > limitOf(type)) throw new Error(`a ${type} message of ${size} bytes`)
    const frame = this.#take(size + 1)
    return frame && { type, body: frame.subarray(5), frame }
  }

  #peek(size: number): Buffer | undefined {
    if (this.#length < size) return undefined
    const [first] = this.#chunks
    return first && first.length >= size ? first : this.#join()
  }

  #take(size: number): Buffer | undefined {
    const first = this.#peek(size)
    if (!first) return undefined
    this.#length -= size
    if (first.length === size) this.#chunks.shift()
    else this.#chunks[0] = first.subarray(size)
    return first.subarray(0, size)
  }

  #join(): Buffer {
    const all = Buffer.concat(this.#chunks)
    this.#chunks = [all]
    return all
  }
}

/**
 * The length from which PostgreSQL ends the connection, less what the gate adds to a name: 10,000 bytes, or a gigabyte
 * where there is SQL or data in the message. Source: PQ_SMALL_MESSAGE_LIMIT in libpq.h, SocketBackend in postgres.c.
 */
export const limitOf = (type: string): number => ('QPBFd'.includes(type) ? 0x3fff0000 : 9_900)

/** Frames a message of the given type. */
export function frame(type: string, ...parts: Buffer[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 4)
  const head = Buffer.allocUnsafe(5)
  head[0] = type.charCodeAt(0)
  head.writeInt32BE(length, 1)
  return Buffer.concat([head, ...parts])
}

/** A zero-terminated string. */
export function cstring(text: string | Buffer): Buffer {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text
  return Buffer.concat([bytes, zero])
}

/** Bytes that were followed by a zero, and where what is behind it begins. */
class CString {
  constructor(
    readonly bytes: Buffer,
    readonly next: number,
  ) {}

  get text(): string {
    return this.bytes.toString('utf8')
  }
}

/** Reads the zero-terminated bytes at `offset`; throws where the terminator is missing. */
export function readCString(body: Buffer, offset = 0): CString {
  const end = body.indexOf(0, offset)
  if (end < 0) throw new Error('a string without its terminator')
  return new CString(body.subarray(offset, end), end + 1)
}

const zero = Buffer.from([0])

export function int16(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(2)
  bytes.writeInt16BE(value)
  return bytes
}

export function int32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeInt32BE(value)
  return bytes
}

// What a client sends.
export const query = (sql: string | Buffer) => frame('Q', cstring(sql))
export const parse = (name: string, sql: string | Buffer, types: Buffer = int16(0)) =>
  frame('P', cstring(name), Buffer.isBuffer(sql) ? sql : Buffer.from(sql), zero, types)
/** Binds no parameters and asks for every result as text. */
export const bind = (portal: string, name: string) =>
  frame('B', cstring(portal), cstring(name), int16(0), int16(0), int16(0))
export const describePortal = (portal: string) => frame('D', Buffer.from('P'), cstring(portal))
export const describeStatement = (name: string) => frame('D', Buffer.from('S'), cstring(name))
export const execute = (portal: string) => frame('E', cstring(portal), int32(0))
export const closeStatement = (name: string) => frame('C', Buffer.from('S'), cstring(name))
export const closePortal = (portal: string) => frame('C', Buffer.from('P'), cstring(portal))
export const copyFail = (why: string) => frame('f', cstring(why))
export const sync = frame('S')
export const flush = frame('H')

// What a server sends.
export const readyForQuery = (status: string) => frame('Z', Buffer.from(status))
export const commandComplete = (tag: string) => frame('C', cstring(tag))
export const emptyQuery = frame('I')
export const parameterStatus = (name: string, value: string) => frame('S', cstring(name), cstring(value))
export const backendKeyData = (pid: number, secret: Buffer) => frame('K', int32(pid), secret)
export const authenticationOk = frame('R', int32(0))
export const authenticationCleartextPassword = frame('R', int32(3))
export const parseComplete = frame('1')
export const bindComplete = frame('2')
export const closeComplete = frame('3')
export const noData = frame('n')
export const noParameters = frame('t', int16(0))
/** Version 3.0 is the newest that is spoken here, without any of the protocol options that were asked for. */
export const negotiateProtocolVersion = (options: string[]) =>
  frame('v', int32(3 << 16), int32(options.length), ...options.map(cstring))

export function errorResponse(severity: 'ERROR' | 'FATAL', code: string, message: string): Buffer {
  const field = (key: string, value: string) => cstring(key + value.replaceAll('\0', ''))
  return frame('E', field('S', severity), field('V', severity), field('C', code), field('M', message), zero)
}

/** The fields of an ErrorResponse or NoticeResponse, by their one-character keys ("C" SQLSTATE, "M" message, …). */
export function readFields(body: Buffer): Record<string, string> {
  const fields: Record<string, string> = {}
  for (let offset = 0; offset < body.length && body[offset] !== 0; ) {
    const { text, next } = readCString(body, offset + 1)
    fields[String.fromCharCode(body.readUInt8(offset))] = text
    offset = next
  }
  return fields
}

/** The parameters of a StartupMessage, behind its four-byte version. */
export function readStartupParameters(body: Buffer): Record<string, string> {
  const parameters: Record<string, string> = {}
  for (let offset = 4; offset < body.length && body[offset] !== 0; ) {
    const key = readCString(body, offset)
    const value = readCString(body, key.next)
    parameters[key.text] = value.text
    offset = value.next
  }
  return parameters
}

/** The columns of a DataRow in text format; null for NULL. */
export function readRow(body: Buffer): (string | null)[] {
  const columns: (string | null)[] = []
  for (let offset = 2, count = body.readInt16BE(0); columns.length < count; ) {
    const size = body.readInt32BE(offset)
    offset += 4
    columns.push(size < 0 ? null : body.toString('utf8', offset, offset + size))
    offset += Math.max(size, 0)
  }
  return columns
}

/** The parameters of a Bind message, behind its two names; binary ones as `\x…`. */
export function readParameters(rest: Buffer): (string | null)[] {
  const formats = Array.from({ length: rest.readInt16BE(0) }, (_, i) => rest.readInt16BE(2 + 2 * i))
  const values: (string | null)[] = []
  let offset = 2 + 2 * formats.length
  const count = rest.readInt16BE(offset)
  offset += 2
  for (let i = 0; i < count; i++) {
    const size = rest.readInt32BE(offset)
    offset += 4
    const binary = (formats.length === 1 ? formats[0] : formats[i]) === 1
    const bytes = rest.subarray(offset, offset + Math.max(size, 0))
    values.push(size < 0 ? null : binary ? `\\x${bytes.toString('hex')}` : bytes.toString('utf8'))
    offset += bytes.length
  }
  return values
}
