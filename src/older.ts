import { dirname } from 'node:path'
import { messageOf } from './failure'
import { blobsOf, rootOf } from './git/history'
import { followed } from './git/links'
import { type Committed, type Lineage, lineageOf, type Past } from './lineage'
import { below } from './plan/heads'
import { olderTold } from './report/warnings'
import type { Step } from './step'

/**
 * Names the older scripts that are not what they were when the databases' heads were added: they will not run again, but
 * Alembic imports them, and what they do then is done. Where that cannot be told, the log says so.
 */
export async function nameEditedOlder(step: Step): Promise<void> {
  const { scripts, sources, surroundings, targets, result, imported } = step
  const { log } = surroundings
  const heads = targets.flatMap(({ state }) => state.plan?.priorHeads ?? [])
  const batch = new Set(targets.flatMap(({ state }) => state.plan?.revisions.map(({ id }) => id) ?? []))
  const older = [...scripts.values()].filter(({ id }) => imported.has(id) && !batch.has(id))
  const [first] = sources
  if (older.length === 0 || !first || !(await rootOf(dirname(followed(first.file).file)))) return
  try {
    const { pasts, unknown } = await pastsOf(step, heads)
    const isTold = new Set(result.edited?.map(({ id }) => id))
    const are = (past: Past) => older.filter(({ id, file }) => pasts.get(file) === past && !isTold.has(id))
    // A pull request often mends the script that it adds, in a commit of its own.
    const mended = are('edited').filter(({ id }) => heads.includes(id))
    const edited = are('edited').filter(({ id }) => !heads.includes(id))
    if (edited.length > 0) log.warning(olderTold('edited', edited))
    if (are('later').length > 0) log.warning(olderTold('later', are('later')))
    if (mended.length > 0) log.info(olderTold('edited', mended))
    if (unknown.length > 0) {
      const told = `no commit of the history adds the script of ${unknown.join(' and ')}.`
      log.info(`Whether older scripts were edited is not known: ${told}`)
    }
  } catch (error) {
    log.info(`Whether older scripts were edited is not known: ${messageOf(error)}`)
  }
}

/**
 * The files of the scripts that are below one of these revisions and have the bytes that they had when the scripts of
 * those above them were added. Throws a Failure `invalid-input` where the clone is too shallow to tell.
 */
export async function unchangedSince(step: Step, ids: string[]): Promise<Set<string>> {
  const { pasts } = await pastsOf(step, ids)
  return new Set([...pasts].flatMap(([file, past]) => (past === 'same' ? [file] : [])))
}

interface Pasts {
  /** By the files of the scripts below these revisions, and of their own. */
  pasts: Map<string, Past>
  /** The revisions whose scripts no commit adds. */
  unknown: string[]
}

async function pastsOf(step: Step, ids: string[]): Promise<Pasts> {
  const revisions = ids.map(id => ({ id, below: below(step.scripts, [id]) }))
  const pasts = new Map<string, Past>()
  const unknown = new Set<string>()
  for (const lineage of await lineagesOf(step)) {
    const found = await lineage.pastsOf(revisions)
    for (const [file, past] of found) pasts.set(file, past)
    if (found.size > 0) for (const id of ids) if (lineage.addedBy(id).length === 0) unknown.add(id)
  }
  return { pasts, unknown: [...unknown] }
}

/** A step's scripts are read once, and so is where they come from. */
const known = new WeakMap<Step, Promise<Lineage[]>>()

/** Of each repository that scripts lie in. */
function lineagesOf(step: Step): Promise<Lineage[]> {
  const found = known.get(step) ?? readLineages(step)
  known.set(step, found)
  return found
}

async function readLineages({ scripts, sources, reader }: Step): Promise<Lineage[]> {
  const idOf = new Map([...scripts.values()].map(({ id, file }) => [file, id]))
  const roots = new Map<string, Promise<string | undefined>>()
  const committed = new Map<string, Committed[]>()
  for (const { file, bytes } of sources) {
    const id = idOf.get(file)
    const folder = dirname(followed(file).file)
    const asked = roots.get(folder) ?? rootOf(folder)
    roots.set(folder, asked)
    const root = await asked
    if (id === undefined || root === undefined) continue
    const others = committed.get(root) ?? []
    others.push({ id, file, blobs: blobsOf(bytes) })
    committed.set(root, others)
  }
  const lineages: Lineage[] = []
  // One after another: the reader answers one question at a time.
  for (const [root, read] of committed) lineages.push(await lineageOf(root, read, reader))
  return lineages
}
