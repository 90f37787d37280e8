import { shownPath } from '../alembic/shown-path'
import { Failure } from '../failure'
import { allOf } from '../opening/surroundings'
import { digestOf } from '../plan/digest'
import { type KnownEnum, NewEnumValues } from '../plan/new-enum-values'
import { mostBytes, type PlannedDatabase, writePlanFile } from '../plan/plan-file'
import { obstaclesOf } from '../plan/transactional'
import { placeOf, unfitOf } from '../plan/unfit'
import type { Batch, Planned } from '../planning/plan'
import { reasonWithout } from '../report/discretion'
import { write } from './files'

/** A batch with the enums of its database that it adds values to. */
export type WithEnums = Batch & { enums: ReadonlyMap<string, KnownEnum> }

/**
 * Writes the plan for a later apply, and resolves to its path. Where its SQL alone would not do what the scripts do
 * there is none, which is an empty path, and the log says which revision is why.
 */
export async function writePlan(planned: Planned, batches: WithEnums[]): Promise<string> {
  const { inputs, surroundings, direction, digested, source } = planned
  const { log, repository } = surroundings
  // Whoever signs plans wants them.
  const withoutIt = (told: (of: (why: string) => string) => string) => {
    if (inputs.planKey) log.warning(told(why => (inputs.hideLiterals ? reasonWithout(why) : why)))
    else log.info(told(why => why))
    return ''
  }
  const unshown = batches.flatMap(({ plan }) => plan.revisions).find(({ notRenderable }) => notRenderable)
  if (unshown?.notRenderable) {
    const { line, reason } = unshown.notRenderable
    return withoutIt(of => `There is no plan file, because of ${placeOf(unshown, line)}: ${of(reason)}.`)
  }
  const computed = source.is === 'scripts' && source.sources.all.find(({ values }) => !values)
  if (computed) {
    const file = shownPath(computed.file)
    return withoutIt(() => `There is no plan file, because of ${file}: only running it tells what it revises.`)
  }
  const found = await allOf(batches.map(async batch => obstaclesOf(batch.plan, await newEnumValues(batch))))
  const [obstacle] = found.flat()
  if (obstacle) {
    const { revision, line, why } = obstacle
    return withoutIt(of => `There is no plan file, because of ${placeOf(revision, line)}: ${of(why)}.`)
  }
  let databases: PlannedDatabase[]
  try {
    databases = await allOf(batches.map(plannedDatabase))
  } catch (error) {
    // A preview that cannot be applied as it stands is a preview all the same.
    if (!(error instanceof Failure)) throw error
    log.info(`There is no plan file. ${error.message} ${error.details.advice}`)
    return ''
  }
  const { label } = inputs
  const plan = { repository, label, digest: digestOf(digested), direction, databases }
  const unfit = unfitOf(plan)
  if (unfit) return withoutIt(of => `There is no plan file, because ${of(unfit)}.`)
  const text = writePlanFile(plan, inputs.planKey)
  if (Buffer.byteLength(text) > mostBytes) return withoutIt(() => 'There is no plan file: it would be over 256 MiB.')
  return write(planned, 'plan.json', text, 'The plan file')
}

/**
 * Which new values of enums the plan's SQL can use when it is sent as it stands, outside of savepoints: on PostgreSQL 17
 * and later, those of a type that it makes itself (measured). A server that is not known counts as such, since an apply
 * of the file asks again.
 */
export async function newEnumValues({ plan, target, enums }: WithEnums): Promise<NewEnumValues> {
  if (obstaclesOf(plan).length === 0 || !target) return new NewEnumValues('made', enums)
  const { rows } = await target.client.query<{ version: string }>(
    "SELECT current_setting('server_version_num') AS version",
  )
  return new NewEnumValues(Number(rows[0]?.version) >= 170_000 ? 'made' : 'committed', enums)
}

async function plannedDatabase(batch: Batch): Promise<PlannedDatabase> {
  const { bind, target, versionTable, versionTableExists: exists } = batch
  const { priorHeads, newHeads, revisions } = batch.plan
  const identity = await target?.identify()
  return {
    bind,
    database: identity ? { name: identity.name, 'system-identifier': identity.system } : null,
    'version-table': { ...versionTable, exists },
    'prior-heads': priorHeads,
    'new-heads': newHeads,
    revisions: revisions.map(({ id, message, path, digest, statements = [] }) => {
      return { id, message, path, digest, statements: statements.map(({ sql, line, own }) => ({ sql, line, own })) }
    }),
  }
}
