import type { Client } from 'pg'
import { Failure } from '../failure'
import { lockHolder, lockOf } from '../postgres/advisory-locks'
import { connect, disconnect, lossOf, sever } from '../postgres/connection'
import { byIdentity, identify, type NamedIdentity, sameIdentity } from '../postgres/identity'
import type { Database } from '../postgres/url'
import { allOf, type Step, type Surroundings } from './surroundings'

/** GitHub kills a cancelled step ten seconds after its first signal; of these, milliseconds for what may hang. */
const grace = { statement: 2_000, commit: 4_000, connect: 1_500 }

/** One database of the step, and the connection that the batch runs on. */
export class Target {
  /** Whether a COMMIT was sent on it, whose answer is waited for even when the step is cancelled. */
  committing = false
  #identity: NamedIdentity | undefined

  private constructor(
    readonly bind: string,
    readonly database: Database,
    readonly client: Client,
    private readonly surroundings: Pick<Surroundings, 'applicationName' | 'signal'>,
  ) {}

  /** Connects, until the end of the step. Throws a Failure `connection-failed`. */
  static async open({ surroundings }: Step, bind: string, database: Database): Promise<Target> {
    const { applicationName, signal, atEnd } = surroundings
    const client = await connectTo(database, applicationName, signal)
    const target = new Target(bind, database, client, surroundings)
    atEnd.defer(() => disconnect(client))
    target.leaveWhenCancelled(client)
    return target
  }

  /** A cancelled step leaves a client in time, whatever the server does. */
  leaveWhenCancelled(client: Client): void {
    this.surroundings.signal.addEventListener('abort', () => {
      const leave = (after: number, unless = () => false) => setTimeout(() => unless() || sever(client), after).unref()
      leave(grace.statement, () => this.committing)
      leave(grace.commit)
    })
  }

  /** The database for people, without password. */
  get name(): string {
    return this.database.name
  }

  /** A connection of its own to this database; the caller closes it. */
  connect(): Promise<Client> {
    const { applicationName, signal } = this.surroundings
    return connectTo(this.database, applicationName, signal)
  }

  /** The same for what only holds a lock for the run. */
  connectForLock(): Promise<Client> {
    const { applicationName, signal } = this.surroundings
    return connect(this.database, lockOf(applicationName), signal)
  }

  /** Who holds one of our locks, in words; empty where that cannot be told. */
  holderOf(key: number): Promise<string> {
    return this.aside(client => lockHolder(client, key)).catch(() => '')
  }

  /** Which database this is; it is asked once. */
  async identify(): Promise<NamedIdentity> {
    this.#identity ??= await identify(this.client)
    return this.#identity
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
}

/** When the step is cancelled, there is little time left. */
const connectTo = (database: Database, applicationName: string, signal: AbortSignal): Promise<Client> =>
  connect(database, applicationName, signal.aborted ? AbortSignal.timeout(grace.connect) : signal)

/** Connects to every database that is asked. Throws a Failure, `invalid-input` where two of them are one. */
export async function openTargets(step: Step): Promise<Target[]> {
  const { databases, fromRevision } = step.inputs
  // Heads that the user names go before what a database says, so it is not asked.
  if (fromRevision) return []
  const targets = await allOf([...databases].map(([bind, database]) => Target.open(step, bind, database)))
  if (targets.length > 1) await requireDistinct(targets)
  return targets
}

/** The order in which locks are taken and commits are sent: the same in every run, so that two runs cannot deadlock. */
export async function inLockOrder<T extends { target: Target }>(each: T[]): Promise<T[]> {
  if (each.length === 1) return each
  const identified = await allOf(each.map(async one => ({ one, identity: await one.target.identify() })))
  return identified.sort((a, b) => byIdentity(a.identity, b.identity)).map(({ one }) => one)
}

async function requireDistinct(targets: Target[]): Promise<void> {
  const identities = await allOf(targets.map(target => target.identify()))
  for (const [index, identity] of identities.entries()) {
    const same = identities.findIndex(other => sameIdentity(other, identity))
    if (same === index) continue
    throw new Failure(
      'invalid-input',
      `The binds ${targets[same]?.bind} and ${targets[index]?.bind} are the same database, and would wait for each other.`,
      { advice: 'Give each bind of database-url a database of its own.' },
    )
  }
}
