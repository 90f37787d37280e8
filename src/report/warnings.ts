import type { Result } from '../plan/result'
import type { Obstacle } from '../plan/transactional'
import { batchOf, type Entry } from './batch'
import { placeOf } from './failed'
import { code, prose } from './markdown'
import { clip, count, messageLength, nameLength } from './words'

/** The most destructions that are listed. */
const mostListed = 10

/** What a reviewer has to see first. */
export function destroyed({ databases, outcome }: Result): string {
  // What was done, or will not be, needs no warning any more.
  if (outcome !== undefined && outcome !== 'previewed' && outcome !== 'rehearsed') return ''
  const found = databases.flatMap(({ bind, destructions = [] }) =>
    destructions.map(({ revision, line, what }) => {
      const where = databases.length > 1 ? `${prose(clip(bind, nameLength))}, ` : ''
      const at = placeOf({ file: revision.path, line })
      return `> - ${where}${code(clip(revision.id, nameLength))} ${prose(clip(what, messageLength))} (${at})`
    }),
  )
  if (found.length === 0) return ''
  const more = found.length - mostListed
  const lines = more > 0 ? [...found.slice(0, mostListed), `> - and ${count(more, 'more statement')}`] : found
  return ['> [!CAUTION]', '> This batch destroys data or changes all of it:', ...lines].join('\n')
}

/** What an apply will refuse, what is not covered, and what cannot be shown. */
export function warnings(result: Result, shown: (sql: string) => string): string {
  const { databases, failure } = result
  const uncovered = result.uncovered ? [`> [!NOTE]\n> ${prose(result.uncovered)}`] : []
  // What ran needs no rehearsal.
  if (databases.some(({ runs }) => runs.length > 0)) return uncovered.join('')
  const refused = failure ? [] : databases.flatMap(({ obstacles = [] }) => obstacles.map(each => obstacle(each, shown)))
  return [...uncovered, ...refused, unseenNote(batchOf(result))].filter(Boolean).join('\n\n')
}

/** A preview says beforehand what an apply will refuse. */
function obstacle({ revision, line, text, why }: Obstacle, shown: (sql: string) => string): string {
  const at = placeOf({ file: revision.path, line })
  const statement = code(clip(shown(text), messageLength))
  return `> [!WARNING]\n> An apply will refuse revision ${code(clip(revision.id, nameLength))}: ${prose(why)} (${at}). ${statement}`
}

function unseenNote(batch: Entry[]): string {
  const unseen = batch.filter(({ revision }) => revision.notRenderable)
  if (unseen.length === 0) return ''
  return `> [!NOTE]\n> The SQL of ${count(unseen.length, 'script')} is only known when it runs, for the reason given below. \`mode: rehearse\` runs the batch for real and rolls it back.`
}
