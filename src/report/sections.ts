import { abridged } from '../plan/abridged'
import { ownStatements } from '../plan/sql'
import type { Entry } from './batch'
import { placeOf } from './failed'
import { fenced, folded, html, prose } from './markdown'
import { clip, count, messageLength, nameLength, paragraphLength } from './words'

/** The SQL of each revision, folded. */
export function* sectionsOf(batch: Entry[]): Generator<string> {
  for (const entry of batch) yield section(entry)
}

function section({ bind, revision }: Entry): string {
  const where = bind && `${html(clip(bind, nameLength))}: `
  const id = `<code>${html(clip(revision.id, nameLength))}</code>`
  const title = `${where}${id} ${html(clip(revision.message, messageLength))}`
  const { notRenderable } = revision
  if (notRenderable) {
    const { reason, line } = notRenderable
    return folded(
      `${title} – not rendered`,
      `No SQL can be shown for this script: ${prose(clip(reason, paragraphLength))} (${placeOf({ file: revision.path, line })}).`,
    )
  }
  if (!revision.statements) return folded(`${title} – not rendered`, 'The step ended before its SQL was known.')
  const statements = ownStatements(revision)
  const sql = abridged(statements.map(({ sql }) => sql))
  const body = sql.length === 0 ? 'The script does nothing.' : fenced(sql.join('\n\n'), 'sql')
  return folded(`${title} – ${count(statements.length, 'statement')}`, body)
}
