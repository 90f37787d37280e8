import { type Reached, stepOf } from '../committing/after-failure'
import type { Ended } from '../committing/ended'
import { Failure } from '../failure'
import type { Inputs } from '../inputs'
import { Undecided } from '../opening/leftovers'
import { onlyBind } from '../opening/surroundings'
import { sameHeads } from '../plan/plan'
import { type DatabaseResult, nameHeads, type PlannedDatabase, type Result } from '../plan/result'
import type { Batch } from '../planning/plan'
import { goingOn } from '../report/segments'
import type { Course, Fate } from '../running/course'
import type { TriedBatch } from '../trying/try'

/** A step that has failed before its inputs could be read. */
export function resultOfNothing(failure: Failure): Result {
  return { ...beginning, outcome: 'refused', failure }
}

const beginning: Result = {
  mode: 'preview',
  direction: 'upgrade',
  label: '',
  databases: [],
  outcome: null,
  failure: null,
  digested: null,
  edited: [],
  uncovered: '',
  sqlFile: '',
  planFile: '',
  commentUrl: '',
}

/** The step for people: as far as it has come, and how it has ended; null while it is under way. */
export function resultOf(reached: Reached, ended: Ended | null, uncovered = ''): Result {
  const { inputs } = stepOf(reached)
  const { mode, label } = inputs
  const tried = reached.stage === 'running' ? reached.tried : reached
  const result: Result = {
    ...beginning,
    mode,
    label,
    direction: 'direction' in tried ? tried.direction : inputs.direction,
    ...('digested' in tried && { digested: tried.digested }),
    ...('edited' in tried && { edited: tried.edited }),
    ...(tried.stage === 'tried' && { sqlFile: tried.sqlFile, planFile: tried.planFile }),
    uncovered: reached.stage === 'running' ? reached.uncovered : uncovered,
    databases: databasesOf(reached, ended),
    outcome: ended?.outcome ?? null,
    failure: ended?.failure ?? null,
  }
  const { failure } = result
  return failure ? { ...result, failure: goingOn(driftOf(result, failure), result) } : result
}

function databasesOf(reached: Reached, ended: Ended | null): DatabaseResult[] {
  switch (reached.stage) {
    case 'begun':
    case 'opened':
      return bindsOf(reached.inputs).map(bind => {
        const target = reached.stage === 'opened' ? reached.targets.find(each => each.bind === bind) : undefined
        return unplanned({ bind, target }, null, ended)
      })
    case 'loaded':
      return reached.databases.map(database => unplanned(database, null, ended))
    case 'found': {
      const isNamed = reached.inputs.fromRevision !== undefined
      return reached.databases.map(each => {
        const isKnown = each.target || (reached.source.is === 'scripts' && !isNamed)
        return unplanned(each, isKnown ? each.priorHeads : null, ended)
      })
    }
    case 'planned':
    case 'tried':
      return reached.databases.map(batch => planned(batch, ended))
    case 'running':
      return reached.courses.map((course, index) => ran(course, reached.tried.databases[index], ended))
  }
}

const bindsOf = ({ databases }: Inputs): string[] => (databases.size > 0 ? [...databases.keys()] : [onlyBind])

function unplanned(
  { bind, target }: Pick<Batch, 'bind' | 'target'>,
  priorHeads: string[] | null,
  ended: Ended | null,
): DatabaseResult {
  const { heads = priorHeads, reread = false } = ended?.heads.get(bind) ?? {}
  const common = {
    bind,
    name: target?.name ?? '',
    plan: null,
    priorHeads: priorHeads ?? heads,
    newHeads: heads,
    reread,
  }
  if (!(ended?.failure instanceof Undecided)) return { ...common, outcome: null, doubt: null }
  const gid = ended.failure.left.get(bind)
  // Behind the locks of what is prepared the heads may not be readable.
  if (gid === undefined) return { ...common, outcome: 'refused', doubt: null }
  return { ...common, newHeads: null, outcome: 'in-doubt', doubt: { about: 'prepared', gid } }
}

function planned(batch: Batch | TriedBatch, ended: Ended | null): PlannedDatabase {
  const { bind, target, plan } = batch
  const failed = ended?.failure ? plan.priorHeads : plan.newHeads
  const { heads, reread } = ended?.heads.get(bind) ?? { heads: failed, reread: false }
  return {
    bind,
    name: target?.name ?? '',
    plan,
    priorHeads: plan.priorHeads,
    newHeads: heads,
    reread,
    outcome: null,
    doubt: null,
    forecast: 'forecast' in batch ? batch.forecast : { obstacles: [], destructions: [], division: null },
    segments: 'segments' in batch ? batch.segments : [],
    runs: [],
    standing: null,
    invalidIndex: '',
  }
}

function ran(course: Course, batch: TriedBatch | undefined, ended: Ended | null): PlannedDatabase {
  const { bind, target, plan, fate, priorHeads, runs, segments, standing, invalidIndex } = course
  const known = ended?.heads.get(bind)
  const { outcome, doubt } = becameOf(course, ended)
  return {
    bind,
    name: target.name,
    plan,
    priorHeads,
    newHeads:
      outcome === 'in-doubt'
        ? null
        : (known?.heads ?? (fate.is === 'open' && ended?.failure ? priorHeads : plan.newHeads)),
    reread: known?.reread ?? false,
    outcome,
    doubt,
    forecast: batch?.forecast ?? { obstacles: [], destructions: [], division: null },
    segments,
    runs,
    standing,
    invalidIndex,
  }
}

function becameOf({ bind, fate }: Course, ended: Ended | null): Pick<PlannedDatabase, 'outcome' | 'doubt'> {
  if (ended?.failure instanceof Undecided) {
    const gid = ended.failure.left.get(bind)
    return gid === undefined
      ? { outcome: 'refused', doubt: null }
      : { outcome: 'in-doubt', doubt: { about: 'prepared', gid } }
  }
  if (fate.is !== 'in-doubt') return { outcome: outcomes[fate.is], doubt: null }
  return { outcome: 'in-doubt', doubt: { about: 'commit', from: fate.from, to: fate.to } }
}

const outcomes = {
  open: null,
  'up-to-date': 'up-to-date',
  committed: 'applied',
  'rolled-back': 'rolled-back',
  'in-doubt': 'in-doubt',
} as const satisfies Record<Fate['is'], DatabaseResult['outcome']>

/** The batch failed while somebody moved the heads who does not take the deploy lock, such as a raw `flask db upgrade`. */
function driftOf({ outcome, databases }: Result, failure: Failure): Failure {
  if (outcome !== 'rolled-back' || failure.reason !== 'migration-failed') return failure
  for (const { priorHeads, newHeads, reread } of databases) {
    if (!reread || !priorHeads || !newHeads || sameHeads(priorHeads, newHeads)) continue
    const moved = `The database was moved from ${nameHeads(priorHeads)} to ${nameHeads(newHeads)} while the batch ran.`
    return new Failure('drift', `${moved} ${failure.message}`, {
      ...failure.details,
      advice:
        'Let nobody else migrate this database at the same time, and run the step again: it will plan from the new heads.',
    })
  }
  return failure
}
