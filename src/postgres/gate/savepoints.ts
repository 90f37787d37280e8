import { randomBytes } from 'node:crypto'
import { join, statement, statements, syncPoint } from './request'
import type { Upstream } from './upstream'
import * as wire from './wire'

/** The gate's savepoints upstream. */
export class Savepoints {
  #counter = 0
  readonly #nonce = randomBytes(4).toString('hex')

  constructor(private readonly upstream: Upstream) {}

  /** A name that no other has. */
  newName(): string {
    return `atomic_upgrade_${this.#nonce}_${++this.#counter}`
  }

  /** Rolls a savepoint back and away; a connection on which that cannot be done is given up. */
  undo(savepoint: string, done: () => void, attempts = 10): void {
    let refused = ''
    const error = (message: wire.Message) => {
      refused = wire.readFields(message.body).M ?? ''
    }
    this.upstream.send(
      join(
        statement(`ROLLBACK TO SAVEPOINT ${savepoint}`, { error }),
        statement(`RELEASE SAVEPOINT ${savepoint}`, { error }),
        syncPoint(status => {
          if (status === 'T') done()
          // A cancellation or a statement_timeout may have hit it.
          else if (attempts > 1) this.undo(savepoint, done, attempts - 1)
          else this.upstream.abandon(new Error(`PostgreSQL would not roll back to a savepoint: ${refused}`))
        }),
      ),
    )
  }

  /** Carries out each list of statements, or nothing of it. */
  attempt([sql, ...rest]: string[][], done: () => void): void {
    if (!sql) return done()
    const savepoint = this.newName()
    const next = () => this.attempt(rest, done)
    this.upstream.send(
      join(
        statements(`SAVEPOINT ${savepoint}`, ...sql, `RELEASE SAVEPOINT ${savepoint}`),
        syncPoint(status => (status === 'T' ? next() : this.undo(savepoint, next))),
      ),
    )
  }
}
