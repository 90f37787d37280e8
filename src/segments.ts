import { commit } from './commit'
import type { CheckLock } from './deploy-lock'
import { Failure } from './failure'
import { beforeItRuns, type SegmentRun } from './plan/result'
import { canRunAgain, type Segment, type Segmentation, segmentsOf } from './plan/segments'
import { indexMadeBy, isMadeBy, unlessThere } from './plan/standing-index'
import { addsValue, isRead } from './plan/transactional'
import type { Segmenting } from './postgres/gate/boundary'
import type { Tape, TapeEntry } from './postgres/gate/tape'
import { findIndex, findSettledIndex } from './postgres/standing-index'
import { listed } from './report/changes'
import type { Step } from './step'
import type { Target } from './target'
import { verifySegment } from './verify'

/** Whether the batch can be gone on with: nothing stands of a revision that cannot run again. */
export const canGoOn = ({ state }: Target): boolean => state.standing?.statements.every(canRunAgain) ?? true

/**
 * A batch that may be several transactions, while its scripts run: where one has to end, it is verified and committed,
 * and what became of each segment is noted for the outputs.
 */
export class SegmentedRun implements Segmenting {
  readonly #division: Segmentation
  /** Of the plan, those that are still to come. */
  #planned: Segment[]
  #ran: SegmentRun[]
  #tape: Tape | undefined
  /** The revision at hand, and those that ended in the transaction at hand. */
  #revision: string | undefined
  #ended: string[] = []
  /** From where on the tape the transaction at hand has its statements. */
  #since = 0
  /** The next revision needs what was done so far to be committed. */
  #isDue = false
  /** The statement that runs alone now, and from where on the tape it is found. */
  #alone: { sql: string; since: number } | undefined

  constructor(
    private readonly step: Step,
    private readonly target: Target,
    readonly checkLock: CheckLock,
  ) {
    this.#division = segmentsOf(target.rest, target.enums)
    this.#planned = [...this.#division.segments]
    // What a try before this one has committed.
    this.#ran = target.state.segments!.filter(({ outcome }) => outcome === 'applied')
    this.#publish()
  }

  /** The scripts are about to run. */
  begins(tape: Tape): void {
    this.#tape = tape
  }

  /** How many segments are still to come, as far as they are known. */
  get left(): number {
    return this.#planned.length
  }

  revisionStarts(id: string): void {
    if (this.#revision !== undefined) this.#ended.push(this.#revision)
    this.#revision = id
    this.#isDue ||= this.#division.endsBefore.includes(id)
  }

  // ── What the gate asks for ────────────────────────────────────────────────────────────────────────────────────────

  isDue(isIdle: boolean): boolean {
    if (this.#isDue || !isIdle) return this.#isDue
    const values = this.#division.endsBehind.filter(({ revision }) => revision === this.#revision)
    return this.#statements.some(({ sql }) => values.some(({ value }) => addsValue(sql, value)))
  }

  async commit(): Promise<void> {
    const { step, target } = this
    const { log } = step.surroundings
    const { priorHeads: from } = target.rest
    const heads = this.#headsNow
    await verifySegment(target, heads)
    await this.checkLock()
    await step.throwIfCancelled()
    target.committing = true
    let answered: boolean
    try {
      answered = await commit(step, target, { priorHeads: from, newHeads: heads })
    } finally {
      target.committing = false
    }
    const revisions = this.#committed()
    if (revisions.length > 0) log.info(`Committed: ${listed(revisions)}.`)
    if (answered) return
    throw new Failure('connection-failed', 'The connection was lost at a COMMIT, which PostgreSQL has carried out.', {
      transient: true,
      advice: 'Run the step again: it goes on behind what is committed.',
    })
  }

  async alone(sql: string): Promise<string> {
    const { log } = this.step.surroundings
    this.#aloneHasEnded()
    await this.checkLock()
    await this.step.throwIfCancelled()
    const sent = await this.#clearTheWay(sql)
    log.info(`Running outside of a transaction: ${sql}`)
    this.#alone = { sql, since: this.#tape!.entries.length }
    return sent
  }

  async begin(): Promise<void> {
    this.#aloneHasEnded()
    await this.checkLock()
    await this.target.transaction.beginNext()
    this.#since = this.#tape!.entries.length
  }

  // ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Every revision has ended, and the last transaction is committed. */
  applied(): void {
    if (this.#revision !== undefined) this.#ended.push(this.#revision)
    this.#revision = undefined
    this.#committed()
    this.#planned = []
    this.#publish()
  }

  /** Nothing more is run. */
  async failed(): Promise<void> {
    const { state } = this.target
    this.#aloneHasEnded()
    const last = this.#ran.at(-1)
    if (last?.outcome === 'failed') await this.#lookFor(last)
    if (last?.statement === undefined || last.outcome === 'applied') this.#rolledBack(state.outcome === 'in-doubt')
    this.#publish()
  }

  /** What a CREATE INDEX CONCURRENTLY has left, if it has. */
  async #lookFor(run: SegmentRun): Promise<void> {
    const index = indexMadeBy(run.statement!)
    if (!index) return
    try {
      const found = await this.target.aside(client => findIndex(client, index))
      if (!found) run.outcome = 'rolled-back'
      else if (!found.isValid) this.target.state.invalidIndex = found.name
    } catch {
      // It stays `failed`.
    }
  }

  #rolledBack(inDoubt: boolean): void {
    const revisions = [...this.#ended, ...(this.#hasBegun ? [this.#revision!] : [])]
    const planned = this.#take(false)
    if (revisions.length === 0 && !planned) return
    const all = new Set([...revisions, ...(planned?.revisions ?? [])])
    const outcome = inDoubt ? 'in-doubt' : revisions.length > 0 ? 'rolled-back' : 'not-run'
    this.#ran.push({ revisions: [...all], outcome })
  }

  // ── What became of the segments ───────────────────────────────────────────────────────────────────────────────────

  /** Whether the revision at hand is in the transaction at hand, and not only about to run something alone. */
  get #hasBegun(): boolean {
    const id = this.#revision
    if (id === undefined) return false
    const first = this.#planned.find(({ revisions }) => revisions.includes(id))
    return first?.alone === undefined || this.#entries.length > 0
  }

  get #entries(): TapeEntry[] {
    const entries = this.#tape?.entries.slice(this.#since) ?? []
    return entries.filter(entry => entry.revision === this.#revision && !entry.lookup)
  }

  /** What the revision at hand has done in the transaction at hand, Alembic's own statements left out. */
  get #statements(): TapeEntry[] {
    return this.#entries.filter(({ tag }) => tag !== null)
  }

  /** The heads at this point of the batch, behind the revisions that have ended. */
  get #headsNow(): string[] {
    const { priorHeads, revisions } = this.target.rest
    const { length } = this.#ended
    return length === 0 ? priorHeads : (revisions[length - 1]!.heads ?? [])
  }

  #committed(): string[] {
    const { target } = this
    const statements = this.#statements.map(({ sql }) => sql).filter(sql => !isRead(sql))
    const running = statements.length > 0 ? [this.#revision!] : []
    const revisions = [...this.#ended, ...running]
    if (this.#ended.length > 0) delete target.state.standing
    target.committed += this.#ended.length
    this.#stands(statements)
    this.#ended = []
    this.#since = this.#tape?.entries.length ?? 0
    this.#isDue = false
    if (revisions.length > 0) this.#add({ revisions, outcome: 'applied' })
    return revisions
  }

  #aloneHasEnded(): void {
    if (!this.#alone) return
    const { sql, since } = this.#alone
    const [answer, ...more] = this.#tape!.entries.slice(since).filter(entry => !entry.lookup)
    this.#alone = undefined
    const failed = [answer, ...more].some(entry => entry?.error)
    const outcome = !answer ? 'in-doubt' : failed ? 'failed' : 'applied'
    this.#add({ revisions: [this.#revision!], statement: sql, outcome })
    if (outcome === 'applied') this.#stands([sql])
  }

  #stands(statements: string[]): void {
    const { state } = this.target
    if (statements.length === 0) return
    const before = state.standing?.statements ?? []
    state.standing = { revision: this.#revision!, statements: [...new Set([...before, ...statements])] }
  }

  #add(run: SegmentRun): void {
    // A statement that an earlier try has run, and this one again.
    const isSame = ({ statement, revisions }: SegmentRun) =>
      statement !== undefined && statement === run.statement && revisions.join() === run.revisions.join()
    this.#ran = [...this.#ran.filter(other => !isSame(other)), run]
    this.#take(run.statement !== undefined)
    this.#publish()
  }

  /** The next one of the plan, if it is of that kind. */
  #take(alone: boolean): Segment | undefined {
    return this.#planned[0] && (this.#planned[0].alone !== undefined) === alone ? this.#planned.shift() : undefined
  }

  #publish(): void {
    const planned = this.#planned.map(segment => beforeItRuns(segment, 'not-run'))
    this.target.state.segments = [...this.#ran, ...planned]
  }

  // ── What stands in the way ────────────────────────────────────────────────────────────────────────────────────────

  /** An index that an earlier run has left: dropped where it is invalid, taken for the statement's where it is that. */
  async #clearTheWay(sql: string): Promise<string> {
    const { client } = this.target.transaction
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
