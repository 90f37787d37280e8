import type { Log } from './log'
import type { Plan } from './plan/plan'
import type { RevisionRun } from './plan/result'
import type { Tape } from './postgres/gate/tape'
import { count, seconds } from './report/words'

/** Tells the log of each revision as it ends, and keeps its figures in `runs`. */
export class Progress {
  readonly runs: RevisionRun[] = []
  #started = 0
  #current: string | undefined
  /** From where on the tape the revision has its statements. */
  #since = 0

  constructor(
    private readonly tape: Tape,
    private readonly log: Log,
    private readonly plan: Plan,
  ) {}

  /** The revision starts, and the one before it has ended. */
  start(id: string): void {
    this.finish()
    this.#current = id
    this.tape.revision = id
    this.#since = this.tape.entries.length
    this.#started = performance.now()
  }

  /** The last revision has ended. */
  finish({ failed = false } = {}): void {
    const id = this.#current
    if (id === undefined) return
    this.#current = undefined
    const duration = performance.now() - this.#started
    const statements = this.tape.entries
      .slice(this.#since)
      .filter(entry => entry.revision === id && !entry.lookup).length
    this.runs.push({ id, duration, statements })
    const message = this.plan.revisions.find(revision => revision.id === id)?.message ?? ''
    this.log.info(`${failed ? '✗' : '✓'} ${id} ${message}: ${count(statements, 'statement')}, ${seconds(duration)}`)
  }
}
