import type { ClientSocket } from './client'
import { afterwards } from './request'
import { type ServerError, serverError, type Tape } from './tape'
import type { Request, Upstream } from './upstream'
import * as wire from './wire'

/** To be called when a statement is answered, with its command tag or the error. */
export type Finish = (tag: string | null, error?: ServerError) => void

/** What a client sends up to a Sync, or in one Query message; behind an error the rest of it is skipped. */
export class Unit {
  failed = false
  /** What PostgreSQL said last in refusal. */
  refusal: ServerError | undefined

  constructor(
    private readonly upstream: Upstream,
    private readonly tape: Tape,
    private readonly client: ClientSocket,
    private readonly onFailure: () => void,
  ) {}

  /** Behind an error the server skips everything up to the Sync, so nothing more is sent. */
  send(request: Request): void {
    if (!this.failed) this.upstream.send(request)
  }

  /** The unnamed prepared statement is this client's from here on, or nobody's. */
  takeUnnamed(isOurs: boolean): void {
    if (!this.failed) this.upstream.unnamedOf = isOurs ? this : undefined
  }

  /** Whether what stands upstream as the unnamed prepared statement is this client's. */
  get hasUnnamed(): boolean {
    return this.upstream.unnamedOf === this
  }

  /** Puts the statement on the tape. */
  record(sql: string, parameters: () => (string | null)[] = () => []): Finish {
    return this.tape.start(sql, parameters)
  }

  // What is said in the server's place comes in the order of the server's answers.

  inOrder(action: () => void): void {
    this.send(afterwards(action))
  }

  answer(bytes: Buffer, done?: () => void): void {
    this.inOrder(() => {
      done?.()
      this.client.write(bytes)
    })
  }

  /** The unit fails without the server's having refused anything. */
  refuse(code: string, message: string, finish?: Finish): void {
    if (this.failed) return
    this.inOrder(() => {
      this.#fail()
      finish?.(null, { code, message })
      this.client.write(wire.errorResponse('ERROR', code, message))
    })
    this.failed = true
  }

  deliver = (message: wire.Message): void => {
    // The client has to send the data of a COPY before anything can be said of what it did.
    if (message.type === 'G') this.client.release()
    this.client.write(message.frame)
    if (message.type !== 'E') return
    this.refusal = serverError(wire.readFields(message.body))
    this.#fail()
  }

  deliverTo(finish: Finish): (message: wire.Message) => void {
    return message => {
      if (message.type === 'E') finish(null, serverError(wire.readFields(message.body)))
      else if (message.type === 'C') finish(wire.readCString(message.body).text)
      this.deliver(message)
    }
  }

  #fail(): void {
    this.failed = true
    // A Parse behind the error was skipped.
    this.upstream.unnamedOf = undefined
    this.onFailure()
  }
}
