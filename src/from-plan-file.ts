import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { resolve } from 'node:path'
import { shownPath } from './alembic/driver'
import { Failure, messageOf } from './failure'
import { settleLeftovers } from './leftovers'
import { digestOf } from './plan/digest'
import { NewEnumValues } from './plan/new-enum-values'
import { type Plan, sameHeads } from './plan/plan'
import { type PlannedDatabase, readPlanFile, writePlanFile } from './plan/plan-file'
import { nameHeads } from './plan/result'
import { obstaclesOf } from './plan/transactional'
import { placeOf, planOf, unfitOf } from './plan/unfit'
import { readHeads } from './postgres/heads'
import { reasonWithout } from './report/discretion'
import { allOf, type Step } from './step'
import type { Target } from './target'

/** How large a plan file may be, in bytes: it is held in memory several times over. */
const mostBytes = 256 * 1024 * 1024

/**
 * Writes the plan for a later apply. Where its SQL alone would not do what the scripts do there is none, and the log
 * says which revision is why.
 */
export async function writePlan(step: Step): Promise<void> {
  const { inputs, surroundings, result, targets } = step
  const { log, repository } = surroundings
  // Whoever signs plans wants them.
  const withoutIt = (told: (of: (why: string) => string) => string) => {
    if (inputs.planKey) log.warning(told(why => (inputs.hideLiterals ? reasonWithout(why) : why)))
    else log.info(told(why => why))
  }
  const unshown = targets.flatMap(({ state }) => state.plan!.revisions).find(({ notRenderable }) => notRenderable)
  if (unshown?.notRenderable) {
    const { line, reason } = unshown.notRenderable
    return withoutIt(of => `There is no plan file, because of ${placeOf(unshown, line)}: ${of(reason)}.`)
  }
  const computed = step.sources.find(({ values }) => !values)
  if (computed) {
    const file = shownPath(computed.file)
    return withoutIt(() => `There is no plan file, because of ${file}: only running it tells what it revises.`)
  }
  const found = await allOf(targets.map(async target => obstaclesOf(target.state.plan!, await newEnumValues(target))))
  const [obstacle] = found.flat()
  if (obstacle) {
    const { revision, line, why } = obstacle
    return withoutIt(of => `There is no plan file, because of ${placeOf(revision, line)}: ${of(why)}.`)
  }
  let databases: PlannedDatabase[]
  try {
    databases = await allOf(targets.map(target => plannedDatabase(target)))
  } catch (error) {
    // A preview that cannot be applied as it stands is a preview all the same.
    if (!(error instanceof Failure)) throw error
    return log.info(`There is no plan file. ${error.message} ${error.details.advice}`)
  }
  const { label, direction } = inputs
  const plan = { repository, label, digest: digestOf(result.digested!), direction, databases }
  const unfit = unfitOf(plan)
  if (unfit) return withoutIt(of => `There is no plan file, because ${of(unfit)}.`)
  const text = writePlanFile(plan, inputs.planKey)
  if (Buffer.byteLength(text) > mostBytes) return withoutIt(() => 'There is no plan file: it would be over 256 MiB.')
  const file = step.write('plan.json', text, 'The plan file')
  if (file) result.planFile = file
}

/**
 * Which new values of enums the plan's SQL can use when it is sent as it stands, outside of savepoints: on PostgreSQL 17
 * and later, those of a type that it makes itself (measured). A server that is not known counts as such, since an apply
 * of the file asks again.
 */
export async function newEnumValues({ state, client, enums }: Target): Promise<NewEnumValues> {
  if (obstaclesOf(state.plan!).length === 0 || !client) return new NewEnumValues('made', enums)
  const { rows } = await client.query<{ version: string }>("SELECT current_setting('server_version_num') AS version")
  return new NewEnumValues(Number(rows[0]?.version) >= 170_000 ? 'made' : 'committed', enums)
}

async function plannedDatabase(target: Target): Promise<PlannedDatabase> {
  const { state, client, versionTable, versionTableExists: exists } = target
  const { priorHeads, newHeads, revisions } = state.plan!
  const identity = client && (await target.identify())
  return {
    bind: state.bind,
    database: identity ? { name: identity.name, 'system-identifier': identity.system } : null,
    'version-table': { ...versionTable, exists },
    'prior-heads': priorHeads,
    'new-heads': newHeads,
    revisions: revisions.map(({ id, message, path, digest, statements = [] }) => {
      return { id, message, path, digest, statements: statements.map(({ sql, line, own }) => ({ sql, line, own })) }
    }),
  }
}

/**
 * Takes the batch of each database from the plan file, and the databases as they are now. A database that is at the
 * plan's target has nothing to do. Throws a Failure `plan-changed` where the file does not fit.
 */
export async function readPlan(step: Step): Promise<Map<string, Plan>> {
  const { inputs, surroundings, result } = step
  const { repository } = surroundings
  for (const target of step.targets) {
    target.versionTable = { name: inputs.versionTable || 'alembic_version', schema: inputs.versionTableSchema || null }
  }
  const { label, planKey: key, direction } = inputs
  const content = readPlanFile(textOf(inputs.planFile), { repository, label, key })
  const unfit = unfitOf(content)
  if (unfit) throw refused(`The plan file is none that this release would write, because ${unfit}.`)
  if (direction === 'downgrade' && content.direction === 'upgrade') {
    throw refused('The plan file is an upgrade, and this step is to be a downgrade.')
  }
  result.direction = content.direction
  step.match(
    content.databases.map(({ bind, 'version-table': { name, schema } }) => {
      return { bind, versionTable: name, versionTableSchema: schema }
    }),
  )
  if (step.asksDatabases) await settleLeftovers(step)
  const plans = step.targets.map(async target => {
    const planned = content.databases.find(({ bind }) => bind === target.state.bind)!
    const plan = planOf(planned, content.direction)
    const isThere = target.client ? await isAtTarget(target, planned) : false
    return [target.state.bind, isThere ? { ...plan, priorHeads: plan.newHeads, revisions: [] } : plan] as const
  })
  return new Map(await allOf(plans))
}

/** Throws a Failure where it is no regular file, or too large: a device or a pipe may have no end. */
function textOf(file: string): string {
  const { O_RDONLY, O_NONBLOCK = 0 } = constants
  let descriptor: number | undefined
  try {
    // A pipe that nobody writes to would be waited for.
    descriptor = openSync(resolve(file), O_RDONLY | O_NONBLOCK)
    if (!fstatSync(descriptor).isFile()) throw new Error('it is not a regular file')
    return decoded(bytesOf(descriptor))
  } catch (error) {
    if (error instanceof Failure) throw error
    throw new Failure('invalid-input', `The plan file ${file} cannot be read: ${messageOf(error)}.`, {
      advice: 'plan-file is the path of the file itself, from the workspace; download the artifact in an earlier step.',
      cause: error,
    })
  } finally {
    if (descriptor !== undefined) closeSync(descriptor)
  }
}

/** What the file says of its size is not asked: it may grow meanwhile. */
function bytesOf(descriptor: number): Buffer {
  const chunks: Buffer[] = []
  for (let size = 0; ; ) {
    const chunk = Buffer.allocUnsafe(1024 * 1024)
    const read = readSync(descriptor, chunk)
    if (read === 0) return Buffer.concat(chunks)
    chunks.push(chunk.subarray(0, read))
    size += read
    if (size > mostBytes) throw new Error('it is over 256 MiB')
  }
}

function decoded(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw refused('The plan file was altered: it is not UTF-8.')
  }
}

/** Whether nothing is left to do. Throws where the plan is for another database, or for other heads. */
async function isAtTarget(target: Target, planned: PlannedDatabase): Promise<boolean> {
  const { database, 'version-table': table, 'prior-heads': priorHeads, 'new-heads': newHeads } = planned
  const { heads, tableExists } = await readHeads(target.client!, target.versionTable)
  if (database) {
    const { name, system } = await target.identify()
    if (name !== database.name)
      throw refused(`The plan file is for the database ${database.name}, and this one is ${name}.`)
    if (system !== database['system-identifier']) {
      throw refused(
        `The plan file is for the database ${name} of another PostgreSQL cluster (system identifier ${database['system-identifier']}, and here ${system}).`,
      )
    }
  }
  if (sameHeads(heads, newHeads)) return true
  if (!sameHeads(heads, priorHeads)) {
    throw refused(`The plan file starts from ${nameHeads(priorHeads)}, and the database is at ${nameHeads(heads)}.`)
  }
  if (tableExists !== table.exists) {
    throw refused(
      tableExists
        ? `The plan file creates the version table ${table.name}, and the database has it already.`
        : `The plan file needs the version table ${table.name}, and the database has none.`,
    )
  }
  return false
}

const refused = (message: string): Failure =>
  new Failure('plan-changed', message, { advice: 'Make a new plan with mode: preview, and have that reviewed.' })
