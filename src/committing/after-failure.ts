import { asFailure, Failure } from '../failure'
import { Undecided } from '../opening/leftovers'
import type { Opened } from '../opening/open'
import { allOf, type Step } from '../opening/surroundings'
import type { Target } from '../opening/target'
import { type Outcome, stands } from '../plan/result'
import type { Loaded } from '../planning/load'
import type { Planned } from '../planning/plan'
import type { Found } from '../planning/prior-heads'
import { lossOf } from '../postgres/connection'
import { readHeads, type VersionTable } from '../postgres/heads'
import type { Running } from '../running/running'
import type { Tried } from '../trying/try'
import type { Ended, HeadsAtEnd } from './ended'

/** How far a step has come: the last of these is what a failure leaves. */
export type Reached = ({ stage: 'begun' } & Step) | Opened | Loaded | Found | Planned | Tried | Running

/**
 * What a failure leaves: the reason, the outcome, and the heads of every database as it holds them now, read on
 * connections of their own.
 */
export async function afterFailure(reached: Reached, error: unknown): Promise<Ended> {
  const { signal } = stepOf(reached).surroundings
  const fault = faultIn(signal)
  if (fault && error === fault) leaveInDoubt(reached)
  const failure = fault ?? failureFrom(reached, error, signal)
  const outcome = outcomeOf(reached, error)
  return { outcome, failure, heads: error instanceof Undecided ? new Map() : await headsNow(reached) }
}

/** The inputs and surroundings of a step, however far it has come. */
export const stepOf = (reached: Reached): Step => (reached.stage === 'running' ? reached.step : reached)

/** The fault of ours that has stopped the step; a cancellation is none. */
export const faultIn = ({ aborted, reason }: AbortSignal): Failure | undefined =>
  aborted && reason instanceof Failure ? reason : undefined

function failureFrom(reached: Reached, error: unknown, { aborted }: AbortSignal): Failure {
  const targets = targetsOf(reached)
  // A COMMIT that was sent is finished, cancelled or not.
  if (aborted && !targets.some(({ committing }) => committing)) {
    return new Failure('cancelled', 'The step was cancelled.')
  }
  return targets.map(({ client }) => lossOf(client, error)).find(Boolean) ?? asFailure(error)
}

/** The connections of the last try. */
function targetsOf(reached: Reached): Target[] {
  switch (reached.stage) {
    case 'begun':
      return []
    case 'opened':
      return reached.targets
    case 'running':
      return reached.courses.map(({ target }) => target)
    default:
      return reached.databases.flatMap(({ target }) => target ?? [])
  }
}

/** A fault has come between a COMMIT and what is known of it. */
function leaveInDoubt(reached: Reached): void {
  if (reached.stage !== 'running') return
  for (const course of reached.courses) {
    if (course.target.committing && course.fate.is === 'open') course.leaveInDoubt()
  }
}

function outcomeOf(reached: Reached, error: unknown): Outcome {
  if (error instanceof Undecided) return 'in-doubt'
  if (reached.stage !== 'running') return 'refused'
  const { courses, hasStarted } = reached
  const fates = courses.map(({ fate }) => fate.is).filter(fate => fate !== 'up-to-date')
  if (fates.includes('in-doubt')) return 'in-doubt'
  if (fates.length > 0 && fates.every(fate => fate === 'committed')) return 'applied'
  if (fates.includes('committed') || courses.some(({ segments }) => stands(segments))) return 'partly-applied'
  return hasStarted ? 'rolled-back' : 'refused'
}

/** The heads of each database that can be read; of one that is in doubt nobody can say. */
async function headsNow(reached: Reached): Promise<Map<string, HeadsAtEnd>> {
  const known = new Map<string, HeadsAtEnd>()
  const asked = placesOf(reached).map(async ({ bind, target, versionTable, expected }) => {
    try {
      const { heads } = await target.aside(client => readHeads(client, versionTable))
      known.set(bind, { heads, reread: true })
    } catch {
      if (expected) known.set(bind, { heads: expected, reread: false })
    }
  })
  await allOf(asked)
  return known
}

interface Place {
  bind: string
  target: Target
  versionTable: VersionTable
  /** The heads that it should have; undefined where they are not known. */
  expected: string[] | undefined
}

function placesOf(reached: Reached): Place[] {
  switch (reached.stage) {
    case 'begun':
      return []
    case 'opened': {
      const { versionTable, versionTableSchema, planFile } = reached.inputs
      // What it is called in a project, its env.py says.
      if (!planFile) return []
      const table = { name: versionTable || 'alembic_version', schema: versionTableSchema || null }
      return reached.targets.map(target => ({ bind: target.bind, target, versionTable: table, expected: undefined }))
    }
    case 'running':
      return reached.courses
        .filter(({ fate }) => fate.is !== 'in-doubt')
        .map(course => {
          const { bind, target, versionTable, fate } = course
          const expected = fate.is === 'committed' ? course.plan.newHeads : behindCommits(course)
          return { bind, target, versionTable, expected }
        })
    default:
      return reached.databases.flatMap(({ bind, target, versionTable, ...known }) => {
        return target ? [{ bind, target, versionTable, expected: headsBefore(known) }] : []
      })
  }
}

const behindCommits = ({ committed, rest, priorHeads }: Running['courses'][number]): string[] =>
  committed > 0 ? rest.priorHeads : priorHeads

const headsBefore = (known: { priorHeads?: string[]; plan?: { priorHeads: string[] } }): string[] | undefined =>
  known.plan?.priorHeads ?? known.priorHeads
