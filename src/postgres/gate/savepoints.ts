import { randomBytes } from 'node:crypto'
import { join, statement, syncPoint } from './request'
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
  undo(savepoint: string, done: () => void): void {
    this.#rollBack([`ROLLBACK TO SAVEPOINT ${savepoint}`, `RELEASE SAVEPOINT ${savepoint}`], done)
  }

  /** Rolls back to a savepoint, which stays; a connection on which that cannot be done is given up. */
  backTo(savepoint: string, done: () => void): void {
    this.#rollBack([`ROLLBACK TO SAVEPOINT ${savepoint}`], done)
  }

  #rollBack(sql: string[], done: () => void, attempts = 10): void {
    let refused = ''
    const error = (message: wire.Message) => {
      refused = wire.readFields(message.body).M ?? ''
    }
    this.upstream.send(
      join(
        ...sql.map(text => statement(text, { error })),
        syncPoint(status => {
          if (status === 'T') done()
          // A cancellation or a statement_timeout may have hit it.
          else if (attempts > 1) this.#rollBack(sql, done, attempts - 1)
          else this.upstream.abandon(new Error(`PostgreSQL would not roll back to a savepoint: ${refused}`))
        }),
      ),
    )
  }

  /** Carries out each list of statements, or nothing of it. */
  attempt([sql, ...rest]: string[][], done: () => void): void {
    if (!sql) return done()
    const next = () => this.attempt(rest, done)
    this.#try(sql, next, next)
  }

  /** Carries them out; a connection on which that cannot be done is given up. */
  insist(sql: string[], done: () => void, attempts = 10): void {
    this.#try(sql, done, refused => {
      if (attempts > 1) this.insist(sql, done, attempts - 1)
      else this.upstream.abandon(new Error(`PostgreSQL would not ${sql[0]}: ${refused}`))
    })
  }

  #try(sql: string[], done: () => void, failed: (refused: string) => void): void {
    const savepoint = this.newName()
    let refused = ''
    const error = (message: wire.Message) => {
      refused = wire.readFields(message.body).M ?? ''
    }
    const all = [`SAVEPOINT ${savepoint}`, ...sql, `RELEASE SAVEPOINT ${savepoint}`]
    this.upstream.send(
      join(
        ...all.map(text => statement(text, { error })),
        syncPoint(status => (status === 'T' ? done() : this.undo(savepoint, () => failed(refused)))),
      ),
    )
  }
}
