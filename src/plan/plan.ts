export type Direction = 'upgrade' | 'downgrade'

/** One Alembic script. */
export interface Script {
  id: string
  /** The revisions that it revises; empty for a base. */
  down: string[]
  dependsOn: string[]
  labels: string[]
  /** The first line of its docstring. */
  message: string
  /** Relative to the workspace where it lies inside it. */
  path: string
  /** Where it lies on this machine, as Alembic lists it. */
  file: string
  /** SHA-256 of the script's bytes, its line ends taken as LF; hexadecimal. */
  digest: string
  /** Its `Create Date`, as the script's docstring has it; empty where it has none. */
  created: string
}

/** One statement of the dry run. */
export interface RenderedStatement {
  sql: string
  /** The line of the script that it comes from. */
  line: number | null
  /** Whether it is Alembic's own: the version table and its row. */
  own: boolean
}

/** A piece of a script, by its line. */
export interface PlaceInScript {
  line: number
  text: string
}

/** A revision of the batch, with its SQL or with the reason why there is none. */
export interface Revision extends Script {
  statements?: RenderedStatement[]
  notRenderable?: { reason: string; line: number | null }
  /** The heads behind it, sorted; not known of a plan file's. */
  heads?: string[]
  /** Calls in a script without SQL that need to run outside of a transaction. */
  concurrently?: PlaceInScript[]
  /** Words in the strings of such a script that may mean the same. */
  mentions?: PlaceInScript[]
  /** All strings of such a script, as it stands there. */
  strings?: PlaceInScript[]
}

/** What preview shows and apply runs: the revisions between the prior heads and the target, in the order they run. */
export interface Plan {
  direction: Direction
  /** The target as the user named it. */
  target: string
  /** Sorted. */
  priorHeads: string[]
  /** Sorted. */
  newHeads: string[]
  revisions: Revision[]
}

/** Whether the whole batch could be rendered. */
export const isRendered = (plan: Plan): boolean => plan.revisions.every(revision => revision.statements)

export const sameHeads = (a: string[], b: string[]): boolean =>
  a.length === b.length && a.every((head, index) => head === b[index])
