import { existsSync, readFileSync } from 'node:fs'
import type { ReadScript } from '../alembic/project'
import type { Reader, Reading } from '../alembic/reader'
import { shownPath } from '../alembic/shown-path'
import { Failure, messageOf } from '../failure'
import type { Inputs } from '../inputs'
import { scriptDigest } from '../plan/digest'
import type { Script } from '../plan/plan'

/**
 * Reads the files of scripts, each once: what is digested, looked up and run is made from these bytes.
 * Throws a Failure where one cannot be read, or where only running one would tell its place and the inputs demand that
 * it is vouched for before.
 */
export async function readScripts(files: string[], reader: Reader, inputs: Inputs): Promise<ReadScript[]> {
  const scripts = files.map(file => ({ file, bytes: bytesOf(file) }))
  const isDemanding = demandOf(inputs) !== undefined
  const readings = await reader.read(scripts.map(({ bytes }) => bytes)).catch((error): Reading[] => {
    // A Python that needs more than `-I -S` leaves it: its scripts are learned by their import.
    if (isDemanding) throw error
    return scripts.map(() => unread)
  })
  return scripts.map(({ file, bytes }, index) => {
    const { values, computed, doc } = readings[index] ?? unread
    const { revision, down_revision } = values
    const isRead = computed.length === 0 && revision !== undefined && down_revision !== undefined
    if (!isRead) requireNothingOf(file, computed, inputs)
    const known = isRead ? { ...values, revision, down_revision } : undefined
    return { file, bytes, digest: scriptDigest(bytes), values: known, doc }
  })
}

/**
 * What runs is what was read; whoever has written into the file since meant something else. Throws a Failure
 * `plan-changed`.
 */
export function requireUnchanged(script: Script | undefined): void {
  if (!script) return
  const { id, path, file, digest } = script
  if (existsSync(file) && scriptDigest(readFileSync(file)) === digest) return
  throw new Failure('plan-changed', `The script of revision ${id} has changed since the batch was planned.`, {
    advice: 'See to it that nothing writes into the scripts while they run, and run the step again.',
    place: { file: path, line: null },
  })
}

function bytesOf(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new Failure('render-failed', `The script ${shownPath(file)} cannot be read: ${messageOf(error)}.`, {
      cause: error,
    })
  }
}

const unread: Reading = {
  values: {},
  computed: ['revision', 'down_revision', 'branch_labels', 'depends_on'],
  doc: '',
}

/** What is said where a script cannot be vouched for and the inputs demand it. */
function demandOf({ expectedDigest, requireReview, mode }: Inputs): 'plan-changed' | 'not-reviewed' | undefined {
  if (expectedDigest) return 'plan-changed'
  return requireReview && mode !== 'preview' ? 'not-reviewed' : undefined
}

/** What is computed may be anything once it runs, so that no digest and no review can be of it. */
function requireNothingOf(file: string, computed: string[], inputs: Inputs): void {
  const reason = demandOf(inputs)
  if (!reason) return
  const path = shownPath(file)
  throw new Failure(reason, `Nothing can vouch for ${path}: only running it tells its ${computed.join(', ')}.`, {
    advice: 'Write them at the top of the script as they are: a string, a tuple of strings, or None.',
    place: { file: path, line: null },
  })
}
