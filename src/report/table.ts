import type { Revision } from '../plan/plan'
import type { Result } from '../plan/result'
import { ownStatements } from '../plan/sql'
import { batchOf } from './batch'
import { code, prose } from './markdown'
import { clip, messageLength, nameLength, seconds } from './words'

/** The lines of the table; the first one brings the head along. */
export function* tableOf(result: Result): Generator<string> {
  const batch = batchOf(result)
  const timed = batch.some(({ database }) => database.runs.length > 0)
  const several = result.databases.length > 1
  // Without the folder that they share, the names leave room for the messages.
  const folder = sharedFolder(batch.map(({ revision }) => revision))
  const place = folder && ` in ${code(clip(folder, nameLength))}`
  const head = ['', ...(several ? ['Database'] : []), 'Revision', 'Message', 'Statements', ...(timed ? ['Ran'] : [])]
  const align = ['--:', ...(several ? [':--'] : []), ':--', ':--', '--:', ...(timed ? ['--:'] : [])]
  let before = `${line([...head, `Script${place}`])}\n${line([...align, ':--'])}\n`
  const failed = result.failure?.details
  for (const [index, { bind, database, revision }] of batch.entries()) {
    const run = database.runs.find(({ id }) => id === revision.id)
    const statements = revision.statements ? ownStatements(revision).length : (run?.statements ?? '?')
    const mark = failed?.revision === revision.id && (failed.bind ?? bind) === bind ? '✗ ' : ''
    const cells = [
      index + 1,
      ...(several ? [code(clip(bind, nameLength))] : []),
      code(clip(revision.id, nameLength)),
      prose(clip(revision.message, messageLength)),
      statements,
      ...(timed ? [run ? `${mark}${seconds(run.duration)}`.replaceAll(' ', '&nbsp;') : '–'] : []),
      code(clip(revision.path.slice(folder.length), messageLength)),
    ]
    yield before + line(cells)
    before = ''
  }
}

/** The folder of all scripts with its slash; empty where they lie in several. */
function sharedFolder(revisions: Revision[]): string {
  const folders = new Set(revisions.map(({ path }) => path.slice(0, path.lastIndexOf('/') + 1)))
  const [folder = '', ...others] = folders
  return others.length === 0 ? folder : ''
}

const line = (cells: (string | number)[]): string => `| ${cells.join(' | ')} |`
