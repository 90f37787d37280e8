import { aborted, type NestedTransaction } from './nested'
import type { PreparedStatements } from './prepared'
import { afterwards, identifier, join, statement } from './request'
import type { Understood } from './understand'
import type { Finish, Unit } from './unit'

/** Transaction control and DEALLOCATE, carried out in the client's name and refused where PostgreSQL refuses it. */
export class TransactionControl {
  constructor(
    private readonly unit: Unit,
    private readonly transaction: NestedTransaction,
    private readonly statements: PreparedStatements,
  ) {}

  /** False for any other statement. */
  carryOut({ effect }: Understood, finish: Finish): boolean {
    const { transaction } = this
    const { status, prepared } = transaction.views.ahead
    const refuse = (code: string, message: string) => this.unit.refuse(code, message, finish)
    switch (effect.kind) {
      case 'begin':
        if (status === 'E') refuse('25P02', aborted)
        else transaction.begin(effect.tag, effect.level, finish)
        return true
      case 'commit':
        if (effect.chain && status === 'I') refuse('25P01', 'COMMIT AND CHAIN can only be used in transaction blocks')
        else if (status === 'E') transaction.rollBack(effect.chain, finish)
        else transaction.commit(effect.chain, finish)
        return true
      case 'rollback':
        if (effect.chain && status === 'I') refuse('25P01', 'ROLLBACK AND CHAIN can only be used in transaction blocks')
        else transaction.rollBack(effect.chain, finish)
        return true
      case 'prepare':
        // Outside of a transaction, and in a failed one, PostgreSQL answers ROLLBACK.
        if (status !== 'T') transaction.rollBack(false, finish)
        else if (prepared.some(({ gid }) => gid === effect.gid))
          refuse('42710', `transaction identifier "${effect.gid}" is already in use`)
        else transaction.prepare(effect.gid, finish)
        return true
      case 'commit-prepared':
      case 'rollback-prepared':
        this.#finishPrepared(effect.kind, effect.gid, finish)
        return true
      case 'savepoint':
        if (status === 'I') refuse('25P01', 'SAVEPOINT can only be used in transaction blocks')
        else transaction.savepoint(effect.name, finish)
        return true
      case 'release':
      case 'rollback-to':
        this.#toSavepoint(effect.kind, effect.name, finish)
        return true
      case 'deallocate':
        this.#deallocate(effect.name, finish)
        return true
      case 'refuse':
        refuse('42601', effect.why)
        return true
      default:
        return false
    }
  }

  #finishPrepared(kind: 'commit-prepared' | 'rollback-prepared', gid: string, finish: Finish): void {
    const words = kind === 'commit-prepared' ? 'COMMIT PREPARED' : 'ROLLBACK PREPARED'
    const { status, layers, prepared } = this.transaction.views.ahead
    const refuse = (code: string, message: string) => this.unit.refuse(code, message, finish)
    const at = prepared.findIndex(other => other.gid === gid)
    if (status === 'E') refuse('25P02', aborted)
    else if (status === 'T' || layers.length > 0) refuse('25001', `${words} cannot run inside a transaction block`)
    else if (at < 0) refuse('42704', `prepared transaction with identifier "${gid}" does not exist`)
    else if (kind === 'rollback-prepared' && !this.transaction.canUndoPrepared(at))
      refuse('0A000', 'Atomic Upgrade: this prepared transaction cannot be undone without what was written after it')
    else this.transaction.finishPrepared(words, at, finish)
  }

  #toSavepoint(kind: 'release' | 'rollback-to', name: string, finish: Finish): void {
    const { status, savepoints } = this.transaction.views.ahead
    const words = kind === 'release' ? 'RELEASE SAVEPOINT' : 'ROLLBACK TO SAVEPOINT'
    const at = savepoints.findLastIndex(savepoint => savepoint.name === name)
    if (status === 'I') this.unit.refuse('25P01', `${words} can only be used in transaction blocks`, finish)
    else if (status === 'E' && kind === 'release') this.unit.refuse('25P02', aborted, finish)
    else if (at < 0) this.unit.refuse('3B001', `savepoint "${name}" does not exist`, finish)
    else this.transaction.toSavepoint(kind, at, finish)
  }

  /** DEALLOCATE says the name in SQL, and ALL would also drop the statements of other clients. */
  #deallocate(name: string, finish: Finish): void {
    this.transaction.enter(finish)
    const known = this.statements.deallocate(name)
    for (const { request, done } of known) this.unit.send(join(request, afterwards(done)))
    if (name && known.length === 0) {
      const [error, done] = [this.unit.deliverTo(finish), this.statements.forget(name)]
      this.unit.send(statement(`DEALLOCATE ${identifier(name)}`, { error, done }))
    }
    this.transaction.complete(name ? 'DEALLOCATE' : 'DEALLOCATE ALL', finish)
  }
}
