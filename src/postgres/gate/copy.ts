import type { Unit } from './unit'
import type { Expected, Upstream } from './upstream'
import * as wire from './wire'

/** A COPY FROM STDIN. PostgreSQL ignores a Sync that it reads while it waits for data, and heeds one behind an error. */
export class CopyIn {
  /** Asked for and not answered yet, when nothing else may be sent; or PostgreSQL waits for data. */
  state: 'no' | 'asked' | 'data' = 'no'

  constructor(
    private readonly unit: Unit,
    private readonly upstream: Upstream,
    /** PostgreSQL waits for the client's data. */
    private readonly onData: () => void,
    /** It is over, or failed: a Sync is due. */
    private readonly onEnd: () => void,
  ) {}

  start(execute: Buffer, answer: Expected): void {
    if (this.unit.failed) return
    this.state = 'asked'
    const copyIn = () => {
      this.state = 'data'
      this.onData()
    }
    const done = () => {
      answer.done?.()
      this.end()
    }
    this.unit.send({ bytes: Buffer.concat([execute, wire.flush]), expected: [{ ...answer, copyIn, done }] })
  }

  /** Passes on what a client may send during COPY; throws for anything else. */
  pass({ type, frame }: wire.Message): void {
    if (type === 'H' || type === 'S') return // PostgreSQL ignores them as well
    if (!isCopyData(type)) throw new Error(`a ${type} message during COPY`)
    this.upstream.send({ bytes: frame, expected: [] })
    if (type !== 'd') this.end()
  }

  giveUp(): void {
    this.upstream.send({ bytes: wire.copyFail('the client went away'), expected: [] })
    this.end()
  }

  end(): void {
    if (this.state === 'no') return
    this.state = 'no'
    this.onEnd()
  }
}

export const isCopyData = (type: string): boolean => 'dcf'.includes(type)
