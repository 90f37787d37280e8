import { dirname } from 'node:path'
import { messageOf } from '../failure'
import { blobsOf, rootOf } from '../git/history'
import { followed } from '../git/links'
import { below } from '../plan/heads'
import { olderTold } from '../report/warnings'
import { type Committed, type Lineage, lineageOf, type Past } from './lineage'
import type { Scripts } from './load'
import { importedWith, type Planned } from './plan'

/**
 * Names the older scripts that are not what they were when the databases' heads were added: they will not run again, but
 * Alembic imports them, and what they do then is done. Where that cannot be told, the log says so.
 */
export async function nameEditedOlder(planned: Planned, scripts: Scripts): Promise<void> {
  const { surroundings, databases } = planned
  const { log } = surroundings
  const heads = databases.flatMap(({ plan }) => plan.priorHeads)
  const batch = new Set(databases.flatMap(({ plan }) => plan.revisions.map(({ id }) => id)))
  const imported = importedWith(databases, scripts)
  const older = [...scripts.project.scripts.values()].filter(({ id }) => imported.has(id) && !batch.has(id))
  const [first] = scripts.sources.all
  if (older.length === 0 || !first || !(await rootOf(dirname(followed(first.file).file)))) return
  try {
    const { pasts, unknown } = await pastsOf(scripts, heads)
    const isTold = new Set(planned.edited.map(({ id }) => id))
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
export async function unchangedSince(scripts: Scripts, ids: string[]): Promise<Set<string>> {
  const { pasts } = await pastsOf(scripts, ids)
  return new Set([...pasts].flatMap(([file, past]) => (past === 'same' ? [file] : [])))
}

interface Pasts {
  /** By the files of the scripts below these revisions, and of their own. */
  pasts: Map<string, Past>
  /** The revisions whose scripts no commit adds. */
  unknown: string[]
}

async function pastsOf(scripts: Scripts, ids: string[]): Promise<Pasts> {
  const revisions = ids.map(id => ({ id, below: below(scripts.project.scripts, [id]) }))
  const pasts = new Map<string, Past>()
  const unknown = new Set<string>()
  for (const lineage of await lineagesOf(scripts)) {
    const found = await lineage.pastsOf(revisions)
    for (const [file, past] of found) pasts.set(file, past)
    if (found.size > 0) for (const id of ids) if (lineage.addedBy(id).length === 0) unknown.add(id)
  }
  return { pasts, unknown: [...unknown] }
}

/** Scripts are read once, and so is where they come from. */
const known = new WeakMap<Scripts, Promise<Lineage[]>>()

/** Of each repository that scripts lie in. */
function lineagesOf(scripts: Scripts): Promise<Lineage[]> {
  const found = known.get(scripts) ?? readLineages(scripts)
  known.set(scripts, found)
  return found
}

async function readLineages({ project, sources }: Scripts): Promise<Lineage[]> {
  const idOf = new Map([...project.scripts.values()].map(({ id, file }) => [file, id]))
  const roots = new Map<string, Promise<string | undefined>>()
  const committed = new Map<string, Committed[]>()
  for (const { file, bytes } of sources.all) {
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
  for (const [root, read] of committed) lineages.push(await lineageOf(root, read, sources.reader))
  return lineages
}
