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

/** What is not known of a database whose outcome is `in-doubt`. */
export type Doubt =
  /** It is wholly at the heads `from` or wholly at the heads `to`. */
  | { about: 'commit'; from: string[]; to: string[] }
  /** It holds the prepared transaction of an earlier run, which was left alone. */
  | { about: 'prepared'; gid: string }

/** What the SQL of a batch tells of it before it runs. */
export interface Forecast {
  /** What cannot be part of one transaction; where it may run in segments, of none. */
  obstacles: Obstacle[]
  /** What destroys data. */
  destructions: Destruction[]
  /** How it is divided where it may run in segments. */
  division: Segmentation | null
}

interface Database {
  /** Its name in the project; `default` where there is one. */
  bind: string
  /** The database for people, without password; empty where none was asked. */
  name: string
  /** Heads before, sorted; null while unknown. */
  priorHeads: string[] | null
  /** Heads after, or what an apply would leave; null while unknown, and in doubt. */
  newHeads: string[] | null
  /** Whether the new heads were read from the database at the end. */
  reread: boolean
  /** What became of this one, where that is not what became of the step. */
  outcome: Outcome | null
  doubt: Doubt | null
}

/** A database for which nothing is planned, since the step has ended before. */
export interface UnplannedDatabase extends Database {
  plan: null
}

/** A database whose batch is known, and what has run of it. */
export interface PlannedDatabase extends Database {
  plan: Plan
  forecast: Forecast
  /** The revisions that ran, the one that failed included. */
  runs: RevisionRun[]
  /** Where it may run in segments: those that ran, and behind them those that did not. */
  segments: SegmentRun[]
  standing: Standing | null
  /** An index that a failed CREATE INDEX CONCURRENTLY has left; empty for none. */
  invalidIndex: string
}

export type DatabaseResult = UnplannedDatabase | PlannedDatabase

/** The step for people, as far as it has come: what is published and put out is made from it. */
export interface Result {
  mode: Mode
  direction: Direction
  label: string
  /** In the order of the inputs; one without a name where no database was given. */
  databases: DatabaseResult[]
  /** null while the step is under way. */
  outcome: Outcome | null
  failure: Failure | null
  /** What was planned, whatever became of it; null before. */
  digested: Digested | null
  /** Scripts of the pull request's base that are not the same here. */
  edited: Edited[]
  /** Several databases: what is not covered when they are committed one after another; empty for nothing. */
  uncovered: string
  /** Path of the batch's SQL, and of the plan for a later apply; empty for none. */
  sqlFile: string
  planFile: string
  /** Empty for none. */
  commentUrl: string
}

/** Heads for people. */
export const nameHeads = (heads: string[]): string => (heads.length === 0 ? 'base' : heads.join(', '))

/** A segment that has not run. */
export const beforeItRuns = ({ revisions, alone }: Segment, outcome: 'planned' | 'not-run'): SegmentRun => {
  return { revisions, ...(alone && { statement: alone.text }), outcome }
}

/** Whether something of a batch in segments is there to stay. */
export const stands = (segments: SegmentRun[]): boolean =>
  segments.some(({ outcome }) => outcome === 'applied' || outcome === 'failed' || outcome === 'in-doubt')

/** The databases whose batch is known. */
export const plannedOf = ({ databases }: Pick<Result, 'databases'>): PlannedDatabase[] =>
  databases.filter(database => database.plan !== null)

/** What became of one database. */
export const outcomeOf = (database: DatabaseResult, result: Result): Outcome | null =>
  database.outcome ?? result.outcome

/** The ids of the batch, in the order they run, each once. */
export const revisionsOf = (databases: { plan: Plan | null }[]): string[] => [
  ...new Set(databases.flatMap(({ plan }) => plan?.revisions.map(({ id }) => id) ?? [])),
]
