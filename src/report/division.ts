import { plannedOf, type Result } from '../plan/result'
import { code } from './markdown'
import { isDivided, segmentLines } from './segments'
import type { Style } from './standing'
import { clip, count, messageLength, nameLength } from './words'

/** How ids and SQL are written in Markdown. */
export const markdown: Style = {
  id: text => code(clip(text, nameLength)),
  sql: text => code(clip(text, messageLength)),
}

/** The most segments that are listed. */
const mostSegments = 12

/** Where a batch can stop half-way, or has; nothing where it cannot. */
export function inSegments(result: Result): string {
  const [database] = plannedOf(result)
  if (!database || !isDivided(database.segments) || result.outcome === 'up-to-date') return ''
  const { plan, segments } = database
  const planned = segments.some(segment => segment.outcome === 'planned')
  const all = segmentLines(plan, segments, markdown).map((line, index) => `> ${index + 1}. ${line}`)
  const lines =
    all.length > mostSegments
      ? [...all.slice(0, mostSegments), `>\n> … ${count(all.length - mostSegments, 'more segment')}`]
      : all
  const told = planned
    ? 'PostgreSQL does not run this batch in one transaction. If it fails between two segments, it stops there:'
    : 'PostgreSQL does not run this batch in one transaction:'
  return [planned ? '> [!WARNING]' : '> [!NOTE]', `> ${told}`, ...lines].join('\n')
}
