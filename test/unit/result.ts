import type { DatabaseState, Result } from '../../src/plan/result'

/** A result of one database, flat. */
export type Flat = Omit<Result, 'databases'> & Omit<DatabaseState, 'bind' | 'name' | 'outcome'> & { database: string }

export function nested({
  database: name,
  plan,
  obstacles,
  destructions,
  priorHeads,
  newHeads,
  reread,
  runs,
  ...step
}: Flat): Result {
  const known = Object.entries({ plan, obstacles, destructions, priorHeads, newHeads, reread }).filter(
    ([, value]) => value !== undefined,
  )
  return { ...step, databases: [{ bind: 'default', name, runs, ...Object.fromEntries(known) }] }
}
