import { resolve } from 'node:path'
import type { Project } from './alembic/driver'
import { nodeOf } from './alembic/reader'
import { editedScripts } from './edited'
import { newEnumValues, readPlan, writePlan } from './from-plan-file'
import { baseCommit, scriptsAt } from './git/base'
import { settleLeftovers } from './leftovers'
import { abridged } from './plan/abridged'
import { destructionsOf } from './plan/destructive'
import { digestedOf } from './plan/digest'
import { headsOf } from './plan/heads'
import { NewEnumValues } from './plan/new-enum-values'
import { isRendered, type Plan } from './plan/plan'
import { beforeItRuns, type DatabaseState, nameHeads, revisionsOf } from './plan/result'
import { segmentsOf } from './plan/segments'
import { separate } from './plan/separate'
import { ownStatements, sqlComment, sqlScript } from './plan/sql'
import { extendedTypes, obstaclesOf } from './plan/transactional'
import { readEnums } from './postgres/enums'
import { type Heads, readHeads } from './postgres/heads'
import { isDivided, segmentLines } from './report/segments'
import { count } from './report/words'
import { allOf, type Step } from './step'
import type { Target } from './target'

/**
 * Resolves the batch of each database from its prior heads to the target, of scripts that are read and not run, or takes
 * it from the plan file; the result and the log then have it.
 */
export async function planBatch(step: Step): Promise<void> {
  const { inputs, result } = step
  const plans = inputs.planFile ? await readPlan(step) : await planScripts(step)
  for (const target of step.targets) {
    const { state } = target
    const plan = plans.get(state.bind)!
    state.plan = plan
    state.priorHeads = plan.priorHeads
    state.newHeads = plan.newHeads
    describe(step, plan, state)
  }
  result.digested = digestedOf(result)
}

/** Imports the scripts and renders the batch; what its SQL tells is then known, and the files of SQL and plan are written. */
export async function renderBatch(step: Step): Promise<void> {
  const { inputs, result } = step
  const isPending = revisionsOf(result).length > 0
  // A preview says also then whether they can be imported; in a job that may change the database nothing runs for nothing.
  if (!inputs.planFile && (isPending || inputs.mode === 'preview')) await renderScripts(step)
  for (const target of step.targets) {
    const { state } = target
    const plan = state.plan!
    const extended = extendedTypes(plan)
    if (target.client && extended.length > 0) target.enums = await readEnums(target.client, extended)
    const values = inputs.planFile ? await newEnumValues(target) : new NewEnumValues('committed', target.enums)
    state.obstacles = obstaclesOf(plan, values)
    if (inputs.segments && !inputs.planFile) divide(step, plan, target)
    state.destructions = destructionsOf(plan)
    describeSql(step, plan, state)
  }
  if (isPending) writeSql(step)
  if (inputs.mode !== 'apply' && !inputs.planFile) await writePlan(step)
}

async function planScripts(step: Step): Promise<Map<string, Plan>> {
  const { inputs, driver } = step
  const { direction, revision: target, fromRevision } = inputs
  const project = await step.loadProject()
  step.match(project.databases)
  if (step.asksDatabases) await settleLeftovers(step)
  step.scripts = project.scripts
  if (inputs.mode !== 'apply') step.result.edited = await editedScripts(step)
  const given = step.asksDatabases ? undefined : await headsWithoutDatabase(step, project)
  const asked = step.targets.map(async target => {
    const { state, client, versionTable } = target
    const { heads, tableExists } = given ?? (await readHeads(client!, versionTable))
    target.versionTableExists = tableExists
    if (!fromRevision) state.priorHeads = state.newHeads = heads
    return [state.bind, { heads }] as const
  })
  const databases = Object.fromEntries(await allOf(asked))
  return await step.python(() => driver.resolve({ direction, target, databases }), 'Output of the app')
}

async function renderScripts(step: Step): Promise<void> {
  const { inputs, driver, targets } = step
  const { direction, revision: target } = inputs
  const asked = targets.map(({ state, versionTableExists }) => [state.bind, { plan: state.plan!, versionTableExists }])
  const request = { direction, target, databases: Object.fromEntries(asked), imported: step.imported }
  const plans = await step.python(() => driver.render(request), 'Output of the dry run')
  for (const { state } of targets) state.plan = separate(plans.get(state.bind)!)
}

/** The heads that the user names, else those of the scripts that a pull request builds on. */
async function headsWithoutDatabase({ inputs, surroundings, reader }: Step, project: Project): Promise<Heads> {
  const { fromRevision: named } = inputs
  if (named) return { heads: named, tableExists: named.length > 0 }
  const directory = resolve(inputs.workingDirectory)
  const scripts = await scriptsAt(directory, await baseCommit(directory, surroundings.base))
  const readings = await reader.read(scripts.map(({ source }) => Buffer.from(source)))
  const nodes = readings.flatMap(reading => nodeOf(reading) ?? [])
  // Other projects of the repository have histories of their own.
  const heads = headsOf(nodes.filter(({ id }) => project.scripts.has(id)))
  surroundings.log.info(`Without a database, the prior heads are those of the base: ${nameHeads(heads)}.`)
  return { heads, tableExists: heads.length > 0 }
}

function divide({ inputs }: Step, plan: Plan, { state, enums }: Target): void {
  state.division = segmentsOf(plan, enums)
  // A rehearsal rolls back, which only one transaction can be.
  if (inputs.mode === 'rehearse') return
  state.obstacles = state.division.obstacles
  state.segments = state.division.segments.map(segment => beforeItRuns(segment, 'planned'))
}

/** Tells the log of the batch of one database. */
function describe({ surroundings, targets }: Step, plan: Plan, state: DatabaseState): void {
  const { log } = surroundings
  const { direction, priorHeads, newHeads, revisions } = plan
  const of = targets.length > 1 ? `${state.bind}: ` : ''
  if (revisions.length === 0) return log.info(`${of}The database is at ${nameHeads(priorHeads)}; nothing to do.`)
  const batch = count(revisions.length, 'revision')
  log.info(`${of}${direction} from ${nameHeads(priorHeads)} to ${nameHeads(newHeads)}: ${batch}`)
}

/** Tells the log what each revision of it sends. */
function describeSql({ surroundings, targets }: Step, plan: Plan, state: DatabaseState): void {
  const { log } = surroundings
  const of = targets.length > 1 ? `${state.bind}: ` : ''
  for (const revision of plan.revisions) {
    const { id, message, path, notRenderable } = revision
    const title = `${of}${id} ${message} (${path})`
    if (notRenderable) log.info(`${title}: not rendered, ${notRenderable.reason}`)
    else log.group(title, abridged(ownStatements(revision).map(({ sql }) => sql)))
  }
  if (isDivided(state)) log.group(`PostgreSQL runs it in ${state.segments!.length} segments`, segmentLines(state))
}

function writeSql(step: Step): void {
  const { result } = step
  const plans = result.databases.flatMap(({ bind, plan }) => (plan ? [{ bind, plan }] : []))
  if (!plans.every(({ plan }) => isRendered(plan))) return
  const scripts = plans.filter(({ plan }) => plan.revisions.length > 0)
  const named = ({ bind, plan }: (typeof plans)[number]) =>
    plans.length > 1 ? `${sqlComment(`database ${bind}`)}\n${sqlScript(plan)}` : sqlScript(plan)
  const file = step.write('sql', scripts.map(named).join('\n'), 'The file of the SQL')
  if (file) result.sqlFile = file
}
