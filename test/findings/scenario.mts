import type { Passing } from '../faults/proxy.mts'
import type { ProjectOptions } from '../support/project.mts'

/** The three ways to bring a database to a revision that are compared. */
export const wayNames = ['raw', 'psql', 'action'] as const
export type WayName = (typeof wayNames)[number]

/** What should be there afterwards: what was there before, or these rows at this head. */
export type Expected =
  | 'unchanged'
  | {
      head: string
      /** One query for each database, of one column. */
      rows: string[]
      /** The values of each, joined by commas. */
      are: string[]
    }

export interface Scenario {
  name: string
  /** The folder of a fixture, or what to write. */
  project: string | ProjectOptions
  /** The databases beside the default one. */
  binds?: string[]
  /** The revision at which the databases stand before; none is a fresh database. */
  from?: string
  /** The commands of `flask db` that lead there; by default one upgrade. */
  before?: string[]
  /** Further SQL before, for each database by its bind. */
  beforeSql?: Record<string, string>
  direction?: 'upgrade' | 'downgrade'
  /** By default `head`. */
  target?: string
  expected: Expected
  /** A query whose value tells more of what the first database holds. */
  shown?: string
  /** Of the project, where `Migrate(…)` says so. */
  versionTable?: string
  /** Two runs: both at once, or the second when the first has ended, from what was rendered before either. */
  twice?: 'together' | 'one after another'
  /** A bind whose server does not answer. */
  unreachable?: string
  /** As a server has them that nobody has set up for it. */
  withoutPreparedTransactions?: boolean
  /**
   * What is looked for in the SQL that a preview shows some time before the run; each value that is found afterwards is
   * then told as whether that is what was shown.
   */
  shows?: RegExp
  /** What happens to the first message on its way to or from the server that `at` picks. */
  fault?: { at: (passing: Passing, way: WayName) => boolean; act: (passing: Passing) => void }
}

export interface Chapter {
  title: string
  /** What a reader should know before the table. */
  text: string
  scenarios: Scenario[]
}
