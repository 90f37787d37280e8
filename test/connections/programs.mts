/** Programs over two and three connections, made from a seed. */

export const drivers = ['psycopg', 'psycopg2', 'session', 'async-psycopg', 'async-asyncpg'] as const

export interface Op {
  /** The connection. */
  c: number
  do: string
  t?: string
  /** A number that no other statement of the program has. */
  k?: number
}

export interface Program {
  driver: (typeof drivers)[number]
  /** Whether connections come from a pool, or are made anew each time. */
  pooled: boolean
  /** Whether all of them are at REPEATABLE READ. */
  snapshots: boolean
  before: Op[]
  /** One: the operations of all connections, one after another. Several: each is a thread's or a task's, on its own connections. */
  lanes: Op[][]
  after: Op[]
}

/** The program of that number; the same one each time. */
export function programOf(seed: number): Program {
  const dice = new Dice(seed)
  const driver = dice.pick([...drivers])
  const pooled = dice.below(2) === 0
  const snapshots = dice.below(8) === 0
  let k = 10
  // Each connection has rows of its own, by the remainder of three.
  const op = (c: number, kinds: string[], t: () => string): Op => ({
    c,
    do: dice.pick(kinds),
    t: t(),
    k: 3 * ++k + (c % 3),
  })
  const anything = [
    ...['read', 'readall', 'insert', 'insert', 'insert', 'update', 'delete', 'call', 'declare', 'fetch', 'error'],
    ...['set', 'show', 'try', 'take'],
    ...['commit', 'commit', 'commit', 'rollback', 'rollback', 'close', 'nest', 'release', 'back'],
  ]
  const table = () => dice.pick(['a', 'b', 'd'])
  if (dice.below(4) > 0) {
    const connections = 2 + dice.below(2)
    const length = 3 + dice.below(10)
    // Half of them leave more to one after the other: a turn of several operations at a time.
    let c = 0
    const change = dice.pick([1, 3])
    const lane = Array.from({ length }, () => {
      if (dice.below(change) === 0) c = dice.below(connections)
      return op(c, anything, table)
    })
    return {
      driver,
      pooled,
      snapshots,
      before: [],
      lanes: [lane],
      after: [{ c: 0, do: dice.pick(['commit', 'rollback', 'close']) }],
    }
  }
  const lanes = Array.from({ length: 2 + dice.below(2) }, (_, i) =>
    Array.from({ length: 1 + dice.below(3) }, () => {
      const work = Array.from({ length: 1 + dice.below(3) }, () =>
        op(i + 1, ['read', 'read', 'insert', 'update', 'call'], () => dice.pick(['a', 'b'])),
      )
      return [...work, { c: i + 1, do: dice.pick(['commit', 'commit', 'rollback', 'close']) }]
    }).flat(),
  )
  // Alembic's own connection is inside of its transaction meanwhile.
  const before = Array.from({ length: dice.below(3) }, () => op(0, ['insert', 'readall'], () => 'd'))
  return {
    driver,
    pooled,
    snapshots: false,
    before,
    lanes,
    after: [op(0, ['insert', 'readall'], () => 'd'), { c: 0, do: 'commit' }],
  }
}

/** Source of the constants: Numerical Recipes' linear congruential generator. */
class Dice {
  constructor(private seed: number) {
    for (let i = 0; i < 5; i++) this.below(1)
  }

  /** A number from 0 to below the limit. */
  below(limit: number): number {
    this.seed = (this.seed * 1_664_525 + 1_013_904_223) >>> 0
    return Math.floor((this.seed / 2 ** 32) * limit)
  }

  pick<T>(choices: T[]): T {
    return choices[this.below(choices.length)]!
  }
}

/** Why a program may be refused, told from its operations alone. */
export type Reason =
  | 'rolled back behind another'
  | 'read what is not committed'
  | 'read what is newer than its snapshot'
  | 'asked for a lock of another'
  | 'passed by what another has locked'

interface Written {
  c: number
  table: string
  /** How many savepoints of the connection it is inside of. */
  depth: number
  /** Rolled back with a savepoint: its connection has written all the same. */
  undone: boolean
  /** An open cursor, which would go with what another rolls back below it. */
  isCursor: boolean
}

/**
 * The reasons that there are to refuse a program of one lane, given what each operation came to on a server itself.
 * Independent of how the gate goes about it: what stands written, in the order in which it was.
 */
export function reasonsToRefuse(ops: Op[], outcomes: unknown[]): Set<Reason> {
  const reasons = new Set<Reason>()
  /** Everything that was written and not undone. */
  let written: (Written & { committed: boolean })[] = []
  const depth = new Map<number, number>()
  /** In a failed transaction, of which a COMMIT is a ROLLBACK. */
  const failing = new Set<number>()
  /** Advisory locks, which end with their transactions. */
  let locks: { c: number; key: string; depth: number }[] = []
  /** What others have changed since the first statement of a connection's transaction. */
  const since = new Map<number, Set<string>>()
  const undo = (c: number, from: number): void => {
    const at = written.findIndex(
      each => each.c === c && !each.isCursor && !each.undone && !each.committed && each.depth >= from,
    )
    if (at < 0) return
    const stands = (each: (typeof written)[number]) => !each.undone && (each.c !== c || each.committed)
    if (written.slice(at).some(stands)) reasons.add('rolled back behind another')
    for (const each of written) each.undone ||= each.c === c && !each.committed && each.depth >= from
    if (from === 0) written = written.filter(each => each.c !== c || each.committed)
  }
  for (const [index, { c, do: what, t = '', k }] of ops.entries()) {
    const failed = String(outcomes[index]).startsWith('error')
    const hadFailed = failing.has(c)
    if (failed) failing.add(c)
    if (['commit', 'rollback', 'close', 'back'].includes(what)) failing.delete(c)
    const at = depth.get(c) ?? 0
    const table = what === 'call' ? 'b' : t
    if (what === 'declare' && !failed) {
      written.push({ c, table: '', depth: at, undone: false, committed: false, isCursor: true })
    }
    const isEnd = ['commit', 'rollback', 'close'].includes(what)
    if (isEnd) written = written.filter(each => each.c !== c || !each.isCursor)
    if (what === 'commit' && !failed && !hadFailed) for (const each of written) each.committed ||= each.c === c
    // A session whose COMMIT begins with the release of a failed savepoint goes back to that, and stays in its transaction.
    if (what === 'rollback' || what === 'close') undo(c, 0)
    if (what === 'commit' && (failed || hadFailed)) undo(c, failed ? at : 0)
    if (['commit', 'rollback', 'close'].includes(what)) depth.set(c, 0)
    if (what === 'nest' && !failed) depth.set(c, at + 1)
    if ((what === 'release' || what === 'back') && at > 0) {
      if (what === 'back') undo(c, at)
      for (const each of written) if (each.c === c && each.depth >= at) each.depth = at - 1
      depth.set(c, at - 1)
    }
    const reads = ['read', 'readall', 'update', 'delete', 'fetch', 'take'].includes(what)
    // A cursor may have been declared on any table.
    const isDirty = written.some(
      each =>
        each.c !== c && !each.committed && !each.undone && !each.isCursor && (what === 'fetch' || each.table === table),
    )
    if (reads && isDirty) reasons.add('read what is not committed')
    if (isEnd || what === 'back') locks = locks.filter(lock => lock.c !== c || (!isEnd && lock.depth < at))
    if (what === 'try') {
      if (locks.some(lock => lock.c !== c && lock.key === t)) reasons.add('asked for a lock of another')
      if (!failed) locks.push({ c, key: t, depth: at })
    }
    if (what === 'take') {
      const isLocked = written.some(each => each.c !== c && !each.committed && each.table === `lock ${t}`)
      if (isLocked) reasons.add('passed by what another has locked')
      if (!failed) written.push({ c, table: `lock ${t}`, depth: at, undone: false, committed: false, isCursor: false })
    }
    const newer = since.get(c)
    if (reads && (what === 'fetch' ? newer?.size : newer?.has(table)))
      reasons.add('read what is newer than its snapshot')
    if (isEnd) since.delete(c)
    else if (!['nest', 'release', 'back'].includes(what)) since.set(c, newer ?? new Set())
    for (const [other, tables] of since) {
      if (other !== c && ['insert', 'update', 'delete', 'call'].includes(what)) tables.add(table)
    }
    if (['insert', 'update', 'delete', 'call'].includes(what) && !failed && k !== undefined) {
      written.push({ c, table, depth: at, undone: false, committed: false, isCursor: false })
    }
  }
  return reasons
}
