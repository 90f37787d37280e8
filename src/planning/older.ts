import { dirname } from 'node:path'
import { messageOf } from '../failure'
import { addedFiles, blobsIn, blobsOf, blobsWith, rootOf } from '../git/history'
import { followed } from '../git/links'
import { below } from '../plan/heads'
import { olderTold } from '../report/warnings'
import type { Scripts } from './load'
import type { Planned } from './plan'
import { importedWith } from './plan'

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
    const same = await unchangedSince(scripts, heads)
    const isTold = new Set(planned.edited.map(({ id }) => id))
    const edited = older.filter(({ id, file }) => !same.has(file) && !isTold.has(id))
    // A pull request often mends the script that it adds, in a commit of its own.
    const mended = edited.filter(({ id }) => heads.includes(id))
    const others = edited.filter(({ id }) => !heads.includes(id))
    if (others.length > 0) log.warning(olderTold(others))
    if (mended.length > 0) log.info(olderTold(mended))
  } catch (error) {
    log.info(`Whether older scripts were edited is not known: ${messageOf(error)}`)
  }
}

/**
 * The files of the scripts that have the bytes which they had at every commit that adds the script of one of these
 * revisions, at any path: of those that stand above it, else of all. None where no commit adds one.
 * Throws a Failure `invalid-input` where the clone is too shallow to tell.
 */
export async function unchangedSince({ project, sources }: Scripts, ids: string[]): Promise<Set<string>> {
  const { scripts } = project
  if (ids.length === 0) return new Set()
  const lies = new Map<string, string | undefined>()
  for (const { file } of sources.all) {
    const folder = dirname(followed(file).file)
    if (!lies.has(folder)) lies.set(folder, await rootOf(folder))
  }
  const above = new Map(ids.map(id => [id, below(scripts, [id])]))
  const idOf = new Map([...scripts.values()].map(({ id, file }) => [file, id]))
  const same = new Set<string>()
  for (const root of new Set(lies.values())) {
    if (root === undefined) continue
    const trees = await treesAdding(root, ids, async found => {
      return (await sources.reader.read(found)).map(({ values }) => values.revision)
    })
    for (const { file, bytes } of sources.all) {
      if (lies.get(dirname(followed(file).file)) !== root) continue
      const over = ids.filter(id => above.get(id)?.has(idOf.get(file) ?? ''))
      const told = (over.length > 0 ? over : ids).map(id => trees.get(id) ?? [])
      const blobs = blobsOf(bytes)
      const isIn = (tree: Set<string>) => blobs.some(blob => tree.has(blob))
      if (told.length > 0 && told.every(each => each.length > 0 && each.every(isIn))) same.add(file)
    }
  }
  return same
}

type IdsOf = (sources: Buffer[]) => Promise<(string | undefined)[]>

/** What is in each commit that adds the script of a revision, by its id. */
async function treesAdding(root: string, ids: string[], idsOf: IdsOf): Promise<Map<string, Set<string>[]>> {
  const added = await addedFiles(root)
  const candidates = await blobsWith(root, [...new Set(added.map(({ blob }) => blob))], ids)
  const read = await idsOf(candidates.map(([, bytes]) => bytes))
  const idOf = new Map(candidates.map(([blob], index) => [blob, read[index]]))
  const trees = new Map<string, Promise<Set<string>>>()
  const treeOf = (commit: string): Promise<Set<string>> => {
    const known = trees.get(commit) ?? blobsIn(root, commit)
    trees.set(commit, known)
    return known
  }
  const found = new Map<string, Set<string>[]>()
  for (const id of ids) {
    const commits = added.filter(({ blob }) => idOf.get(blob) === id).map(({ commit }) => commit)
    found.set(id, await Promise.all([...new Set(commits)].map(treeOf)))
  }
  return found
}
