import { type Digested, digestedOf } from '../../src/plan/digest'
import { type Forecast, type PlannedDatabase, plannedOf, type Result } from '../../src/plan/result'

/** What there is to say of a result of one database, flat; of everything else there is nothing. */
export type Flat = Partial<Omit<Result, 'databases'>> &
  Partial<Omit<PlannedDatabase, 'bind' | 'name' | 'outcome' | 'plan' | 'forecast'>> &
  Partial<Forecast> & { database: string; plan?: PlannedDatabase['plan'] }

export const nothing: Result = {
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

/** A database of which nothing is said besides. */
export function databaseOf(known: Partial<PlannedDatabase> & { plan: PlannedDatabase['plan'] }): PlannedDatabase {
  return {
    bind: 'default',
    name: '',
    priorHeads: null,
    newHeads: null,
    reread: false,
    outcome: null,
    doubt: null,
    forecast: { obstacles: [], destructions: [], division: null },
    runs: [],
    segments: [],
    standing: null,
    invalidIndex: '',
    ...known,
  }
}

export function nested(flat: Flat): Result {
  const { database: name, plan, obstacles = [], destructions = [], division = null, ...known } = flat
  const { priorHeads = null, newHeads = null, runs = [], segments = [], standing = null, invalidIndex = '' } = known
  const inDoubt = known.outcome === 'in-doubt' && plan
  const asPlanned = inDoubt ? ({ about: 'commit', from: priorHeads ?? [], to: plan.newHeads } as const) : null
  const { doubt = asPlanned, reread = known.outcome === 'applied' || known.outcome === 'partly-applied' } = known
  const { mode, direction, label, outcome, failure, digested, edited, uncovered, sqlFile, planFile, commentUrl } = {
    ...nothing,
    ...known,
  }
  const common = { bind: 'default', name, priorHeads, newHeads, reread, outcome: null, doubt }
  const forecast = { obstacles, destructions, division }
  const step = { mode, direction, label, outcome, failure, digested, edited, uncovered, sqlFile, planFile, commentUrl }
  const planned = plan && { ...common, plan, forecast, runs, segments, standing, invalidIndex }
  return { ...step, databases: [planned ?? { ...common, plan: null }] }
}

/** What was planned, as a step has it once it has planned. */
export function digestedIn(flat: Flat): Digested {
  const { direction, databases } = nested(flat)
  return digestedOf({ direction, databases: plannedOf({ databases }) })
}
