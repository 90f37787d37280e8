import type { Layer } from './layers'
import type { Leaving } from './leavings'
import type { Values } from './settings'

/** A client's transaction, as it stands for the client and as it stands upstream. */
export interface Transaction {
  /** What ReadyForQuery says: idle, in a transaction, in a failed one. */
  status: 'I' | 'T' | 'E'
  /** The isolation level that its BEGIN has named. */
  level: string | undefined
  /** The savepoints upstream that are this transaction, the lowest first; none where it has only begun, or only read. */
  layers: Layer[]
  /** The client's own savepoints, innermost last: how many layers there were before, and what else. */
  savepoints: { name: string; at: number; covered: Covered[]; fleeting: Leaving[]; before: Before | undefined }[]
  /** Settings that a SET LOCAL covered, whose values a real COMMIT would bring back. */
  covered: Covered[]
  /** The client's settings at the start, where it has set one since. */
  before: Before | undefined
  /** Cursors and tables that a real COMMIT would close and drop. */
  fleeting: Leaving[]
  /** What PREPARE TRANSACTION has left, for its COMMIT PREPARED or ROLLBACK PREPARED. */
  prepared: { gid: string; layers: Layer[] }[]
}

/** The settings before one of them was set; empty until PostgreSQL has told them. */
export interface Before {
  values?: Values
}

/** The setting's old value is kept upstream, in a setting named `key`. */
interface Covered {
  name: string
  key: string
}

export const idle = (): Transaction => ({
  status: 'I',
  level: undefined,
  layers: [],
  savepoints: [],
  covered: [],
  before: undefined,
  fleeting: [],
  prepared: [],
})

export const copyOf = (transaction: Transaction): Transaction => ({
  ...transaction,
  layers: [...transaction.layers],
  savepoints: transaction.savepoints.map(savepoint => ({ ...savepoint })),
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

  /** These layers are gone, with nothing written in them; what comes next is in new ones. */
  dropped(layers: Layer[]): void {
    this.change(transaction => {
      transaction.layers = transaction.layers.filter(layer => !layers.includes(layer))
      for (const savepoint of transaction.savepoints) {
        savepoint.at = Math.min(savepoint.at, transaction.layers.length)
      }
    })
  }

  /** What it has done is committed upstream; it stays open for its client and begins anew there when it is used again. */
  goOn(): void {
    this.change(transaction => {
      Object.assign(transaction, { layers: [], fleeting: [] })
    })
  }
}
