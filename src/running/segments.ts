import { Failure } from '../failure'
import type { Step } from '../opening/surroundings'
import { beforeItRuns, type SegmentRun } from '../plan/result'
import { canRunAgain, type Segment, type Segmentation, segmentsOf } from '../plan/segments'
import { indexMadeBy, isMadeBy, unlessThere } from '../plan/standing-index'
import { addsValue, isRead } from '../plan/transactional'
import type { Segmenting } from '../postgres/gate/boundary'
import type { TapeEntry } from '../postgres/gate/tape'
import { findIndex, findSettledIndex } from '../postgres/standing-index'
import { listed } from '../report/changes'
import type { Course } from './course'
import type { Migration } from './migration'

/** Whether the batch can be gone on with: nothing stands of a revision that cannot run again. */
export const canGoOn = ({ standing }: Course): boolean => standing?.statements.every(canRunAgain) ?? true

/** How a segment ends, and what has to be so before anything more runs. */
export interface SegmentEnd {
  /** Throws a Failure where the deploy lock is lost, or the step cancelled. */
  mayGoOn(): Promise<void>
  /** Verifies that the heads are these, and commits; resolves to whether PostgreSQL has answered. Throws a Failure. */
  commit(heads: string[]): Promise<boolean>
}

/** A statement that runs alone, and how it was answered. */
interface Alone {
  revision: string
  sql: string
  answers: TapeEntry[]
}

/**
 * A batch that may be several transactions, while its scripts run: where one has to end, it is verified and committed,
 * and what became of each segment is noted for the outputs.
 */
export class SegmentedRun implements Segmenting {
  readonly #division: Segmentation
  /** Of the plan, those that are still to come. */
  #planned: Segment[]
  #ran: SegmentRun[]
  /** The revision at hand, and those that ended in the transaction at hand. */
  #revision: string | undefined
  #ended: string[] = []
  /** What the revision at hand has sent in the transaction at hand, look-ups left out. */
  #sent: TapeEntry[] = []
  /** The next revision needs what was done so far to be committed. */
  #isDue = false
  #alone: Alone | undefined

  constructor(
    private readonly step: Step,
    private readonly migration: Migration,
    private readonly end: SegmentEnd,
  ) {
    this.#division = segmentsOf(this.#course.rest, this.#course.enums)
    this.#planned = [...this.#division.segments]
    // What a try before this one has committed.
    this.#ran = this.#course.segments.filter(({ outcome }) => outcome === 'applied')
    this.#publish()
  }

  /** How many segments are still to come, as far as they are known. */
  get left(): number {
    return this.#planned.length
  }

  /** What has passed the gate. */
  note(entry: TapeEntry): void {
    if (entry.lookup) return
    if (this.#alone) this.#alone.answers.push(entry)
    else if (entry.revision === this.#revision) this.#sent.push(entry)
  }

  revisionStarts(id: string): void {
    if (this.#revision !== undefined) this.#ended.push(this.#revision)
    this.#revision = id
    this.#sent = []
    this.#isDue ||= this.#division.endsBefore.includes(id)
  }

  // ── What the gate asks for ────────────────────────────────────────────────────────────────────────────────────────

  isDue(isIdle: boolean): boolean {
    if (this.#isDue || !isIdle) return this.#isDue
    const values = this.#division.endsBehind.filter(({ revision }) => revision === this.#revision)
    return this.#done.some(({ sql }) => values.some(({ value }) => addsValue(sql, value)))
  }

  async commit(): Promise<void> {
    const answered = await this.end.commit(this.#headsNow)
    const revisions = this.#committed()
    if (revisions.length > 0) this.step.surroundings.log.info(`Committed: ${listed(revisions)}.`)
    if (answered) return
    throw new Failure('connection-failed', 'The connection was lost at a COMMIT, which PostgreSQL has carried out.', {
      transient: true,
      advice: 'Run the step again: it goes on behind what is committed.',
    })
  }

  async alone(sql: string): Promise<string> {
    this.#aloneHasEnded()
    await this.end.mayGoOn()
    const sent = await this.#clearTheWay(sql)
    this.step.surroundings.log.info(`Running outside of a transaction: ${sql}`)
    this.#alone = { revision: this.#revision ?? '', sql, answers: [] }
    return sent
  }

  async begin(): Promise<void> {
    this.#aloneHasEnded()
    await this.end.mayGoOn()
    await this.migration.transaction.beginNext()
    this.#sent = []
  }

  // ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Every revision has ended, and the last transaction is committed. */
  applied(): void {
    if (this.#revision !== undefined) this.#ended.push(this.#revision)
    this.#revision = undefined
    this.#sent = []
    this.#committed()
    this.#planned = []
    this.#publish()
  }

  /** Nothing more is run. */
  async failed(): Promise<void> {
    this.#aloneHasEnded()
    const last = this.#ran.at(-1)
    if (last?.outcome === 'failed') await this.#lookFor(last)
    if (last?.statement === undefined || last.outcome === 'applied') {
      this.#rolledBack(this.#course.fate.is === 'in-doubt')
    }
    this.#publish()
  }

  /** What a CREATE INDEX CONCURRENTLY has left, if it has. */
  async #lookFor(run: SegmentRun): Promise<void> {
    const index = indexMadeBy(run.statement ?? '')
    if (!index) return
    try {
      const found = await this.migration.target.aside(client => findIndex(client, index))
      if (!found) run.outcome = 'rolled-back'
      else if (!found.isValid) this.#course.invalidIndex = found.name
    } catch {
      // It stays `failed`.
    }
  }

  #rolledBack(inDoubt: boolean): void {
    const revisions = [...this.#ended, ...(this.#revision !== undefined && this.#hasBegun ? [this.#revision] : [])]
    const planned = this.#take(false)
    if (revisions.length === 0 && !planned) return
    const all = new Set([...revisions, ...(planned?.revisions ?? [])])
    const outcome = inDoubt ? 'in-doubt' : revisions.length > 0 ? 'rolled-back' : 'not-run'
    this.#ran.push({ revisions: [...all], outcome })
  }

  // ── What became of the segments ───────────────────────────────────────────────────────────────────────────────────

  get #course(): Course {
    return this.migration.course
  }

  /** Whether the revision at hand is in the transaction at hand, and not only about to run something alone. */
  get #hasBegun(): boolean {
    const first = this.#planned.find(({ revisions }) => revisions.includes(this.#revision ?? ''))
    return first?.alone === undefined || this.#sent.length > 0
  }

  /** What of that PostgreSQL has carried out. */
  get #done(): TapeEntry[] {
    return this.#sent.filter(({ tag }) => tag !== null)
  }

  /** The heads at this point of the batch, behind the revisions that have ended. */
  get #headsNow(): string[] {
    const { priorHeads, revisions } = this.#course.rest
    const last = revisions[this.#ended.length - 1]
    return last ? (last.heads ?? []) : priorHeads
  }

  #committed(): string[] {
    const course = this.#course
    const statements = this.#done.map(({ sql }) => sql).filter(sql => !isRead(sql))
    const running = statements.length > 0 && this.#revision !== undefined ? [this.#revision] : []
    const revisions = [...this.#ended, ...running]
    if (this.#ended.length > 0) course.standing = null
    course.committed += this.#ended.length
    for (const revision of running) this.#stands(revision, statements)
    this.#ended = []
    this.#sent = []
    this.#isDue = false
    if (revisions.length > 0) this.#add({ revisions, outcome: 'applied' })
    return revisions
  }

  #aloneHasEnded(): void {
    if (!this.#alone) return
    const { revision, sql, answers } = this.#alone
    this.#alone = undefined
    const failed = answers.some(({ error }) => error)
    const outcome = answers.length === 0 ? 'in-doubt' : failed ? 'failed' : 'applied'
    this.#add({ revisions: [revision], statement: sql, outcome })
    if (outcome === 'applied') this.#stands(revision, [sql])
  }

  #stands(revision: string, statements: string[]): void {
    const before = this.#course.standing?.statements ?? []
    this.#course.standing = { revision, statements: [...new Set([...before, ...statements])] }
  }

  #add(run: SegmentRun): void {
    // A statement that an earlier try has run, and this one again.
    const isSame = ({ statement, revisions }: SegmentRun) =>
      statement !== undefined && statement === run.statement && revisions.join() === run.revisions.join()
    this.#ran = [...this.#ran.filter(each => !isSame(each)), run]
    this.#take(run.statement !== undefined)
    this.#publish()
  }

  /** The next one of the plan, if it is of that kind. */
  #take(alone: boolean): Segment | undefined {
    return this.#planned[0] && (this.#planned[0].alone !== undefined) === alone ? this.#planned.shift() : undefined
  }

  #publish(): void {
    const planned = this.#planned.map(segment => beforeItRuns(segment, 'not-run'))
    this.#course.segments = [...this.#ran, ...planned]
  }

  // ── What stands in the way ────────────────────────────────────────────────────────────────────────────────────────

  /** An index that an earlier run has left: dropped where it is invalid, taken for the statement's where it is that. */
  async #clearTheWay(sql: string): Promise<string> {
    const { client } = this.migration.transaction
    const { log } = this.step.surroundings
    const index = indexMadeBy(sql)
    const found = index && (await findSettledIndex(client, index))
    if (!found) return sql
    if (!found.isValid) {
      log.info(`The index ${found.name} is invalid, left by a build that failed: dropping it before it is built again.`)
      await client.query(`DROP INDEX CONCURRENTLY ${found.name}`)
      return sql
    }
    if (!isMadeBy(sql, found.definition)) return sql
    log.info(`The index ${found.name} is there already, as this statement makes it.`)
    return unlessThere(sql)
  }
}
