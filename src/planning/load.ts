import type { Project } from '../alembic/project'
import { Failure } from '../failure'
import { severalInSegments } from '../inputs'
import type { Opened } from '../opening/open'
import type { Python } from '../opening/python'
import type { Step } from '../opening/surroundings'
import type { Target } from '../opening/target'
import type { Direction } from '../plan/plan'
import type { PlanContent } from '../plan/plan-file'
import type { VersionTable } from '../postgres/heads'
import { readPlan } from './plan-file'
import { Sources } from './sources'

/** The project's scripts, of which none is imported yet. */
export interface Scripts {
  is: 'scripts'
  python: Python
  project: Project
  sources: Sources
}

/** Where the batch comes from. */
export type Source = Scripts | { is: 'plan-file'; content: PlanContent }

/** A database that is migrated. */
export interface Database {
  bind: string
  /** undefined where it is not asked. */
  target: Target | undefined
  versionTable: VersionTable
}

/** What is migrated, and by what. */
export interface Loaded extends Step {
  readonly stage: 'loaded'
  readonly direction: Direction
  readonly source: Source
  readonly databases: Database[]
}

/**
 * Waits until Python has loaded the project, or reads the plan file; each of its databases is found among those of the
 * inputs. Throws a Failure.
 */
export async function load(opened: Opened): Promise<Loaded> {
  const { inputs, surroundings, python, targets } = opened
  const step = { inputs, surroundings }
  if (!python) {
    const content = readPlan(step)
    const known = content.databases.map(({ bind, 'version-table': { name, schema } }) => {
      return { bind, versionTable: { name, schema } }
    })
    const databases = match(opened, targets, known)
    return { stage: 'loaded', ...step, direction: content.direction, source: { is: 'plan-file', content }, databases }
  }
  const sources = new Sources(python.reader, python.trusted, inputs)
  const project = await python.load(files => sources.read(files))
  sources.complete()
  const known = project.databases.map(({ bind, versionTable: name, versionTableSchema: schema }) => {
    return { bind, versionTable: { name, schema } }
  })
  const databases = match(opened, targets, known)
  const source = { is: 'scripts', python, project, sources } as const
  return { stage: 'loaded', ...step, direction: inputs.direction, source, databases }
}

/**
 * Finds each database of the project among those of the inputs, in whose order they are. Throws a Failure
 * `invalid-input` that names the others.
 */
function match({ inputs }: Step, targets: Target[], known: Omit<Database, 'target'>[]): Database[] {
  if (inputs.segments && known.length > 1) throw severalInSegments()
  if (targets.length === 0) return known.map(each => ({ ...each, target: undefined }))
  const found = targets.flatMap(target => {
    const each = known.find(({ bind }) => bind === target.bind)
    return each ? { ...each, target } : []
  })
  const isFound = (bind: string) => found.some(each => each.bind === bind)
  const unknown = targets.flatMap(({ bind }) => (isFound(bind) ? [] : bind))
  const missing = known.flatMap(({ bind }) => (isFound(bind) ? [] : bind))
  if (unknown.length === 0 && missing.length === 0) return found
  const told = [
    unknown.length > 0 && `database-url names ${unknown.join(' and ')}, which the project does not migrate.`,
    missing.length > 0 && `database-url lacks ${missing.join(' and ')}, which the project migrates.`,
  ]
  throw new Failure('invalid-input', told.filter(Boolean).join(' '), {
    advice: `env.py migrates ${known.map(({ bind }) => bind).join(' and ')}: write one bind=postgresql://… a line for each.`,
  })
}
