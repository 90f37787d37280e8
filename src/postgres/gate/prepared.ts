import { close, isFleeting, type Leaving } from './leavings'
import type { TransactionViews } from './transaction'
import type { Understood } from './understand'
import type { Request } from './upstream'
import * as wire from './wire'

export interface Portal {
  statement: Understood | undefined
  parameters: () => (string | null)[]
}

/** A client's prepared statements and portals, by their names here and upstream, and what its SQL has left there. */
export class PreparedStatements {
  /** As they will be when everything that was sent has succeeded, and as they are by the answers that have come. */
  #ahead = new Map<string, Understood>()
  #now = new Map<string, Understood>()
  readonly portals = new Map<string, Portal>()
  /** Cursors WITH HOLD, prepared statements, temporary tables. */
  #left: Leaving[] = []

  /** `id` tells the clients of a gate apart. */
  constructor(
    private readonly id: number,
    private readonly transaction: TransactionViews,
  ) {}

  get(name: string): Understood | undefined {
    return this.#ahead.get(name)
  }

  /** Remembers a statement ahead; call the returned function when it is parsed. */
  add(name: string, statement: Understood): () => void {
    this.#ahead.set(name, statement)
    return () => {
      this.#now.set(name, statement)
    }
  }

  /** Forgets a statement ahead; call the returned function when it is closed. */
  forget(name: string): () => void {
    this.#ahead.delete(name)
    return () => {
      this.#now.delete(name)
      this.#left = this.#left.filter(left => left.kind !== 'prepared' || left.name !== name)
    }
  }

  /** Not everything that was sent has succeeded. */
  fallBack(): void {
    this.#ahead = new Map(this.#now)
  }

  /** Two clients' prepared statements may have the same name: psycopg and asyncpg number theirs from one. */
  upstreamName(name: string): string {
    const ofSql = () => this.#left.some(left => left.kind === 'prepared' && left.name === name)
    return !name || (!this.#ahead.has(name) && ofSql()) ? name : `${name}_${this.id}`
  }

  /** Likewise portals, but not those that are cursors of SQL. */
  upstreamPortal(name: string): string {
    return name && this.portals.has(name) ? `${name}_${this.id}` : name
  }

  close(name: string): Request {
    return { bytes: wire.closeStatement(this.upstreamName(name)), expected: [{ ends: '3' }] }
  }

  /** What closes one, or all, and forgets it. */
  deallocate(name: string): { request: Request; done: () => void }[] {
    const known = [...this.#ahead.keys()].filter(other => other && (!name || other === name))
    const left = name ? [] : this.#left.filter(({ kind }) => kind === 'prepared')
    return [
      ...known.map(other => ({ request: this.close(other), done: this.forget(other) })),
      ...left.map(leaving => ({ request: close(leaving), done: this.forget(leaving.name) })),
    ]
  }

  /** Notes what a statement has left behind that was just carried out. */
  leaveBehind({ leaves }: Understood): void {
    if (leaves) (isFleeting(leaves) ? this.transaction.now.fleeting : this.#left).push(leaves)
  }

  get leftTables(): Leaving[] {
    return this.#left.filter(({ kind }) => kind === 'table')
  }

  /** What closes everything, when the client has gone. */
  farewell(): Request[] {
    return [...[...this.#ahead.keys()].filter(Boolean).map(name => this.close(name)), ...this.#left.map(close)]
  }
}
