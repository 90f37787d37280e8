import { abridged } from '../plan/abridged'
import { destructionsOf } from '../plan/destructive'
import { type KnownEnum, NewEnumValues } from '../plan/new-enum-values'
import { beforeItRuns, type Forecast, revisionsOf, type SegmentRun } from '../plan/result'
import { segmentsOf } from '../plan/segments'
import { separate } from '../plan/separate'
import { ownStatements } from '../plan/sql'
import { extendedTypes, obstaclesOf } from '../plan/transactional'
import type { Scripts } from '../planning/load'
import { type Batch, importedWith, type Planned, planIn } from '../planning/plan'
import { readEnums } from '../postgres/enums'
import { isDivided, segmentLines } from '../report/segments'
import { writeSql } from './files'
import { newEnumValues, type WithEnums, writePlan } from './plan-file'

/** A batch with its SQL, and what that tells. */
export interface TriedBatch extends Batch {
  forecast: Forecast
  /** The enums of the database that the batch adds values to. */
  enums: ReadonlyMap<string, KnownEnum>
  /** The segments that are to run; none where it may not run in segments. */
  segments: SegmentRun[]
}

/** What is known of the batch before it runs. */
export interface Tried extends Omit<Planned, 'stage' | 'databases'> {
  readonly stage: 'tried'
  readonly databases: TriedBatch[]
  /** Paths; empty for none. */
  readonly sqlFile: string
  readonly planFile: string
}

/**
 * Imports the scripts and renders the batch; what its SQL tells is then known, and the files of SQL and plan are written.
 * Throws a Failure.
 */
export async function tryBatch(planned: Planned): Promise<Tried> {
  const { inputs, source } = planned
  const isPending = revisionsOf(planned.databases).length > 0
  // A preview says also then whether they can be imported; in a job that may change the database nothing runs for nothing.
  const isRendered = source.is === 'scripts' && (isPending || inputs.mode === 'preview')
  const batches = isRendered ? await render(planned, source) : planned.databases
  const databases: TriedBatch[] = []
  for (const batch of batches) {
    const tried = await forecast(planned, { ...batch, enums: await enumsOf(batch) })
    describe(planned, tried, batches.length > 1)
    databases.push(tried)
  }
  const sqlFile = isPending ? writeSql(planned, batches) : ''
  const planFile = inputs.mode !== 'apply' && source.is === 'scripts' ? await writePlan(planned, databases) : ''
  return { ...planned, stage: 'tried', databases, sqlFile, planFile }
}

async function render({ inputs, databases }: Planned, scripts: Scripts): Promise<Batch[]> {
  const { direction, revision: target } = inputs
  const asked = databases.map(({ bind, plan, versionTableExists }) => [bind, { plan, versionTableExists }] as const)
  const imported = importedWith(databases, scripts)
  const request = { direction, target, databases: Object.fromEntries(asked), imported }
  const plans = await scripts.python.dry('Output of the dry run', run => run.render(request))
  return databases.map(batch => ({ ...batch, plan: separate(planIn(plans, batch.bind)) }))
}

async function enumsOf({ plan, target }: Batch): Promise<TriedBatch['enums']> {
  const extended = extendedTypes(plan)
  return target && extended.length > 0 ? await readEnums(target.client, extended) : new Map()
}

/** What the SQL of a batch tells. */
async function forecast({ inputs, source }: Planned, batch: WithEnums): Promise<TriedBatch> {
  const { plan, enums } = batch
  const isFile = source.is === 'plan-file'
  const obstacles = obstaclesOf(plan, isFile ? await newEnumValues(batch) : new NewEnumValues('committed', enums))
  const told = { obstacles, destructions: destructionsOf(plan), division: null }
  if (!inputs.segments || isFile) return { ...batch, forecast: told, segments: [] }
  const division = segmentsOf(plan, enums)
  // A rehearsal rolls back, which only one transaction can be.
  if (inputs.mode === 'rehearse') return { ...batch, forecast: { ...told, division }, segments: [] }
  return {
    ...batch,
    forecast: { ...told, obstacles: division.obstacles, division },
    segments: division.segments.map(segment => beforeItRuns(segment, 'planned')),
  }
}

/** Tells the log what each revision of a batch sends. */
function describe({ surroundings }: Planned, { bind, plan, segments }: TriedBatch, several: boolean): void {
  const { log } = surroundings
  const of = several ? `${bind}: ` : ''
  for (const revision of plan.revisions) {
    const { id, message, path, notRenderable } = revision
    const title = `${of}${id} ${message} (${path})`
    if (notRenderable) log.info(`${title}: not rendered, ${notRenderable.reason}`)
    else log.group(title, abridged(ownStatements(revision).map(({ sql }) => sql)))
  }
  if (isDivided(segments)) log.group(`PostgreSQL runs it in ${segments.length} segments`, segmentLines(plan, segments))
}
