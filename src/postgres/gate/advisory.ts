import type { Owner } from './layers'
import { asksForTransactionLock } from './looks'
import type { Participant } from './participant'

interface Holder {
  owner: Owner
  /** Until the end of its transaction, after which PostgreSQL keeps it for us, and for nobody else. */
  isTransactions: boolean
}

/** The mode in which many may hold an advisory lock. */
const shared = 'ShareLock'

const keyOf = (lock: string) => lock.replace(/ \S+$/, '')

/**
 * Who of the clients holds which advisory locks. To PostgreSQL they are all one session's, which gets a lock that it has
 * once more, and may give back what another client has taken.
 */
export class AdvisoryLocks {
  /** By the lock, as a survey names it. */
  readonly #holders = new Map<string, Holder>()
  /** Those whose holders have ended their transactions, or gone. PostgreSQL keeps them for us, and gives them once more. */
  readonly #free = new Set<string>()
  /** The keys of what a statement took when it was first carried out, by its text and parameters. */
  readonly #keys = new Map<string, string[]>()

  /**
   * Takes note of what the owner's statement has done, and returns who has what it took, asked for, or gave back. `sql` has
   * its parameters behind it, as they were sent. Where nothing is seen to have changed, it has asked for a lock that is
   * held already: by another one, if any holds one.
   */
  note(owner: Participant, sql: string, before: string[], after: string[]): Owner | undefined {
    // A rollback to a savepoint has given back what was taken behind it.
    for (const locks of [this.#holders, this.#free])
      for (const lock of locks.keys()) if (!before.includes(lock)) locks.delete(lock)
    const others = [...this.#holders].filter(([, holder]) => holder.owner !== owner)
    const taken = after.filter(lock => !before.includes(lock))
    const lost = before.filter(lock => !after.includes(lock))
    const isSame = taken.length + lost.length === 0 && !/unlock/i.test(sql)
    const meant =
      others.find(([lock]) => lost.includes(lock) || taken.some(each => areAtOdds(each, lock))) ??
      (isSame ? this.#asked(owner, sql, others) : undefined)
    const keys = this.#keysOf(sql)
    const given = isSame && !meant ? [...this.#free].filter(lock => !keys || keys.includes(keyOf(lock))) : []
    if (taken.length > 0) this.#keys.set(sql, taken.map(keyOf))
    for (const lock of lost) this.#holders.delete(lock)
    const isTransactions = asksForTransactionLock(sql)
    const isOver = isTransactions && owner.transaction.now.status === 'I'
    for (const lock of [...taken, ...given]) {
      if (isOver) this.#free.add(lock)
      else this.#free.delete(lock)
      if (!isOver) this.#holders.set(lock, { owner, isTransactions })
    }
    return meant?.[1].owner
  }

  /** Which of the locks of others the statement may have asked for in vain. */
  #asked(owner: Owner, sql: string, others: [string, Holder][]): [string, Holder] | undefined {
    const keys = this.#keysOf(sql)
    const own = [...this.#holders].filter(([, holder]) => holder.owner === owner).map(([lock]) => keyOf(lock))
    const isShared = /_shared\s*\(/i.test(sql)
    return others.find(([lock]) => {
      if (isShared && lock.endsWith(shared)) return false
      return !keys || (keys.includes(keyOf(lock)) && !own.includes(keyOf(lock)))
    })
  }

  /** The keys that the statement means, where it says so, or has taken them before. */
  #keysOf(sql: string): string[] | undefined {
    const written = keysIn(sql)
    return this.#keys.get(sql) ?? (written.length > 0 ? written : undefined)
  }

  /** The owner's transaction has ended; or it has gone, and `all` of its locks with it. */
  ended(owner: Owner, { all = false } = {}): void {
    for (const [lock, holder] of this.#holders) {
      if (holder.owner !== owner || !(all || holder.isTransactions)) continue
      this.#holders.delete(lock)
      this.#free.add(lock)
    }
  }
}

const areAtOdds = (one: string, other: string): boolean =>
  keyOf(one) === keyOf(other) && !(one.endsWith(shared) && other.endsWith(shared))

/** As pg_locks splits a key of 64 bits. */
const lockOf = (key: bigint): string => {
  const bits = BigInt.asUintN(64, key)
  return `${bits >> 32n} ${bits & 0xffffffffn} 1`
}

/** The locks of the keys that are written in SQL as numbers. */
const keysIn = (sql: string): string[] =>
  [...sql.matchAll(/lock(?:_shared)?\s*\(\s*(-?\d+)\s*\)/gi)].map(([, key = '']) => lockOf(BigInt(key)))
