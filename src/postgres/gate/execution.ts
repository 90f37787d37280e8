import { TransactionControl } from './control'
import type { CopyIn } from './copy'
import type { CoveredSettings } from './covered'
import { isFleeting } from './leavings'
import type { NestedTransaction } from './nested'
import type { PreparedStatements } from './prepared'
import type { Understood } from './understand'
import type { Finish, Unit } from './unit'
import type { Request } from './upstream'

/** How a statement is carried out, by either protocol: in the client's name, or upstream inside of its savepoint. */
export class Execution {
  readonly #control: TransactionControl

  constructor(
    private readonly unit: Unit,
    private readonly transaction: NestedTransaction,
    private readonly statements: PreparedStatements,
    private readonly settings: CoveredSettings,
    private readonly copy: CopyIn,
  ) {
    this.#control = new TransactionControl(unit, transaction, statements)
  }

  /** `ahead` goes before the Execute message, where the statement goes upstream at all. */
  run(statement: Understood, ahead: Request, execute: Buffer, finish: Finish): void {
    if (this.#control.carryOut(statement, finish)) return
    this.enter(statement, finish)
    this.unit.send(ahead)
    const answer = {
      ends: 'CIs',
      deliver: this.unit.deliverTo(finish),
      done: () => this.statements.leaveBehind(statement),
    }
    if (statement.effect.kind === 'copy-in') return this.copy.start(execute, answer)
    this.unit.send({ bytes: execute, expected: [answer] })
    this.settings.followUp(statement.effect)
  }

  /** Makes sure that a statement is inside the transaction's savepoint, and notes what it will have done. */
  enter(statement: Understood, finish?: Finish): void {
    this.transaction.enter(finish)
    if (this.unit.failed) return
    if (statement.effect.kind !== 'read') this.transaction.willWrite()
    this.settings.prepare(statement)
    if (statement.leaves && isFleeting(statement.leaves)) this.transaction.views.ahead.fleeting.push(statement.leaves)
  }
}
