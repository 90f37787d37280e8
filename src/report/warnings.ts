import type { Edited } from '../plan/edited'
import { plannedOf, type Result } from '../plan/result'
import type { Obstacle } from '../plan/transactional'
import { batchOf, type Entry } from './batch'
import { placeOf } from './failed'
import { code, prose } from './markdown'
import { halvesOf } from './segments'
import { clip, count, messageLength, nameLength, paragraphLength } from './words'

/** The most lines of one warning. */
const mostListed = 10

/** What a reviewer has to see first. */
export function destroyed(result: Result): string {
  const { databases, outcome } = result
  // What was done, or will not be, needs no warning any more.
  if (outcome !== null && outcome !== 'previewed' && outcome !== 'rehearsed') return ''
  const found = plannedOf(result).flatMap(({ bind, forecast }) =>
    forecast.destructions.map(({ revision, line, what }) => {
      const where = databases.length > 1 ? `${prose(clip(bind, nameLength))}, ` : ''
      const at = placeOf({ file: revision.path, line })
      return `${where}${code(clip(revision.id, nameLength))} ${prose(clip(what, messageLength))} (${at})`
    }),
  )
  if (found.length === 0) return ''
  const lines = listed(found).map(line => `> - ${line}`)
  return ['> [!CAUTION]', '> This batch destroys data or changes all of it:', ...lines].join('\n')
}

const changedScripts =
  'Scripts that the base branch has are not the same here. Databases that ran them will not run them again:'

/** What is said in the log of scripts that databases will not run again. */
export const editedTold = (edited: Edited[]): string =>
  [changedScripts, ...listed(edited.map(({ id, path, isGone }) => `${id} is ${became(isGone)} (${path})`))].join('\n')

const older = {
  edited: 'Scripts that have run are not what they were at every commit that added the script of the database’s head.',
  later:
    'Scripts below the database’s head were not there when its script was added: they came later, or are not committed.',
}

/** What is said of older scripts that are imported with the batch and are not what they were, or were not there. */
export const olderTold = (what: keyof typeof older, scripts: { id: string; path: string }[]): string =>
  [
    `${older[what]} They do not run again, but they are imported with the others:`,
    ...listed(scripts.map(({ id, path }) => `${id} (${path})`)),
  ].join('\n')

/** What is said of scripts of the base, in Markdown. */
export function rewritten({ edited }: Result): string {
  if (edited.length === 0) return ''
  const lines = edited.map(({ id, path, isGone }) => {
    return `${code(clip(id, nameLength))} is ${became(isGone)} (${placeOf({ file: path, line: null })})`
  })
  return ['> [!WARNING]', `> ${changedScripts}`, ...listed(lines).map(line => `> - ${line}`)].join('\n')
}

const became = (isGone: boolean): string => (isGone ? 'gone' : 'changed')

/** The first of them, and how many there are besides. */
function listed(lines: string[]): string[] {
  const more = lines.length - mostListed
  return more > 0 ? [...lines.slice(0, mostListed), `and ${more} more`] : lines
}

/** What an apply will refuse, what is not covered, and what cannot be shown. */
export function warnings(result: Result): string {
  const { failure, outcome } = result
  const databases = plannedOf(result)
  const uncovered = result.uncovered ? [`> [!NOTE]\n> ${prose(result.uncovered)}`] : []
  // What ran needs no rehearsal.
  if (databases.some(({ runs }) => runs.length > 0)) return uncovered.join('')
  const refused = failure ? [] : databases.flatMap(({ forecast }) => forecast.obstacles.map(obstacle))
  const halves =
    outcome === 'previewed' ? halvesOf(result).map(told => `> [!WARNING]\n> ${prose(clip(told, paragraphLength))}`) : []
  return [...uncovered, ...refused, ...halves, unseenNote(batchOf(result))].filter(Boolean).join('\n\n')
}

/** A preview says beforehand what an apply will refuse. */
function obstacle({ revision, line, text, why }: Obstacle): string {
  const at = placeOf({ file: revision.path, line })
  const statement = code(clip(text, messageLength))
  return `> [!WARNING]\n> An apply will refuse revision ${code(clip(revision.id, nameLength))}: ${prose(why)} (${at}). ${statement}`
}

function unseenNote(batch: Entry[]): string {
  const unseen = batch.filter(({ revision }) => revision.notRenderable)
  if (unseen.length === 0) return ''
  return `> [!NOTE]\n> The SQL of ${count(unseen.length, 'script')} is only known when it runs, for the reason given below. \`mode: rehearse\` runs the batch for real and rolls it back.`
}
