import type { Direction, Plan, Script } from '../plan/plan'

/** A script as it was read before any of them runs. */
export interface ReadScript {
  /** Its path as Alembic lists it. */
  file: string
  bytes: Buffer
  /** SHA-256 of the bytes, their line ends taken as LF; hexadecimal. */
  digest: string
  /** What Alembic takes from it; undefined where only running it tells. */
  values: ScriptValues | undefined
  doc: string
}

/** The names at the top of a script. */
export interface ScriptValues {
  revision: string
  down_revision: string | string[] | null
  branch_labels?: string | string[] | null
  depends_on?: string | string[] | null
}

/** Reads the files of scripts. */
export type ReadFiles = (files: string[]) => Promise<ReadScript[]>

/** What the project looks like once it is loaded, before any script is imported but those that only an import can read. */
export interface Project {
  scripts: Map<string, Script>
  heads: string[]
  /** The databases that env.py migrates, in its order; one named `default` for a project of one database. */
  databases: { bind: string; versionTable: string; versionTableSchema: string | null }[]
}

/** What each database, by bind, is to be brought to. */
export interface Request<Database> {
  direction: Direction
  target: string
  databases: Record<string, Database>
}

/** One for which scripts are imported: these, by their ids. Of the others Alembic is told what was read. */
export interface Importing<Database> extends Request<Database> {
  imported: Set<string>
}

export interface PriorHeads {
  /** Full ids as the database has them, or what the user named. */
  heads: string[]
}

/** What is to be rendered: a plan without its SQL. */
export interface Unrendered {
  plan: Plan
  versionTableExists: boolean
}
