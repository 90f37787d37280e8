/** One contestant's times, in milliseconds, of each round. */
export interface Row {
  name: string
  times: number[]
}

/** Contestants that were run in turn, each on a fresh database. */
export interface Race {
  title: string
  text: string
  rows: Row[]
  targets: Target[]
  /** Where its time goes. */
  loads?: Load[]
  sampled?: Sampled[]
}

/** A ratio of medians that is not to be exceeded, or the other way round not to be fallen short of. */
export interface Target {
  what: string
  of: Part
  to: Part
  limit: number
  /** By default `most`. */
  at?: 'most' | 'least'
}

/** A contestant's median, or what one takes longer than another. */
export type Part = string | { of: string; without: string }

/** CPU time in milliseconds of the processes at work for one contestant, of each round. */
export interface Load {
  name: string
  wall: number[]
  python: number[]
  /** The action, or the bare proxy. */
  node: number[]
  postgres: number[]
}

/** Milliseconds of the action's main thread, by what it did. */
export interface Sampled {
  name: string
  parts: Record<string, number>
}

/** What the action's own process took, for one size of batch. */
export interface Own {
  batch: string
  statements: number
  /** CPU time in milliseconds, user and system, of each round. */
  cpu: number[]
  /** Of the whole step, with Python and the database. */
  wall: number[]
  /** The largest resident set, in MiB. */
  memory: number[]
}

/** What docs/performance.json holds. */
export interface Figures {
  machine: Record<string, string>
  versions: Record<string, string>
  races: Race[]
  own: Own[]
  /** Bytes of dist/, by its files. */
  dist: Record<string, number>
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
