import type { Reader } from '../alembic/reader'
import { blobsWith, type Change, changesOf } from '../git/history'
import { blobsOfCommits } from '../git/objects'

/** A script that is here, with git's names of its bytes. */
export interface Committed {
  id: string
  file: string
  blobs: string[]
}

/**
 * What a script is, compared with what it was when the script of a revision above it was added:
 * `same`, it has the bytes that it had at each of these commits that has it; `edited`, it has not; `later`, none of them
 * has it; `unknown`, no commit adds the upper one.
 */
export type Past = 'same' | 'edited' | 'later' | 'unknown'

/** Of a script below several revisions the first of these counts. */
const worstFirst: Past[] = ['edited', 'unknown', 'later', 'same']

/** What the history of one repository says of scripts, whatever their paths. */
export async function lineageOf(root: string, scripts: Committed[], reader: Reader): Promise<Lineage> {
  const changes = await changesOf(root)
  const known = new Map(scripts.flatMap(({ id, blobs }) => blobs.map((blob): [string, string] => [blob, id])))
  const read = new Set<string>()
  const learn = async (found: Change[]) => {
    const unread = [...new Set(found.flatMap(({ blob }) => blob ?? []))].filter(blob => !read.has(blob))
    for (const blob of unread) read.add(blob)
    const sources = await blobsWith(root, unread, 'revision')
    const atOnce = 1000
    for (let from = 0; from < sources.length; from += atOnce) {
      const some = sources.slice(from, from + atOnce)
      const readings = await reader.read(some.map(([, bytes]) => bytes))
      for (const [index, { values }] of readings.entries()) {
        const [blob] = some[index] ?? []
        if (blob !== undefined && values.revision !== undefined) known.set(blob, values.revision)
      }
    }
  }
  await learn(changes.filter(({ before }) => before === undefined))
  // An id may have come, and gone, where a file was there already.
  const isScript = (blob: string | undefined) => blob !== undefined && known.has(blob)
  const paths = new Set(
    changes.filter(({ before, blob }) => isScript(before) || isScript(blob)).map(({ path }) => path),
  )
  await learn(changes.filter(({ path }) => paths.has(path)))
  return new Lineage(root, changes, known, scripts)
}

/** Made by `lineageOf`. */
export class Lineage {
  readonly #commits = new Map<string, Set<string>>()
  readonly #blobs = new Map<string, string[]>()
  readonly #trees = new Map<string, Set<string>>()

  constructor(
    private readonly root: string,
    changes: Change[],
    /** The ids of the scripts that the history has, by git's names of their bytes. */
    private readonly ids: Map<string, string>,
    private readonly scripts: Committed[],
  ) {
    for (const [blob, id] of ids) this.#blobs.set(id, [...(this.#blobs.get(id) ?? []), blob])
    for (const { commit, before, blob } of changes) {
      const id = blob && ids.get(blob)
      if (!id || (before && ids.get(before) === id)) continue
      const commits = this.#commits.get(id) ?? new Set()
      this.#commits.set(id, commits.add(commit))
    }
  }

  /** The commits that add a script of that id, as a parent of theirs has none at that path. */
  addedBy(id: string): string[] {
    return [...(this.#commits.get(id) ?? [])]
  }

  /** Of the scripts' files, as far as they are below one of these revisions or its own. */
  async pastsOf(revisions: { id: string; below: Set<string> }[]): Promise<Map<string, Past>> {
    await this.#load(revisions.flatMap(({ id }) => this.addedBy(id)))
    const pairs = revisions.flatMap(({ id, below }) =>
      this.scripts.filter(script => below.has(script.id)).map(script => ({ id, script })),
    )
    const missing = pairs.filter(({ id, script }) => this.addedBy(id).some(commit => !this.#stateIn(commit, script)))
    await this.#load(missing.flatMap(({ script }) => this.addedBy(script.id)))
    const found = new Map<string, Past>()
    for (const { id, script } of pairs) {
      const known = found.get(script.file) ?? 'same'
      const past = this.#past(id, script)
      found.set(script.file, worstFirst.find(each => each === known || each === past) ?? past)
    }
    return found
  }

  #past(id: string, script: Committed): Past {
    const commits = this.addedBy(id)
    if (commits.length === 0) return 'unknown'
    const states = commits.map(commit => this.#stateIn(commit, script))
    if (states.every(state => state === 'same')) return 'same'
    // What has come below a script when that was there is not in those commits: its own say what it was.
    const own = this.addedBy(script.id).filter(commit => this.#has(commit, id))
    if ([...states, ...own.map(commit => this.#stateIn(commit, script))].includes('other')) return 'edited'
    return states.includes('same') ? 'same' : 'later'
  }

  /** What a commit has of a script: these bytes, others, or nothing. */
  #stateIn(commit: string, { id, blobs }: Committed): 'same' | 'other' | undefined {
    const tree = this.#trees.get(commit)
    if (blobs.some(blob => tree?.has(blob))) return 'same'
    return this.#has(commit, id) ? 'other' : undefined
  }

  #has(commit: string, id: string): boolean {
    const tree = this.#trees.get(commit)
    return this.#blobs.get(id)?.some(blob => tree?.has(blob)) ?? false
  }

  async #load(commits: string[]): Promise<void> {
    const missing = [...new Set(commits)].filter(commit => !this.#trees.has(commit))
    const found = await blobsOfCommits(this.root, missing, blob => this.ids.has(blob))
    for (const [commit, blobs] of found) this.#trees.set(commit, blobs)
  }
}
