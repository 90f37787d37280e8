import { sameHeads } from '../plan/plan'
import { type DatabaseResult, type Outcome, plannedOf, type Result, revisionsOf } from '../plan/result'
import { besidesHeads, type Style } from './standing'
import { count } from './words'

/** One database as it is spoken of: its heads by `name`, as text or code. */
export interface Spoken {
  state: DatabaseResult
  result: Result
  /** `The database`, by its name where there are several. */
  the: string
  name(heads: string[]): string
  style: Style | undefined
}

/** Between which heads a batch goes, and how; as `from base to a1 in one transaction: all of it or nothing`. */
export interface Journey {
  prior: string
  target: string
  /** Whether it is at the batch's new heads. */
  isThere: boolean
  /** In how many transactions. */
  one: string
  whole: string
}

/** What is said of an outcome, wherever it is told. */
interface Words {
  /** By which one sees it from afar. */
  sign(result: Result): string
  /** One line that says what will happen, or what has. */
  headline(result: Result): string
  /** The state of one database in one sentence; empty where there is none to speak of. */
  state(spoken: Spoken): string
  /** That sentence with where the batch goes, or went; by itself where that is left out. */
  opening?(state: string, journey: Journey, spoken: Spoken): string
  /** What to do next. */
  next(run: string, result: Result): string
}

/** Until there is an outcome. */
type Told = Outcome | 'under-way'

const toldOf = (outcome: Outcome | null): Told => outcome ?? 'under-way'

const wasCancelled = ({ failure }: Result): boolean => failure?.reason === 'cancelled'
const stopped = (result: Result): string => (wasCancelled(result) ? '⏹️' : '❌')
const targeted = (state: string, { target }: Journey): string => `${state} The target was ${target}.`.trimStart()
const seeLog = (run: string): string => run && `See the [log of the run](${run}).`
const lower = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1)
const notRead = ' (not re-read: it could not be reached)'
const unread = ({ reread }: DatabaseResult): string => (reread ? '' : notRead)
const at = ({ the, name, state }: Spoken): string => `${the} is at ${name(state.newHeads ?? [])}`
const before = ({ name, state }: Spoken): string => name(state.priorHeads ?? [])
const sentences = (...all: string[]): string => all.filter(Boolean).join(' ')

/** `upgrading by 2 revisions`. */
const batchOf = (result: Result): string => {
  const on = result.databases.length > 1 ? ` on ${count(result.databases.length, 'database')}` : ''
  return `by ${count(revisionsOf(result.databases).length, 'revision')}${on}`
}

/** The heads after a step that has changed nothing, or what is known of them. */
function unchanged(spoken: Spoken, untouched: string): string {
  const { state, the } = spoken
  const { newHeads, priorHeads, name, reread } = state
  if (!newHeads) return `${the} ${untouched}.`
  if (!name) return ''
  return priorHeads && sameHeads(newHeads, priorHeads)
    ? `${at(spoken)}, as before${reread ? '' : notRead}.`
    : `${the} is now at ${spoken.name(newHeads)}; this step changed nothing in it.`
}

/** Each outcome, in every place where it is told. */
const outcomes: Record<Told, Words> = {
  'under-way': {
    sign: () => '⏳',
    headline: result => {
      const doing = result.direction === 'downgrade' ? 'downgrading' : 'upgrading'
      return result.mode === 'rehearse'
        ? `rehearsing the ${result.direction} ${batchOf(result)}`
        : `${doing} ${batchOf(result)}`
    },
    state: spoken => `${spoken.the} is at ${before(spoken)}.`,
    opening: (state, { target, whole }, { result }) =>
      result.mode === 'rehearse'
        ? `${state} This run takes it to ${target} in one transaction, and then rolls that back.`
        : `${state} This run brings it to ${target} ${whole}.`,
    next: run => `It is running now${run && `: see the [log of the run](${run})`}.`,
  },
  'up-to-date': {
    sign: () => '✅',
    headline: () => 'nothing to do',
    state: spoken =>
      spoken.state.name ? `${at(spoken)}.` : `No database was asked; the batch from ${before(spoken)} is empty.`,
    next: () => '',
  },
  previewed: {
    sign: () => '📋',
    headline: result => `${result.direction} ${batchOf(result)}`,
    state: spoken =>
      spoken.state.name
        ? `${spoken.the} is at ${before(spoken)}; nothing was written to it.`
        : 'No database was asked.',
    opening: (state, { prior, target, whole }, spoken) =>
      spoken.state.name
        ? `${state} An apply brings it to ${target} ${whole}.`
        : `From ${prior} to ${target} ${whole}. ${state}`,
    next: () =>
      'To apply it, run this action with `mode: apply`; `mode: rehearse` first runs it for real and rolls it back.',
  },
  rehearsed: {
    sign: () => '✅',
    headline: result => `${result.direction} ${batchOf(result)} rehearsed, nothing of it kept`,
    state: spoken => `${spoken.the} is at ${before(spoken)}, as before.`,
    opening: (state, { prior, target }) =>
      `The batch ran from ${prior} to ${target} in one transaction, which was rolled back. ${state}`,
    next: () => 'To apply it, run this action with `mode: apply`.',
  },
  applied: {
    sign: ({ failure }) => (failure ? '⚠️' : '✅'),
    headline: result => {
      const done = result.direction === 'downgrade' ? 'downgraded' : 'upgraded'
      return result.failure ? 'committed, and not at its target' : `${done} ${batchOf(result)}`
    },
    state: spoken => `${at(spoken)}${unread(spoken.state)}.`,
    opening: (state, { prior, target, isThere, one }, { result, state: { reread } }) => {
      if (!isThere) return `${state} The target was ${target}.`
      const isAlone = result.databases.length === 1 && reread
      return isAlone ? `The database went from ${prior} to ${target} ${one}.` : `${state} It was at ${prior}.`
    },
    next: (run, { failure }) => (failure ? seeLog(run) : ''),
  },
  'rolled-back': {
    sign: stopped,
    headline: result => `${wasCancelled(result) ? 'cancelled' : 'failed'}, everything rolled back`,
    state: spoken => unchanged(spoken, 'is as it was before'),
    opening: targeted,
    next: seeLog,
  },
  refused: {
    sign: stopped,
    headline: result => (wasCancelled(result) ? 'cancelled before anything ran' : 'refused, nothing ran'),
    state: spoken => unchanged(spoken, 'was not touched'),
    opening: targeted,
    next: seeLog,
  },
  'in-doubt': {
    sign: () => '⚠️',
    headline: () => 'in doubt, no answer to the COMMIT',
    state: ({ state, the, name, style }) => {
      const { doubt } = state
      if (!doubt) return `What is in ${lower(the)} is not known.`
      if (doubt.about === 'prepared') return `${the} holds the prepared transaction ${doubt.gid} of an earlier run.`
      const { from, to } = doubt
      const where = sameHeads(from, to) ? `at ${name(from)}` : `wholly at ${name(from)} or wholly at ${name(to)}`
      return sentences(`${the} is ${where}.`, besidesHeads(state, style))
    },
    next: seeLog,
  },
  'partly-applied': {
    sign: () => '⚠️',
    headline: result => {
      const segments = plannedOf(result)[0]?.segments ?? []
      if (segments.length === 0) return 'partly applied, some databases have moved and others have not'
      const there = segments.filter(({ outcome }) => outcome === 'applied').length
      const why = wasCancelled(result) ? 'cancelled' : 'failed'
      return `${why}, ${there} of ${count(segments.length, 'segment')} committed`
    },
    state: spoken => {
      return sentences(`${at(spoken)}${unread(spoken.state)}.`, besidesHeads(spoken.state, spoken.style))
    },
    opening: targeted,
    next: seeLog,
  },
}

/** The sign of an outcome. */
export const signOf = (result: Result): string => outcomes[toldOf(result.outcome)].sign(result)

/** One line that says what will happen, or what has. */
export const headline = (result: Result): string => outcomes[toldOf(result.outcome)].headline(result)

/** The last line: where to look, or what to run next; `run` is the web page of the run, empty where there is none. */
export const howToGoOn = (result: Result, run: string): string => outcomes[toldOf(result.outcome)].next(run, result)

/** The state of one database whose outcome that is, in one sentence; empty where there is none to speak of. */
export const stateSaid = (outcome: Outcome | null, spoken: Spoken): string => outcomes[toldOf(outcome)].state(spoken)

/** The same with where the batch goes, or went. */
export function openingSaid(outcome: Outcome | null, journey: Journey, spoken: Spoken): string {
  const words = outcomes[toldOf(outcome)]
  const state = words.state(spoken)
  return words.opening?.(state, journey, spoken) ?? state
}
