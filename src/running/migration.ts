import type { Target } from '../opening/target'
import type { Relation } from '../postgres/heads'
import { type Timeouts, Transaction } from '../postgres/transaction'
import type { Course } from './course'

/** One try of the batch on one database: what is noted of it, its connection, and the transaction on that. */
export class Migration {
  readonly target: Target
  /** What the version table was found to be behind the lock; where the batch makes it, behind the batch. */
  relation: Relation | undefined

  private constructor(
    readonly course: Course,
    readonly transaction: Transaction,
  ) {
    this.target = course.target
  }

  /** Begins the transaction. Throws a Failure. */
  static async begin(course: Course, timeouts: Timeouts): Promise<Migration> {
    return new Migration(course, await Transaction.begin(course.target.client, timeouts))
  }

  get bind(): string {
    return this.course.bind
  }
}
