import { join, literal, statement } from './request'
import type { Savepoints } from './savepoints'
import type { Settings, Values } from './settings'
import type { Before, Transaction, TransactionViews } from './transaction'
import type { GateEffect, Understood } from './understand'
import type { Unit } from './unit'

/** A client's SET, SET LOCAL and RESET: a RELEASE does not bring back what a COMMIT would, so the old values are kept. */
export class CoveredSettings {
  /** `startup`: what the client asked for as it connected. */
  constructor(
    private readonly unit: Unit,
    private readonly transaction: TransactionViews,
    private readonly savepoints: Savepoints,
    private readonly settings: Settings,
    private readonly startup: Values,
  ) {
    for (const name of Object.keys(startup)) settings.note(name)
  }

  /** Before a statement is carried out. */
  prepare({ effect, configured }: Understood): void {
    if (['set', 'set-local', 'reset'].includes(effect.kind) || configured.length > 0) this.#keep()
    if (effect.kind === 'set-local') this.#cover(effect.name)
    else if (effect.kind === 'set') this.#uncover(effect.name)
    for (const { name, local } of configured) {
      if (local) this.#cover(name)
      else this.#uncover(name)
    }
  }

  /** Behind it: a RESET goes back to what the client asked for, and keeps the timeouts that this step has set. */
  followUp(effect: GateEffect): void {
    if (effect.kind !== 'reset') return
    const { name } = effect
    this.#uncover(name)
    const wanted = Object.entries(this.startup).filter(
      ([other]) => name === null || other.toLowerCase() === name.toLowerCase(),
    )
    const error = this.unit.deliver
    this.unit.send(
      join(
        this.settings.ownOf(name),
        ...wanted.map(([other, value]) =>
          statement(`SELECT pg_catalog.set_config(${literal(other)}, ${literal(value)}, false)`, { error }),
        ),
      ),
    )
  }

  /** A ROLLBACK brings back what was set before, also where nothing was written and no savepoint is there to go back to. */
  #keep(): void {
    const { status, before, savepoints } = this.transaction.ahead
    if (status !== 'T' || (savepoints.at(-1) ?? { before }).before) return
    const kept: Before = {}
    const note = (transaction: Transaction) => {
      transaction.before ??= kept
      for (const savepoint of transaction.savepoints) savepoint.before ??= kept
    }
    note(this.transaction.ahead)
    const saved = (values: Values) => {
      kept.values = values
      note(this.transaction.now)
    }
    this.unit.send(this.settings.save(saved, this.unit.deliver))
  }

  /** Remembers the value that a SET LOCAL is about to cover. */
  #cover(name: string): void {
    const { covered } = this.transaction.ahead
    if (covered.some(other => other.name.toLowerCase() === name.toLowerCase())) return
    const key = `atomic_upgrade.covered_${this.savepoints.newName()}`
    this.settings.note(key)
    this.settings.note(name)
    const value = `'=' OPERATOR(pg_catalog.||) coalesce(pg_catalog.current_setting(${literal(name)}, true), '')`
    const keep = `SELECT pg_catalog.set_config('${key}', ${value}, false)`
    covered.push({ name, key })
    const done = () => void this.transaction.now.covered.push({ name, key })
    this.unit.send(statement(keep, { error: this.unit.deliver, done }))
  }

  /** A SET for the session holds past the COMMIT, also of what a SET LOCAL has covered. */
  #uncover(name: string | null): void {
    if (name) this.settings.note(name)
    const change = (transaction: Transaction) => {
      transaction.covered = transaction.covered.filter(
        other => name !== null && other.name.toLowerCase() !== name.toLowerCase(),
      )
    }
    change(this.transaction.ahead)
    this.unit.inOrder(() => change(this.transaction.now))
  }
}
