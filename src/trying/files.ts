import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf } from '../failure'
import type { Step } from '../opening/surroundings'
import { isRendered } from '../plan/plan'
import { sqlComment, sqlScript } from '../plan/sql'
import type { Batch } from '../planning/plan'

/** Writes the SQL of the batch, for people, and returns its path; empty where not all of it is known. */
export function writeSql(step: Step, batches: Batch[]): string {
  if (!batches.every(({ plan }) => isRendered(plan))) return ''
  const scripts = batches
    .filter(({ plan }) => plan.revisions.length > 0)
    .map(({ bind, plan }) => (batches.length > 1 ? `${sqlComment(`database ${bind}`)}\n` : '') + sqlScript(plan))
  return write(step, 'sql', scripts.join('\n'), 'The file of the SQL')
}

/** Writes a file of this step and returns its path; empty, with a warning that names `what`, where that fails. */
export function write({ inputs, surroundings }: Step, extension: string, text: string, what: string): string {
  const label = inputs.label.replaceAll(/[^\w.-]+/g, '-').slice(0, 60)
  const path = join(surroundings.temporaryDirectory, `atomic-upgrade${label && `-${label}`}.${extension}`)
  try {
    writeFileSync(path, text)
    return path
  } catch (error) {
    surroundings.log.warning(`${what} could not be written: ${messageOf(error)}`)
    return ''
  }
}
