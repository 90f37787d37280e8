import { Failure } from '../failure'
import { git, succeeds } from './repository'

/** One Python file at the base that looks like an Alembic script. */
export interface BaseScript {
  path: string
  source: string
}

/**
 * The commit that a pull request builds on: the first parent of a merge checkout, else the merge base with `base`.
 * `base` is the tip of the base branch as the event tells it; empty where it tells none.
 * Throws a Failure `invalid-input` that says what to set where the clone does not hold it.
 */
export async function baseCommit(directory: string, base: string): Promise<string> {
  const commit = await git(directory, ['cat-file', 'commit', 'HEAD']).catch(() => {
    throw new Failure('invalid-input', 'There is no git checkout to take the prior heads from.', {
      advice: 'Check out the repository with actions/checkout, or give database-url or from-revision.',
    })
  })
  // The commit object names its parents also where a shallow clone does not have them.
  const [header = ''] = commit.split('\n\n')
  const [first, second] = [...header.matchAll(/^parent (\w+)$/gm)].map(([, id = '']) => id)
  if (first && second) {
    if (await succeeds(directory, ['cat-file', '-e', `${first}^{tree}`])) return first
    throw shallow('fetch-depth: 2')
  }
  if (!base) {
    throw new Failure('invalid-input', 'This event names no base branch to take the prior heads from.', {
      advice: 'Give database-url, or from-revision.',
    })
  }
  try {
    return (await git(directory, ['merge-base', 'HEAD', base])).trim()
  } catch {
    throw shallow('fetch-depth: 0')
  }
}

const shallow = (setting: string): Failure =>
  new Failure('invalid-input', 'The clone is too shallow to hold the base of this pull request.', {
    advice: `Set “${setting}” on actions/checkout, or give database-url or from-revision.`,
  })

/** Every Python file of a commit that names a down_revision, wherever it lies, but for those of these blobs. */
export async function scriptsAt(
  directory: string,
  commit: string,
  except: Set<string> = new Set(),
): Promise<BaseScript[]> {
  // Exit code 1 is git's "nothing found".
  const listed = await git(directory, ['grep', '-lz', '-E', '^down_revision\\b', commit, '--', ':(top)*.py']).catch(
    error => {
      if ((error as { code?: number }).code === 1) return ''
      throw error
    },
  )
  const paths = listed
    .split('\0')
    .filter(Boolean)
    .map(name => name.slice(commit.length + 1))
  const root = (await git(directory, ['rev-parse', '--show-toplevel'])).trim()
  const blobs = except.size > 0 ? await blobsAt(root, commit) : new Map<string, string>()
  return Promise.all(
    paths
      .filter(path => !except.has(blobs.get(path) ?? ''))
      .map(async path => ({ path, source: await git(root, ['cat-file', 'blob', `${commit}:${path}`]) })),
  )
}

/** The name of each file's blob in a commit, by its path. */
async function blobsAt(root: string, commit: string): Promise<Map<string, string>> {
  // Each entry is `MODE TYPE NAME<tab>PATH`.
  const entries = (await git(root, ['ls-tree', '-r', '-z', commit])).split('\0').filter(Boolean)
  return new Map(entries.map(entry => [entry.slice(entry.indexOf('\t') + 1), entry.split(/[ \t]/)[2] ?? '']))
}
