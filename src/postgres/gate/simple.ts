import type { CopyIn } from './copy'
import type { Execution } from './execution'
import { syncPoint } from './request'
import { type Understood, understand, unknown } from './understand'
import type { Unit } from './unit'
import type { Expected } from './upstream'
import * as wire from './wire'

/** Query messages, passed on or each statement sent by the extended protocol, and FunctionCall: units by themselves. */
export class SimpleProtocol {
  /** Pieces of a Query message that wait until a COPY before them is done. */
  #rest: Understood[] = []

  constructor(
    private readonly unit: Unit,
    private readonly execution: Execution,
    private readonly copy: CopyIn,
    private readonly endUnit: (options?: { sync: boolean }) => void,
  ) {}

  query({ body, frame }: wire.Message): void {
    this.#rest = understand(wire.readCString(body).bytes)
    const [first, ...more] = this.#rest
    if (first && more.length === 0 && this.execution.canPass(first)) return this.#pass(first, frame)
    if (this.#rest.length === 0) this.unit.answer(wire.emptyQuery)
    this.goOn()
  }

  /** As it came, which is less for everybody than five messages. */
  #pass(statement: Understood, frame: Buffer): void {
    this.#rest = []
    this.unit.takeUnnamed(false)
    this.execution.pass(statement, frame, this.unit.record(statement.text))
    this.endUnit({ sync: false })
  }

  get hasMore(): boolean {
    return this.#rest.length > 0
  }

  /** The rest will not be sent. */
  drop(): void {
    this.#rest = []
  }

  /** Up to a COPY FROM STDIN, behind which nothing may be sent before its data. */
  goOn(): void {
    while (this.copy.state === 'no' && !this.unit.failed) {
      const piece = this.#rest.shift()
      if (!piece) break
      const finish = this.unit.record(piece.text)
      const deliver = this.unit.deliverTo(finish)
      const ahead = {
        bytes: Buffer.concat([wire.parse('', piece.bytes), wire.bind('', ''), wire.describePortal('')]),
        expected: [
          { ends: '1', deliver: onlyErrors(deliver) },
          { ends: '2', deliver: onlyErrors(deliver) },
          { ends: 'Tn', deliver: (message: wire.Message) => message.type !== 'n' && deliver(message) },
        ],
      }
      this.unit.takeUnnamed(false)
      this.execution.run(piece, ahead, wire.execute(''), finish)
    }
    if (this.copy.state === 'no') this.endUnit()
  }

  /** With FunctionCall libpq reads large objects. */
  call({ frame }: wire.Message): void {
    this.execution.enter(unknown)
    // The function is called only when everything before it has been answered: its ReadyForQuery must be its own.
    this.unit.send(syncPoint(() => {}))
    const skipped = this.unit.failed
    this.unit.send({ bytes: frame, expected: [{ ends: 'V', deliver: this.unit.deliver }] })
    this.endUnit({ sync: skipped })
  }
}

const onlyErrors =
  (deliver: NonNullable<Expected['deliver']>) =>
  (message: wire.Message): void => {
    if (message.type === 'E') deliver(message)
  }
