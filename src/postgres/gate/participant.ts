import type { Owner } from './layers'
import type { NestedTransaction } from './nested'
import type { PreparedStatements } from './prepared'
import type { Values } from './settings'
import type { TransactionViews } from './transaction'

/** How a session's unit begins. */
export interface Start {
  /** Why it cannot. */
  refusal?: string | undefined
  /** It runs outside of any transaction, and this is its statement. */
  alone?: string
}

/** A session as those see it who give it the turn. */
export interface Participant extends Owner {
  /** Its settings while another one has the connection; theirs are not in it. */
  saved: Values
  readonly nested: NestedTransaction
  readonly statements: PreparedStatements
  readonly transaction: TransactionViews
  /** The number that the driver has given the connection. */
  readonly number: number | undefined
  /** When its last unit has ended, as `performance.now()` counts. */
  readonly quietSince: number
  /** PostgreSQL waits for its data of a COPY. */
  readonly owesData: boolean
  /** The statement of the message that waits for the turn, if it is one that runs outside of a transaction only. */
  readonly standsAlone: string | undefined
  /** Whether what waits for the turn neither writes nor sees what others have written: BEGIN and its ends, a FETCH. */
  readonly isHarmless: boolean
  /** The statements by which its open transaction has taken advisory locks until its end. */
  readonly transactionLocks: string[]
  /** The names of its temporary tables, which others must not meet. */
  readonly temporaryTables: string[]
  /** Whether it has carried out anything that may have written, however long ago. */
  readonly hasWritten: boolean
  /** What waits for the turn, for people. */
  readonly heldStatement: string
  /** The turn is the session's. */
  begin(start: Start): void
  /** Another session waits: the turn is given up where the client waits as well. */
  offerTurn(): void
}
