import type { Target } from '../opening/target'
import type { Plan } from '../plan/plan'
import type { RevisionRun, SegmentRun, Standing } from '../plan/result'
import type { VersionTable } from '../postgres/heads'
import type { TriedBatch } from '../trying/try'

/** What became of the batch on one database. */
export type Fate =
  /** Nothing was decided for it alone: it has not run, or runs, or was rolled back before any COMMIT. */
  | { is: 'open' }
  /** Somebody else has brought the database to the target. */
  | { is: 'up-to-date' }
  | { is: 'committed' }
  | { is: 'rolled-back' }
  /** Nobody knows whether it is wholly at the heads `from` or wholly at the heads `to`. */
  | { is: 'in-doubt'; from: string[]; to: string[] }

/** What a COMMIT moves. */
export interface Move {
  priorHeads: string[]
  newHeads: string[]
}

/** The batch on one database, noted as it happens: a failure leaves it as far as it has come. */
export class Course {
  readonly bind: string
  readonly versionTable: VersionTable
  /** The enums of the database that the batch adds values to. */
  readonly enums: TriedBatch['enums']
  fate: Fate = { is: 'open' }
  /** What the COMMIT moves that is about to be sent, or was; undefined where none was. */
  sent: Move | undefined
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

  /** `several`: it is not the only database of the step. */
  constructor(
    { bind, versionTable, plan, segments, enums }: TriedBatch,
    target: Target,
    readonly several: boolean,
  ) {
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

  /** Somebody else has brought the database to the target; what this step has committed before stays its own. */
  noteAtTarget(): void {
    if (this.committed > 0) {
      this.fate = { is: 'committed' }
      return
    }
    this.plan = { ...this.plan, revisions: [] }
    this.fate = { is: 'up-to-date' }
  }

  /** Nobody can say whether a COMMIT that was sent was carried out. */
  leaveInDoubt(): void {
    if (this.sent) this.fate = { is: 'in-doubt', from: this.sent.priorHeads, to: this.sent.newHeads }
  }

  /** Tries once more on another connection, behind what is committed. */
  startAnew(target: Target): void {
    this.target = target
    this.runs = this.runs.slice(0, this.committed)
  }
}
