import { abridged } from '../plan/abridged'
import { ownStatements } from '../plan/sql'
import type { Entry } from './batch'
import { placeOf } from './failed'
import { fenced, folded, html, prose } from './markdown'
import { clip, count, messageLength, nameLength, paragraphLength } from './words'

/** The SQL of each revision, folded; `shown` is what is shown of a statement. */
export function* sectionsOf(batch: Entry[], shown: (sql: string) => string): Generator<string> {
  for (const entry of batch) yield section(entry, shown)
}

function section({ bind, revision }: Entry, shown: (sql: string) => string): string {
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
  const sql = abridged(statements.map(each => shown(each.sql)))
  const body = sql.length === 0 ? 'The script does nothing.' : fenced(sql.join('\n\n'), 'sql')
  return folded(`${title} – ${count(statements.length, 'statement')}`, body)
}
