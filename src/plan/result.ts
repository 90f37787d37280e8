import type { Failure } from '../failure'
import type { Destruction } from './destructive'
import type { Digested } from './digest'
import type { Edited } from './edited'
import type { Direction, Plan } from './plan'
import type { Segment, Segmentation } from './segments'
import type { Obstacle } from './transactional'

/** What happened; the values of the output `outcome`. */
export type Outcome =
  | 'up-to-date'
  | 'previewed'
  | 'rehearsed'
  | 'applied'
  | 'rolled-back'
  | 'refused'
  | 'in-doubt'
  | 'partly-applied'

export type Mode = 'preview' | 'rehearse' | 'apply'

/** One revision as it ran. */
export interface RevisionRun {
  id: string
  /** Milliseconds. */
  duration: number
  /** The script's own statements, look-ups and transaction control left out. */
  statements: number
}

/** A segment as it ran, or will. */
export interface SegmentRun {
  /** The revisions that ran in it, wholly or in part. */
  revisions: string[]
  /** The statement that ran alone. */
  statement?: string
  /** `failed`: it ran outside of a transaction, so that something of it may be left. */
  outcome: 'planned' | 'applied' | 'rolled-back' | 'failed' | 'in-doubt' | 'not-run'
}

/** What is committed of a revision whose version row has not moved. */
export interface Standing {
  revision: string
  /** In the order they ran. */
  statements: string[]
}

/** One database, as far as the step has come with it. */
export interface DatabaseState {
  /** Its name in the project; `default` where there is one. */
  bind: string
  /** The database for people, without password; empty when none was given. */
  name: string
  plan?: Plan
  /** What of the plan cannot be part of one transaction. */
  obstacles?: Obstacle[]
  /** How it is divided where it may run in segments. */
  division?: Segmentation
  /** Where it may run in segments: those that ran, and behind them those that did not. */
  segments?: SegmentRun[]
  standing?: Standing
  /** Between which heads it is not known where it is, where these are not those of the batch. */
  doubt?: { from: string[]; to: string[] }
  /** An index that a failed CREATE INDEX CONCURRENTLY has left. */
  invalidIndex?: string
  /** What of it destroys data. */
  destructions?: Destruction[]
  /** Heads before, sorted; undefined while unknown. */
  priorHeads?: string[]
  /** Heads after, or what an apply would leave; undefined while unknown. */
  newHeads?: string[]
  /** Whether the heads after a failure were read back from the database. */
  reread?: boolean
  /** The revisions that ran, the one that failed included. */
  runs: RevisionRun[]
  /** What became of this one, where that is not what became of the step. */
  outcome?: Outcome
  /** The prepared transaction of an earlier run that is in it and was left alone. */
  leftPrepared?: string
}

/** Everything that is known of this step, as far as it has come; what is published and put out is made from it. */
export interface Result {
  mode: Mode
  direction: Direction
  label: string
  /** In the order of the inputs; one without a name where no database was given. */
  databases: DatabaseState[]
  /** Undefined while the step is under way. */
  outcome?: Outcome
  failure?: Failure
  /** What was planned, whatever became of it. */
  digested?: Digested
  /** Path of the batch's SQL. */
  sqlFile?: string
  /** Path of the plan, for a later apply. */
  planFile?: string
  commentUrl?: string
  /** Scripts of the pull request's base that are not the same here. */
  edited?: Edited[]
  /** Several databases: what is not covered when they are committed one after another. */
  uncovered?: string
}

/** Heads for people. */
export const nameHeads = (heads: string[]): string => (heads.length === 0 ? 'base' : heads.join(', '))

/** A segment that has not run. */
export const beforeItRuns = ({ revisions, alone }: Segment, outcome: 'planned' | 'not-run'): SegmentRun => {
  return { revisions, ...(alone && { statement: alone.text }), outcome }
}

/** Whether something of a batch in segments is there to stay. */
export const stands = ({ segments = [] }: DatabaseState): boolean =>
  segments.some(({ outcome }) => outcome === 'applied' || outcome === 'failed' || outcome === 'in-doubt')

/** What became of one database. */
export const outcomeOf = (database: DatabaseState, result: Result): Outcome | undefined =>
  database.outcome ?? result.outcome

/** The ids of the batch, in the order they run, each once. */
export function revisionsOf({ databases }: Pick<Result, 'databases'>): string[] {
  return [...new Set(databases.flatMap(({ plan }) => plan?.revisions.map(({ id }) => id) ?? []))]
}
