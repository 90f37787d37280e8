import type { Log } from '../log'
import type { Plan } from '../plan/plan'
import type { RevisionRun } from '../plan/result'
import type { Tape, TapeEntry } from '../postgres/gate/tape'
import { count, seconds } from '../report/words'

/** Tells the log of each revision as it ends, and keeps its figures in `runs`. */
export class Progress {
  readonly runs: RevisionRun[] = []
  /** The revision that is running; `since` as `performance.now()` counts. */
  #current: { id: string; since: number; statements: number } | undefined

  constructor(
    private readonly tape: Tape,
    private readonly log: Pick<Log, 'info'>,
    private readonly plan: Plan,
  ) {
    tape.listeners.push(entry => this.#note(entry))
  }

  /** The revision starts, and the one before it has ended. */
  start(id: string): void {
    this.finish()
    this.tape.revision = id
    this.#current = { id, since: performance.now(), statements: 0 }
  }

  /** The last revision has ended. */
  finish({ failed = false } = {}): void {
    if (!this.#current) return
    const { id, since, statements } = this.#current
    this.#current = undefined
    const duration = performance.now() - since
    this.runs.push({ id, duration, statements })
    const message = this.plan.revisions.find(revision => revision.id === id)?.message ?? ''
    this.log.info(`${failed ? '✗' : '✓'} ${id} ${message}: ${count(statements, 'statement')}, ${seconds(duration)}`)
  }

  #note({ revision, lookup }: TapeEntry): void {
    if (this.#current && revision === this.#current.id && !lookup) this.#current.statements++
  }
}
