import { readFileSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { Failure, messageOf } from './failure'
import { settleLeftovers } from './leftovers'
import { digestOf } from './plan/digest'
import { unfaithfulOf } from './plan/faithful'
import { type Plan, sameHeads } from './plan/plan'
import { type PlannedDatabase, readPlanFile, writePlanFile } from './plan/plan-file'
import { nameHeads } from './plan/result'
import { readHeads } from './postgres/heads'
import { allOf, type Step } from './step'
import type { Target } from './target'

/**
 * Writes the plan for a later apply. Where its SQL alone would not do what the scripts do there is none, and the log
 * says which revision is why.
 */
export async function writePlan(step: Step): Promise<void> {
  const { inputs, surroundings, result, targets } = step
  const [first] = targets.flatMap(({ state }) => unfaithfulOf(state.plan!))
  if (first) {
    const { revision, line, why } = first
    const told = `There is no plan file, because of revision ${revision.id} (${revision.path}${line ? `:${line}` : ''}): ${why}.`
    // Whoever signs plans wants them.
    return inputs.planKey ? surroundings.log.warning(told) : surroundings.log.info(told)
  }
  let databases: PlannedDatabase[]
  try {
    databases = await allOf(targets.map(target => plannedDatabase(target)))
  } catch (error) {
    // A preview that cannot be applied as it stands is a preview all the same.
    if (!(error instanceof Failure)) throw error
    return surroundings.log.info(`There is no plan file. ${error.message} ${error.details.advice}`)
  }
  const { label, direction } = inputs
  const { repository } = surroundings
  const plan = { repository, label, digest: digestOf(result.digested!), direction, databases }
  result.planFile = step.fileFor('plan.json')
  writeFileSync(result.planFile, writePlanFile(plan, inputs.planKey))
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

function textOf(file: string): string {
  try {
    return readFileSync(resolve(file), 'utf8')
  } catch (error) {
    throw new Failure('invalid-input', `The plan file ${file} cannot be read: ${messageOf(error)}.`, {
      advice: 'plan-file is the path of the file itself, from the workspace; download the artifact in an earlier step.',
      cause: error,
    })
  }
}

function planOf(planned: PlannedDatabase, direction: Plan['direction']): Plan {
  const { 'prior-heads': priorHeads, 'new-heads': newHeads, revisions } = planned
  const unknown = { down: [], dependsOn: [], labels: [], file: '', created: '' }
  return {
    direction,
    target: newHeads.join(',') || 'base',
    priorHeads,
    newHeads,
    revisions: revisions.map(revision => ({ ...unknown, ...revision })),
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
