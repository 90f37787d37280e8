import type { Leaving } from './leavings'

/** A client's transaction, as it stands for the client and as it stands upstream. */
export interface Transaction {
  /** What ReadyForQuery says: idle, in a transaction, in a failed one. */
  status: 'I' | 'T' | 'E'
  /** The savepoint upstream that is this transaction, once anything was sent in it. */
  base: string | null
  /** The client's own savepoints, innermost last, with their names upstream and what there was before them. */
  savepoints: { name: string; upstream: string; covered: Covered[]; fleeting: Leaving[] }[]
  /** Whether it may have changed something. */
  wrote: boolean
  /** Settings that a SET LOCAL covered, whose values a real COMMIT would bring back. */
  covered: Covered[]
  /** Cursors and tables that a real COMMIT would close and drop. */
  fleeting: Leaving[]
  /** What PREPARE TRANSACTION has left, for its COMMIT PREPARED or ROLLBACK PREPARED. */
  prepared: Prepared[]
}

/** The setting's old value is kept upstream, in a setting named `key`. */
interface Covered {
  name: string
  key: string
}

interface Prepared {
  gid: string
  base: string | null
  /** Whether something was written after it, which undoing it would undo as well. */
  followed: boolean
}

export const idle = (): Transaction => ({
  status: 'I',
  base: null,
  savepoints: [],
  wrote: false,
  covered: [],
  fleeting: [],
  prepared: [],
})

export const copyOf = (transaction: Transaction): Transaction => ({
  ...transaction,
  savepoints: [...transaction.savepoints],
  covered: [...transaction.covered],
  fleeting: [...transaction.fleeting],
  prepared: [...transaction.prepared],
})

/** Two views of one transaction: messages go out before the answers to those ahead of them have come. */
export class TransactionViews {
  /** As it is, by the answers that have come. */
  now = idle()
  /** As it will be when everything that was sent has succeeded. */
  ahead = idle()

  /** A change that holds whether or not what follows succeeds. */
  change(change: (transaction: Transaction) => void): void {
    change(this.ahead)
    change(this.now)
  }

  /** Everything that was sent is answered. */
  settle(): void {
    this.ahead = copyOf(this.now)
  }

  /** The transaction is gone upstream; a client that was in it has to roll it back. */
  lose(): void {
    this.now = { ...idle(), status: this.now.status === 'I' ? 'I' : 'E' }
    this.settle()
  }

  /** What it has done is committed upstream; it stays open for its client and begins anew there when it is used again. */
  goOn(): void {
    this.change(transaction => {
      Object.assign(transaction, { base: null, wrote: false, fleeting: [] })
    })
  }

  get outermostSavepoint(): string | null {
    return this.now.prepared.find(({ base }) => base)?.base ?? this.now.base
  }

  /** Whether it only read, so that it can end unseen and open anew. */
  get canStepAside(): boolean {
    const { status, base, wrote, savepoints, prepared } = this.now
    return status !== 'E' && base !== null && !wrote && savepoints.length === 0 && prepared.length === 0
  }
}
