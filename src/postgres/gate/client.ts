import type { Socket } from 'node:net'
import { type Upstream, writeTogether } from './upstream'
import * as wire from './wire'

/** Who takes the client's messages. */
export interface Hearer {
  /** Whether nothing more is taken for now; call `work()` when that changes. */
  readonly waits: boolean
  receive(message: wire.Message): void
  /** What the client sent is broken. */
  refuse(error: unknown): void
}

/** Bytes that are taken in from a client that has to wait. */
const patience = 1_000_000

/** Bytes of an answer that are taken in for a client that does not read it. */
const mostTakenIn = 256_000_000

/** A client's socket. Who writes faster than the other side reads is held back, client and server alike. */
export class ClientSocket {
  /** Nothing more is written to it, or taken from it. */
  ended = false
  /** The client does not read. */
  #clogged = false
  /** What goes on as soon as PostgreSQL reads again; undefined while it reads. */
  #whenDrained: (() => void) | undefined
  /** What the client may not have yet. */
  #held: Buffer[] | undefined
  /** Bytes of an answer that are taken in though the client does not read them, where somebody waits for its end. */
  #room = 0

  constructor(
    private readonly socket: Socket,
    private readonly reader: wire.MessageReader,
    private readonly upstream: Upstream,
    private readonly hearer: Hearer,
  ) {}

  /** Hands on the messages that have come. What a client sends may be broken; that ends this client and no other. */
  work(first?: wire.Message): void {
    try {
      if (first) this.hearer.receive(first)
      while (!this.ended) {
        if (this.hearer.waits) {
          if (this.reader.size > patience) this.socket.pause()
          return
        }
        if (this.#isCongested) return
        const message = this.reader.message(wire.limitOf)
        if (!message) break
        this.hearer.receive(message)
      }
      if (this.socket.isPaused()) this.socket.resume()
    } catch (error) {
      this.hearer.refuse(error)
    }
  }

  get #isCongested(): boolean {
    if (this.#whenDrained) return true
    if (!this.upstream.congested) return false
    this.#whenDrained = () => {
      this.#whenDrained = undefined
      this.work()
    }
    this.socket.pause()
    this.upstream.drained(this.#whenDrained)
    return true
  }

  /** Keeps back what is written from now on, until `release`. */
  hold(): void {
    this.#held ??= []
  }

  /** Hands on what was kept back. */
  release(): void {
    const held = this.#held
    this.#held = undefined
    if (held && held.length > 0) this.write(Buffer.concat(held))
  }

  /** What was kept back is never told. */
  forget(): void {
    this.#held = undefined
  }

  write(bytes: Buffer): void {
    if (this.#held) return void this.#held.push(bytes)
    if (this.ended || this.socket.destroyed) return
    if (writeTogether(this.socket, bytes) || this.#clogged) return
    if (this.socket.writableLength < this.#room) return
    this.#clogged = true
    this.upstream.pause()
    this.socket.once('drain', this.#unclog)
  }

  /** From now on, until the end of the answer, PostgreSQL is not held back for a client that does not read. */
  takeIn(): void {
    this.#room = mostTakenIn
    this.#unclog()
  }

  /** The answer has ended. */
  takenIn(): void {
    this.#room = 0
  }

  #unclog = (): void => {
    if (!this.#clogged) return
    this.#clogged = false
    this.socket.off('drain', this.#unclog)
    this.upstream.resume()
  }

  end(): void {
    this.ended = true
    this.#unclog()
    this.socket.end()
  }
}
