import { type Digested, digestOf } from '../plan/digest'
import { type Result, revisionsOf } from '../plan/result'
import { changesBetween } from './changes'
import { planHiddenIn } from './hidden'
import { code, folded, prose } from './markdown'
import { headline, signOf } from './outcomes'
import { clip, paragraphLength } from './words'

/** What a comment tells of the runs before this one. */
export interface Life {
  previewed?: Previewed
  /** A line for each run that has ended, oldest first. */
  history: string[]
}

/** A plan as a preview has shown it. */
export interface Previewed {
  digest: string
  /** Its text as it stands in the comment, between its marks. */
  text: string
  /** The line of the comment that hides what it was made from; empty where it was too long. */
  hidden: string
}

const start = (digest: string): string => `<!-- atomic-upgrade-previewed ${digest} -->`
const end = '<!-- /atomic-upgrade-previewed -->'
const beforeHistory = '<!-- atomic-upgrade-history -->'
const aboutEarlier = '- earlier runs are not listed'

/** A line as `lineOf` makes it. */
const ours = /^- \S+ (\[\w+\]\([^\s()]+\)|\w+): [^[\]<>@#]*$/

/** The most runs that are listed. */
const mostRuns = 10

/** What stands in a comment. SQL in it may hold our marks: the first start, the last end and the last history are ours. */
export function lifeOf(body: string): Life {
  const text = body.replaceAll('\r\n', '\n')
  const [, shown, digest = ''] =
    /^(<!-- atomic-upgrade-previewed (\S+) -->$.*^<!-- \/atomic-upgrade-previewed -->)$/ms.exec(text) ?? []
  const [, hidden = ''] = /^.*\n(<!-- atomic-upgrade-plan .*)\n/.exec(text) ?? []
  const [tail = ''] = text.slice(text.lastIndexOf(`\n${beforeHistory}\n`)).split('\n\n')
  const history = tail.split('\n').filter(line => line === aboutEarlier || ours.test(line))
  return { history, ...(shown && { previewed: { digest, text: shown, hidden } }) }
}

/** Whether the last run that has ended was an apply that went well. */
export const wasApplied = (body: string): boolean => /^- ✅ \[?apply\b/.test(lifeOf(body).history.at(-1) ?? '')

/** Whether this run shows a plan for review: then it is the one that was previewed, and takes the place of any other. */
export const isForReview = ({ outcome }: Result): boolean => outcome === 'previewed' || outcome === 'rehearsed'

/** Puts the marks around a plan that is for review, so that a later run finds it. */
export const marked = (parts: string[], digest: string): string[] => [start(digest), ...parts, end]

/** Text that nobody can take for one of our marks. */
export const unmarked = (text: string): string => text.replaceAll(/^(\s*<!-)(?=- \/?atomic-upgrade-)/gm, '$1\u200b')

/** The plan that was previewed, folded and word for word. */
export const keptPlan = ({ text }: Previewed): string => folded('The plan as it was previewed', text)

/** Says what differs where the plan of this run is not the one that was previewed. */
export function otherThanPreviewed(result: Result, { digest, hidden }: Previewed): string {
  if (isSamePlan(result, digest)) return ''
  const digested = result.digested as Digested
  const known = planHiddenIn(hidden, digest)
  const clauses = known ? changesBetween(known, digested).clauses : []
  const what = clauses.length > 0 ? `: ${prose(clip(clauses.join('; '), paragraphLength))}` : ''
  return `> [!IMPORTANT]\n> This is not the plan that was previewed${what}. Its digest is ${code(digestOf(digested))}, and the digest of that one is ${code(digest)}.`
}

/** Whether this run has no other plan than that one. */
export const isSamePlan = (result: Result, digest: string): boolean =>
  !result.digested || revisionsOf(result.databases).length === 0 || digestOf(result.digested) === digest

/** The runs so far, this one included once it has ended; the same preview twice is one. */
export function historyWith(result: Result, before: string[], run: string): string {
  const lines = [...before]
  const line = lineOf(result, run)
  const last = lines.at(-1)
  const isRepeated =
    result.mode === 'apply' ? last === line : last !== undefined && withoutRun(last) === withoutRun(line)
  if (result.outcome && result.outcome !== 'up-to-date' && !isRepeated) lines.push(line)
  if (lines.length === 0) return ''
  const runs = lines.filter(each => each !== aboutEarlier)
  const listed = runs.length < lines.length || runs.length > mostRuns ? [aboutEarlier, ...runs.slice(-mostRuns)] : runs
  return [beforeHistory, ...listed].join('\n')
}

function lineOf(result: Result, run: string): string {
  const { mode, failure, digested } = result
  const name = run ? `[${mode}](${run})` : mode
  const why = failure ? ` (${failure.reason})` : ''
  const digest =
    digested && revisionsOf(result.databases).length > 0
      ? `, digest ${code(`${digestOf(digested).slice(0, 19)}…`)}`
      : ''
  return `- ${signOf(result)} ${name}: ${headline(result)}${why}${digest}`
}

const withoutRun = (line: string): string => line.replace(/\]\([^)]*\)/, '](')
