import { TransactionControl } from './control'
import type { CopyIn } from './copy'
import type { CoveredSettings } from './covered'
import { isFleeting } from './leavings'
import type { NestedTransaction } from './nested'
import type { PreparedStatements } from './prepared'
import type { Understood } from './understand'
import type { Finish, Unit } from './unit'
import type { Request, Upstream } from './upstream'

const semicolon = ';'.charCodeAt(0)

/** How a statement is carried out, by either protocol: in the client's name, or upstream inside of its savepoint. */
export class Execution {
  readonly #control: TransactionControl

  constructor(
    private readonly unit: Unit,
    private readonly upstream: Upstream,
    private readonly transaction: NestedTransaction,
    private readonly statements: PreparedStatements,
    private readonly settings: CoveredSettings,
    private readonly copy: CopyIn,
    /** Told of each statement before it is carried out upstream; what it returns is called when that has succeeded. */
    private readonly watch: (statement: Understood, portal?: string) => () => void,
  ) {
    this.#control = new TransactionControl(unit, transaction, statements)
  }

  /** `ahead` goes before the Execute message, where the statement goes upstream at all. */
  run(statement: Understood, ahead: Request, execute: Buffer, finish: Finish, portal?: string): void {
    if (this.#control.carryOut(statement, finish)) return
    const done = this.enter(statement, finish, portal)
    this.unit.send(ahead)
    const answer = { ends: 'CIs', deliver: this.unit.deliverTo(finish), done }
    if (statement.effect.kind === 'copy-in') return this.copy.start(execute, answer)
    this.unit.send({ bytes: execute, expected: [answer] })
    this.settings.followUp(statement.effect)
  }

  /**
   * Whether a Query message can go upstream as it came: without a semicolon it can only be one statement, and nothing
   * has to be sent before it whose failure would make the server skip it, for then it would not be answered.
   */
  canPass({ bytes, effect, configured, advisory }: Understood): boolean {
    const { status } = this.transaction.views.ahead
    const isOrdinary = (effect.kind === 'other' || effect.kind === 'read') && configured.length === 0 && !advisory
    const isInside = status === 'T' && this.transaction.isInside && !this.unit.failed
    return isOrdinary && isInside && this.upstream.idle && !bytes.includes(semicolon)
  }

  /** The server answers with a ReadyForQuery of its own. */
  pass(statement: Understood, query: Buffer, finish: Finish): void {
    const done = this.enter(statement, finish)
    this.unit.send({ bytes: query, expected: [{ ends: 'CI', deliver: this.unit.deliverTo(finish), done }] })
  }

  /**
   * Makes sure that a statement is inside the transaction's savepoint, and notes what it will have done; what it returns
   * is to be called when it has.
   */
  enter(statement: Understood, finish?: Finish, portal?: string): () => void {
    this.transaction.enter(finish)
    if (this.unit.failed) return () => {}
    this.transaction.note(statement)
    const succeeded = this.watch(statement, portal)
    this.settings.prepare(statement)
    if (statement.leaves && isFleeting(statement.leaves)) this.transaction.views.ahead.fleeting.push(statement.leaves)
    return () => {
      this.statements.leaveBehind(statement)
      succeeded()
    }
  }
}
