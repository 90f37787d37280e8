import type { Duplex } from 'node:stream'
import type { Client } from 'pg'
import { type Message, MessageReader, readFields } from './wire'

/** What one message sent upstream will be answered with, and who wants the answer. */
export interface Expected {
  /**
   * The types of the message that ends the answer, as one string: `"1"` for Parse, `"CIs"` for Execute, `"Z"` for Sync.
   * Empty: nothing was sent, `done` takes its place in the order of the answers.
   */
  ends: string
  /** Called with every message of the answer, the last one and an ErrorResponse included. */
  deliver?: (message: Message) => void
  /** Called when PostgreSQL waits for COPY data, which it may do only where this is given. */
  copyIn?: () => void
  /** Called when the answer is complete, and not when the server skipped it after an error. */
  done?: (last?: Message) => void
}

/** What goes upstream in one piece. */
export interface Request {
  bytes: Buffer
  expected: Expected[]
}

/** What is written in one go leaves in one piece: a system call costs more than all else that the gate does. */
export function writeTogether(socket: Duplex, bytes: Buffer): boolean {
  if (socket.writableCorked === 0) {
    socket.cork()
    process.nextTick(() => socket.uncork())
  }
  return socket.write(bytes)
}

/** What PostgreSQL may send at any time, for whoever has the turn. */
export interface Listener {
  asynchronous(message: Message): void
  /** The connection has ended, or is about to; `frame` is the ErrorResponse that says so, if PostgreSQL sent one. */
  lost(error: Error, frame?: Buffer): void
}

/**
 * The socket of a connected, idle `pg` client, spoken to in raw messages.
 *
 * This is the one place that leans on pg's inside: `client.connection.stream` is its socket, and its parser listens
 * there for 'data'. While the gate is open we listen instead; `release()` gives the socket back, between two messages.
 */
export class Upstream {
  readonly #socket: Duplex
  readonly #reader = new MessageReader()
  readonly #pgListeners: ((chunk: Buffer) => void)[]
  #queue: Expected[] = []
  /** Why the connection was lost, if it was. */
  lost: Error | undefined
  /** Why nothing of it may be committed, and nothing more be run, though it is not lost. */
  doom: Error | undefined
  /** What the last ReadyForQuery said: `T` inside the transaction, `E` when it has failed, `I` between two. */
  status = 'T'
  /** Whose the unnamed prepared statement is: the server has one, and each client thinks that it has its own. */
  unnamedOf: object | undefined

  constructor(
    client: Client,
    private readonly listener: Listener,
  ) {
    this.#socket = (client as unknown as { connection: { stream: Duplex } }).connection.stream
    this.#pgListeners = this.#socket.listeners('data') as ((chunk: Buffer) => void)[]
    if (this.#pgListeners.length !== 1) throw new Error('pg does not read its socket in the way this version knows')
    this.take('T')
  }

  /** Takes the socket from pg, whose client is idle; `status` is what the server has told it last. */
  take(status: 'T' | 'I'): void {
    this.status = status
    this.unnamedOf = undefined
    this.#socket.removeAllListeners('data')
    this.#socket.on('data', this.#onData)
    this.#socket.on('close', this.#onClose)
    this.#socket.on('error', this.#onClose)
    if (this.#socket.destroyed) this.#onClose()
  }

  get idle(): boolean {
    return this.#queue.length === 0
  }

  /** Bytes wait to be written: who has many more of them waits for `drained`. */
  get congested(): boolean {
    return this.#socket.writableNeedDrain
  }

  drained(resume: () => void): void {
    this.#socket.once('drain', resume)
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  send(request: Request): void {
    if (this.lost) return
    this.#queue.push(...request.expected)
    if (request.bytes.length > 0) writeTogether(this.#socket, request.bytes)
    this.#settle()
  }

  /** Gives the socket back to pg; only when `idle`. */
  release(): void {
    this.#socket.off('data', this.#onData)
    this.#socket.off('close', this.#onClose)
    this.#socket.off('error', this.#onClose)
    for (const listener of this.#pgListeners) this.#socket.on('data', listener)
    this.#socket.resume()
  }

  /** Ends the connection: its state is not what we think, and PostgreSQL then rolls back. */
  abandon(error: Error): void {
    this.#lose(this.doom ?? error)
    this.#socket.destroy()
  }

  #onClose = (error?: unknown): void => {
    this.#lose(error instanceof Error ? error : new Error('the server closed the connection'))
  }

  #lose(error: Error, frame?: Buffer): void {
    if (this.lost) return
    this.lost = error
    this.#queue = []
    this.listener.lost(error, frame)
  }

  #onData = (chunk: Buffer): void => {
    this.#reader.push(chunk)
    try {
      for (let message = this.#reader.message(); message; message = this.#reader.message()) this.#receive(message)
    } catch (error) {
      this.abandon(error instanceof Error ? error : new Error(String(error)))
    }
  }

  #receive(message: Message): void {
    const { type } = message
    if (this.lost) return
    if (type === 'N' || type === 'S' || type === 'A') return this.listener.asynchronous(message)
    const fields = type === 'E' ? readFields(message.body) : undefined
    if (fields && /^(FATAL|PANIC)$/.test(fields.V ?? '')) return this.#lose(new Error(fields.M), message.frame)
    const head = this.#queue[0]
    if (!head || (type === 'Z' && head.ends !== 'Z'))
      throw new Error(`PostgreSQL sent a ${type} message that nothing asked for${fields ? `: ${fields.M}` : ''}`)
    if (fields) {
      // The server now skips everything up to the next Sync, and so do we.
      const next = this.#queue.findIndex(expected => expected.ends === 'Z')
      this.#queue.splice(0, next < 0 ? this.#queue.length : next)
      head.deliver?.(message)
      return
    }
    if (type === 'Z') this.status = String.fromCharCode(message.body.readUInt8(0))
    const asksForData = type === 'G' || type === 'W'
    if (asksForData && !head.copyIn) throw new Error('PostgreSQL waits for COPY data that nobody was going to send')
    head.deliver?.(message)
    if (asksForData) head.copyIn?.()
    if (head.ends.includes(type)) {
      this.#queue.shift()
      head.done?.(message)
      this.#settle()
    }
  }

  #settle(): void {
    for (let head = this.#queue[0]; head?.ends === ''; head = this.#queue[0]) {
      this.#queue.shift()
      head.done?.()
    }
  }
}
