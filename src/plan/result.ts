import type { Failure } from '../failure'
import type { Direction, Plan } from './plan'
import type { Obstacle } from './transactional'

/** What happened; the values of the output `outcome`. */
export type Outcome = 'up-to-date' | 'previewed' | 'rehearsed' | 'applied' | 'rolled-back' | 'refused' | 'in-doubt'

export type Mode = 'preview' | 'rehearse' | 'apply'

/** One revision as it ran. */
export interface RevisionRun {
  id: string
  /** Milliseconds. */
  duration: number
  /** The script's own statements, look-ups and transaction control left out. */
  statements: number
}

/** Everything that is known of this step, as far as it has come; what is published and put out is made from it. */
export interface Result {
  mode: Mode
  direction: Direction
  label: string
  /** The database for people, without password; empty when none was given. */
  database: string
  /** Undefined while the step is under way. */
  outcome?: Outcome
  failure?: Failure
  plan?: Plan
  /** What of the plan cannot be part of one transaction. */
  obstacles?: Obstacle[]
  /** Heads before, sorted; undefined while unknown. */
  priorHeads?: string[]
  /** Heads after, or what an apply would leave; undefined while unknown. */
  newHeads?: string[]
  /** Whether the heads after a failure were read back from the database. */
  reread?: boolean
  /** The revisions that ran, the one that failed included. */
  runs: RevisionRun[]
  /** Path of the batch's SQL. */
  sqlFile?: string
  commentUrl?: string
}

/** The outcomes that fail the step. */
export const hasFailed = (result: Result): boolean => result.failure !== undefined

/** Heads for people. */
export const nameHeads = (heads: string[]): string => (heads.length === 0 ? 'base' : heads.join(', '))
