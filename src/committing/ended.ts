import type { Failure } from '../failure'
import type { Outcome } from '../plan/result'

/** The heads that a database is left with. */
export interface HeadsAtEnd {
  heads: string[]
  /** Whether they were read from it at the end. */
  reread: boolean
}

/** How the step has ended. */
export interface Ended {
  outcome: Outcome
  failure: Failure | null
  /** By bind, of the databases whose heads are known by more than the plan. */
  heads: Map<string, HeadsAtEnd>
}
