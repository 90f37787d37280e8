import type { Step } from '../opening/surroundings'
import { openTargets } from '../opening/target'
import type { Tried } from '../trying/try'
import { Course } from './course'

/** The batch as it runs, on every database. */
export class Running {
  readonly stage = 'running'
  readonly courses: Course[]
  /** Whether anything of the batch was started in the try at hand. */
  hasStarted = false
  /** What is not covered when several databases are committed one after another; empty for nothing. */
  uncovered = ''

  /** Needs every database to be connected. */
  constructor(readonly tried: Tried) {
    this.courses = tried.databases.flatMap(batch =>
      batch.target ? [new Course(batch, batch.target, tried.databases.length > 1)] : [],
    )
    if (this.courses.length < tried.databases.length) throw new Error('A database to run on was not asked')
  }

  get step(): Step {
    return this.tried
  }

  /** Whether the batch may be several transactions. */
  get isInSegments(): boolean {
    const { inputs, source } = this.tried
    return inputs.segments && inputs.mode === 'apply' && source.is === 'scripts'
  }

  /** After a try that was rolled back: new connections. Throws a Failure. */
  async startAnew(): Promise<void> {
    this.hasStarted = false
    for (const target of await openTargets(this.step)) {
      this.courses.find(({ bind }) => bind === target.bind)?.startAnew(target)
    }
  }
}
