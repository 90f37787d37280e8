import { digestOf } from '../plan/digest'
import type { Result } from '../plan/result'
import { batchOf } from './batch'
import { inSegments } from './division'
import { failed } from './failed'
import { hiddenPlan } from './hidden'
import {
  historyWith,
  isForReview,
  isSamePlan,
  keptPlan,
  lifeOf,
  marked,
  otherThanPreviewed,
  type Previewed,
  unmarked,
} from './life'
import { code, printable, prose, proseWithCode } from './markdown'
import { opening } from './opening'
import { headline, howToGoOn, signOf } from './outcomes'
import { sectionsOf } from './sections'
import { tableOf } from './table'
import { destroyed, rewritten, warnings } from './warnings'
import { clip, count, paragraphLength } from './words'

/** How much fits, by GitHub's own measure. */
export interface Limit {
  most: number
  sizeOf(text: string): number
}

/** One comment, in characters. */
export const commentLimit: Limit = { most: 65_536, sizeOf: text => text.length }

/** The summary of one step, in bytes. */
export const summaryLimit: Limit = { most: 1024 * 1024, sizeOf: text => Buffer.byteLength(text) }

/** What there is to say besides the result. */
export interface Surroundings {
  /** The web page of the run, which has the log and the summary; empty in the summary itself. */
  run: string
  /** The text of the comment as it stands, empty for a new one; undefined in the summary. */
  standing?: string
  /** Why the comment on the pull request is not what it should be. */
  problem?: string
}

/** The hidden line by which a later run finds its comment. */
export const marker = (label: string): string => `<!-- atomic-upgrade ${encodeURIComponent(printable(label))} -->`

/**
 * The comment on the pull request, or the job summary: the same text, each cut at its own limit. Whole revisions are
 * dropped from the end until the rest fits; first their SQL, then their lines in the table. A comment also has a line
 * for each run, and an apply leaves the plan that was previewed in it as it stands.
 */
export function renderReport(result: Result, surroundings: Surroundings, limit: Limit): string {
  const { previewed, history } = lifeOf(surroundings.standing ?? '')
  const kept = result.mode === 'apply' ? previewed : undefined
  const hidden = kept ? kept.hidden : hiddenOf(result, limit)
  const attempts: Past[] = [
    { history, kept, hidden },
    ...(kept ? [{ history, kept, hidden: '', isBrief: true }] : []),
    { history, kept: undefined, hidden: '' },
  ]
  let text = ''
  for (const past of attempts) {
    text = cutToFit(result, surroundings, limit, past)
    if (limit.sizeOf(text) <= limit.most) break
  }
  return text
}

/** What a comment has beside the result of this run. */
interface Past {
  history: string[]
  /** The plan that was previewed, where this run leaves it as it is. */
  kept: Previewed | undefined
  hidden: string
  /** Without the details of the failure, which would leave no room for that plan. */
  isBrief?: boolean
}

/** The hidden plan; empty where there is none, or where it would take the place of what people read. */
function hiddenOf({ digested }: Result, { most, sizeOf }: Limit): string {
  const hidden = digested?.databases.some(({ revisions }) => revisions.length > 0) ? hiddenPlan(digested) : ''
  return sizeOf(hidden) <= most / 4 ? hidden : ''
}

function cutToFit(
  result: Result,
  { run, standing, problem = '' }: Surroundings,
  limit: Limit,
  { history, kept, hidden, isBrief = false }: Past,
): string {
  const batch = batchOf(result)
  const { length } = batch
  const digest = result.digested && isForReview(result) ? digestOf(result.digested) : ''
  const isComment = standing !== undefined
  const render = (rows: string[], sections: string[], note = ''): string => {
    const plan = [
      destroyed(result),
      rewritten(result),
      inSegments(result),
      rows.join('\n'),
      warnings(result),
      ...sections,
      note && `_${note}${whereItIs(result, run)}._`,
      digest && `Digest: ${code(digest)}`,
    ].filter(Boolean)
    const parts = [
      // The hidden plan in place of the empty line: an HTML comment needs none behind it.
      `${marker(result.label)}\n${hidden}\n### ${signOf(result)} Atomic Upgrade${result.label && `, ${prose(result.label)}`}: ${headline(result)}`,
      opening(result),
      result.failure && !isBrief && unmarked(failed(result.failure)),
      kept && otherThanPreviewed(result, kept),
      ...(isComment && digest ? marked(plan, digest) : plan.map(unmarked)),
      kept && keptPlan(kept),
      isComment && historyWith(result, history, run),
      howToGoOn(result, run),
      problem && `> [!WARNING]\n> ${proseWithCode(clip(problem, paragraphLength))}`,
    ]
    return `${parts.filter(Boolean).join('\n\n')}\n`
  }
  const { sizeOf } = limit
  // The outcome of an apply will need room beside the plan that is for review.
  const most = isComment && digest ? Math.floor((limit.most * 5) / 6) : limit.most
  // The longest of the notes.
  const withNote = (rows: string[]) => most - sizeOf(render(rows, [], unlisted(length) + unshown(length, length)))
  const rows = fitting(tableOf(result), '\n', { sizeOf, room: withNote([]) })
  if (rows.length < length) return render(rows, [], unlisted(length - rows.length))
  // The plan that was previewed has its SQL.
  if (kept && isSamePlan(result, kept.digest)) return render(rows, [])
  const room = most - sizeOf(render(rows, []))
  const sections = fitting(sectionsOf(batch), '\n\n', { sizeOf, room, roomWithNote: withNote(rows) })
  return render(rows, sections, unshown(length - sections.length, length))
}

interface Room {
  sizeOf: Limit['sizeOf']
  /** For all of them. */
  room: number
  /** When some are left out, which a note has to say. */
  roomWithNote?: number
}

/** The blocks that fit, from the first one on. */
function fitting(blocks: Iterable<string>, between: string, { sizeOf, room, roomWithNote = room }: Room): string[] {
  const kept: string[] = []
  let [used, enough] = [0, 0]
  for (const block of blocks) {
    used += sizeOf(block) + between.length
    if (used > room) return kept.slice(0, enough)
    kept.push(block)
    if (used <= roomWithNote) enough = kept.length
  }
  return kept
}

const unlisted = (missing: number): string =>
  `${count(missing, 'more revision')} ${missing === 1 ? 'is' : 'are'} not listed here, and no SQL is shown`

function unshown(missing: number, all: number): string {
  if (missing === 0) return ''
  return `The SQL of ${missing === all ? count(all, 'revision') : count(missing, 'more revision')} is not shown here`
}

function whereItIs({ sqlFile }: Result, run: string): string {
  const places = [run && `the [summary of the run](${run})`, sqlFile && 'the file of the output `sql-file`']
  const named = places.filter(Boolean).join(' and ')
  return named && `: see ${named}`
}
