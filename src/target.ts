import type { Client } from 'pg'
import { Failure } from './failure'
import type { KnownEnum } from './plan/new-enum-values'
import type { Plan } from './plan/plan'
import type { DatabaseState } from './plan/result'
import { lockHolder, lockOf } from './postgres/advisory-locks'
import { connect, disconnect, lossOf, sever } from './postgres/connection'
import { type Relation, readHeads, type VersionTable } from './postgres/heads'
import { byIdentity, identify, type NamedIdentity, sameIdentity } from './postgres/identity'
import type { Transaction } from './postgres/transaction'
import type { Database } from './postgres/url'

/** GitHub kills a cancelled step ten seconds after its first signal; of these, milliseconds for what may hang. */
const grace = { statement: 2_000, commit: 4_000, connect: 1_500 }

/** One database of the step with what it has open: its connection and, while the batch runs, its transaction. */
export class Target {
  /** The one that the batch runs on. */
  client: Client | undefined
  versionTable!: VersionTable
  /** What it was found to be behind the lock; where the batch makes it, behind the batch. */
  relation: Relation | undefined
  transaction!: Transaction
  /** Whether that table is there, as far as the plan goes. */
  versionTableExists = false
  /** The enums of the database that the batch adds values to. */
  enums: ReadonlyMap<string, KnownEnum> = new Map()
  #identity: NamedIdentity | undefined
  /** Whether a COMMIT was sent. */
  committing = false
  /** How many revisions of the plan are committed. */
  committed = 0

  constructor(
    readonly state: DatabaseState,
    /** undefined where none was given, or where it is not to be asked. */
    readonly database: Database | undefined,
    private readonly applicationName: string,
    private readonly signal: AbortSignal,
  ) {}

  /** Connects `client`, which a cancelled step leaves in time, whatever the server does. */
  async open(): Promise<void> {
    this.client = await this.connect()
    this.leaveWhenCancelled(this.client)
  }

  leaveWhenCancelled(client: Client): void {
    this.signal.addEventListener('abort', () => {
      const leave = (after: number, unless = () => false) => setTimeout(() => unless() || sever(client), after).unref()
      leave(grace.statement, () => this.committing)
      leave(grace.commit)
    })
  }

  /** What of the plan is still to be run. */
  get rest(): Plan {
    const plan = this.state.plan!
    if (this.committed === 0) return plan
    const { heads = [] } = plan.revisions[this.committed - 1]!
    return { ...plan, priorHeads: heads, revisions: plan.revisions.slice(this.committed) }
  }

  /** A connection of its own to this database; the caller closes it. */
  connect(): Promise<Client> {
    const { signal, applicationName } = this
    return connect(this.database!, applicationName, signal.aborted ? AbortSignal.timeout(grace.connect) : signal)
  }

  /** The same for what only holds a lock for the run. */
  connectForLock(): Promise<Client> {
    return connect(this.database!, lockOf(this.applicationName), this.signal)
  }

  /** Who holds one of our locks, in words; empty where that cannot be told. */
  holderOf(key: number): Promise<string> {
    return this.aside(client => lockHolder(client, key)).catch(() => '')
  }

  /** Which database this is; it is asked once. */
  async identify(): Promise<NamedIdentity> {
    this.#identity ??= await identify(this.client!)
    return this.#identity
  }

  /** After `identify`. */
  get identity(): NamedIdentity {
    return this.#identity!
  }

  /** Does something on a connection of its own. Throws a Failure where that breaks. */
  async aside<T>(action: (client: Client) => Promise<T>): Promise<T> {
    const client = await this.connect()
    try {
      return await action(client)
    } catch (error) {
      throw lossOf(client, error) ?? error
    } finally {
      await disconnect(client)
    }
  }

  /** After a failure, the outputs say what the database holds and not what was hoped. */
  async rereadHeads(): Promise<void> {
    const { state } = this
    // Behind a COMMIT they were read under the lock.
    if (state.outcome === 'in-doubt' || state.reread !== undefined) return
    if (state.priorHeads && state.outcome !== 'applied') {
      state.newHeads = this.committed > 0 ? this.rest.priorHeads : state.priorHeads
    }
    if (!this.client || !this.versionTable) return
    try {
      const { heads } = await this.aside(client => readHeads(client, this.versionTable))
      state.newHeads = heads
      state.priorHeads ??= heads
      state.reread = true
    } catch {
      state.reread = false
    }
  }
}

/** The order in which locks are taken and commits are sent: the same in every run, so that two runs cannot deadlock. */
export const inLockOrder = (targets: Target[]): Target[] =>
  targets.length === 1 ? targets : [...targets].sort((a, b) => byIdentity(a.identity, b.identity))

/** Throws a Failure `invalid-input` where two binds are one database. */
export function requireDistinct(targets: Target[]): void {
  for (const [index, target] of targets.entries()) {
    const same = targets.slice(0, index).find(other => sameIdentity(other.identity, target.identity))
    if (same) {
      throw new Failure(
        'invalid-input',
        `The binds ${same.state.bind} and ${target.state.bind} are the same database, and would wait for each other.`,
        { advice: 'Give each bind of database-url a database of its own.' },
      )
    }
  }
}
