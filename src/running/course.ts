import type { Target } from '../opening/target'
import type { Plan } from '../plan/plan'
import type { RevisionRun, SegmentRun, Standing } from '../plan/result'
import type { VersionTable } from '../postgres/heads'
import type { TriedBatch } from '../trying/try'

/** What became of the batch on one database. */
export type Fate =
  /** It is not decided: it has not run, or runs, or was rolled back with all others. */
  | { is: 'open' }
  /** Somebody else has brought the database to the target. */
  | { is: 'up-to-date' }
  | { is: 'committed' }
  | { is: 'rolled-back' }
  /** Nobody knows whether it is wholly at the heads `from` or wholly at the heads `to`. */
  | { is: 'in-doubt'; from: string[]; to: string[] }

/** The batch on one database, noted as it happens: a failure leaves it as far as it has come. */
export class Course {
  readonly bind: string
  readonly versionTable: VersionTable
  /** The enums of the database that the batch adds values to. */
  readonly enums: TriedBatch['enums']
  fate: Fate = { is: 'open' }
  /** The connection of the try at hand. */
  target: Target
  plan: Plan
  /** As they were read last, behind the lock. */
  priorHeads: string[]
  /** The revisions that ran, the one that failed included. */
  runs: RevisionRun[] = []
  segments: SegmentRun[]
  /** How many revisions of the plan are committed. */
  committed = 0
  standing: Standing | null = null
  /** An index that a failed CREATE INDEX CONCURRENTLY has left; empty for none. */
  invalidIndex = ''

  constructor({ bind, versionTable, plan, segments, enums }: TriedBatch, target: Target) {
    this.bind = bind
    this.versionTable = versionTable
    this.plan = plan
    this.enums = enums
    this.priorHeads = plan.priorHeads
    this.segments = segments
    this.target = target
  }

  /** What of the plan is still to be run. */
  get rest(): Plan {
    const { plan, committed } = this
    const last = plan.revisions[committed - 1]
    return last ? { ...plan, priorHeads: last.heads ?? [], revisions: plan.revisions.slice(committed) } : plan
  }

  /** Nothing is left to do. */
  isAlreadyThere(): void {
    this.plan = { ...this.plan, revisions: [] }
    this.fate = { is: 'up-to-date' }
  }

  /** Tries once more on another connection, behind what is committed. */
  startAnew(target: Target): void {
    this.target = target
    this.runs = this.runs.slice(0, this.committed)
  }
}
