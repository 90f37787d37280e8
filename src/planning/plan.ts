import type { Step } from '../opening/surroundings'
import { allOf } from '../opening/surroundings'
import { type Digested, digestedOf } from '../plan/digest'
import type { Edited } from '../plan/edited'
import { below } from '../plan/heads'
import type { Direction, Plan } from '../plan/plan'
import { nameHeads } from '../plan/result'
import { count } from '../report/words'
import { planFrom } from './from-plan-file'
import type { Database, Scripts, Source } from './load'
import type { Found } from './prior-heads'

/** A database, and what is to be done with it. */
export interface Batch extends Database {
  plan: Plan
  versionTableExists: boolean
}

/** The batch of each database, without its SQL where it comes from scripts; of these none was imported. */
export interface Planned extends Step {
  readonly stage: 'planned'
  readonly direction: Direction
  readonly source: Source
  readonly databases: Batch[]
  readonly digested: Digested
  /** Scripts of the pull request's base that are not the same here. */
  readonly edited: Edited[]
}

/**
 * Resolves the batch of each database from its prior heads to the target, of scripts that are read and not run, or takes
 * it from the plan file; the log then has it. Throws a Failure.
 */
export async function planBatch(found: Found): Promise<Planned> {
  const { inputs, surroundings, direction, source, edited } = found
  const step = { inputs, surroundings }
  const databases =
    source.is === 'scripts'
      ? await resolveBatch(found, source)
      : await allOf(
          found.databases.map(async each => ({ ...batchOf(each), plan: await planFrom(source.content, each) })),
        )
  for (const database of databases) describe(step, database, databases.length > 1)
  const digested = digestedOf({ direction, databases })
  return { stage: 'planned', ...step, direction, source, edited, databases, digested }
}

async function resolveBatch({ inputs, databases }: Found, { python }: Scripts): Promise<Batch[]> {
  const { direction, revision: target } = inputs
  const asked = databases.map(({ bind, priorHeads: heads }) => [bind, { heads }] as const)
  const request = { direction, target, databases: Object.fromEntries(asked) }
  const plans = await python.dry('Output of the app', run => run.resolve(request))
  return databases.map(database => ({ ...batchOf(database), plan: planIn(plans, database.bind) }))
}

const batchOf = ({ bind, target, versionTable, versionTableExists }: Found['databases'][number]) => {
  return { bind, target, versionTable, versionTableExists }
}

/** The plan of a database that was asked for. */
export function planIn(plans: Map<string, Plan>, bind: string): Plan {
  const plan = plans.get(bind)
  if (!plan) throw new Error(`There is no plan of ${bind}`)
  return plan
}

/**
 * The scripts that are imported, by their ids: the batch, and what has run before it. Raw Alembic imports the others,
 * too; nothing of the batch can need what comes behind it, or beside it.
 */
export function importedWith(databases: { plan: Plan }[], { project }: Scripts): Set<string> {
  const heads = databases.flatMap(({ plan }) => plan.priorHeads)
  const batch = databases.flatMap(({ plan }) => plan.revisions.map(({ id }) => id))
  return new Set([...below(project.scripts, heads), ...batch])
}

/** Tells the log of the batch of one database. */
function describe({ surroundings }: Step, { bind, plan }: Batch, several: boolean): void {
  const { log } = surroundings
  const { direction, priorHeads, newHeads, revisions } = plan
  const of = several ? `${bind}: ` : ''
  if (revisions.length === 0) return log.info(`${of}The database is at ${nameHeads(priorHeads)}; nothing to do.`)
  const batch = count(revisions.length, 'revision')
  log.info(`${of}${direction} from ${nameHeads(priorHeads)} to ${nameHeads(newHeads)}: ${batch}`)
}
