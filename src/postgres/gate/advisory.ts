import type { Owner } from './layers'
import { asksForTransactionLock } from './looks'

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

  /**
   * Takes note of what the owner's statement has done, and returns who has what it took, asked for, or gave back. Where
   * nothing is seen to have changed, it has asked for a lock that is held already: by another one, if any holds one.
   */
  note(owner: Owner, sql: string, before: string[], after: string[]): Owner | undefined {
    const others = [...this.#holders].filter(([, holder]) => holder.owner !== owner)
    const taken = after.filter(lock => !before.includes(lock))
    const lost = before.filter(lock => !after.includes(lock))
    const [, meant] =
      others.find(([lock]) => lost.includes(lock) || taken.some(each => areAtOdds(each, lock))) ??
      (taken.length + lost.length === 0 && !/unlock/i.test(sql) ? this.#asked(owner, sql, others) : undefined) ??
      []
    for (const lock of lost) this.#holders.delete(lock)
    for (const lock of taken) this.#holders.set(lock, { owner, isTransactions: asksForTransactionLock(sql) })
    return meant?.owner
  }

  /** Which of the locks of others the statement may have asked for in vain. A key that is in it tells. */
  #asked(owner: Owner, sql: string, others: [string, Holder][]): [string, Holder] | undefined {
    const named = [...sql.matchAll(/lock(?:_shared)?\s*\(\s*(-?\d+)\s*\)/gi)].map(([, key = '']) => lockOf(BigInt(key)))
    const own = [...this.#holders].filter(([, holder]) => holder.owner === owner).map(([lock]) => keyOf(lock))
    const isShared = /_shared\s*\(/i.test(sql)
    return others.find(([lock]) => {
      if (isShared && lock.endsWith(shared)) return false
      return named.length === 0 || (named.includes(keyOf(lock)) && !own.includes(keyOf(lock)))
    })
  }

  /** The owner's transaction has ended; or it has gone, and `all` of its locks with it. */
  ended(owner: Owner, { all = false } = {}): void {
    for (const [lock, holder] of this.#holders) {
      if (holder.owner === owner && (all || holder.isTransactions)) this.#holders.delete(lock)
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
