import { createHash } from 'node:crypto'
import { readFileSync, realpathSync } from 'node:fs'
import { dirname, relative } from 'node:path'
import { Failure } from '../failure'
import { git, succeeds } from './repository'

/** A script as git and GitHub know it. */
export interface Versioned {
  /** Relative to the repository's root, with slashes. */
  path: string
  /** The commit that last changed it. */
  commit: string
  /** Git's names of its bytes as they will run: as they are, and with the line ends that git stores. */
  blobs: string[]
}

/**
 * Where the bytes of a file that is about to run came from. `file` is absolute.
 * Throws a Failure `not-reviewed` where git does not know it, `invalid-input` where the clone is too shallow to tell.
 */
export async function versionOf(file: string): Promise<Versioned> {
  const directory = dirname(file)
  const root = await git(directory, ['rev-parse', '--show-toplevel']).then(
    text => realpathSync(text.trim()),
    () => undefined,
  )
  if (root === undefined)
    throw new Failure('not-reviewed', `${file} is in no git checkout, so nobody can have reviewed it.`)
  const path = relative(root, realpathSync(file)).replaceAll('\\', '/')
  if (!(await succeeds(root, ['cat-file', '-e', `HEAD:${path}`]))) {
    throw new Failure('not-reviewed', `${path} is not committed, so nobody can have reviewed it.`)
  }
  const commit = (await git(root, ['log', '-1', '--format=%H', '--', `:(top,literal)${path}`])).trim()
  if ((await shallowCommits(root)).has(commit)) {
    throw new Failure('invalid-input', `The clone is too shallow to tell which commit has changed ${path} last.`, {
      advice: 'Set “fetch-depth: 0” on actions/checkout; `require-review` needs the history.',
    })
  }
  return { path, commit, blobs: blobsOf(readFileSync(file)) }
}

/** The commits whose parents a shallow clone does not have: every file seems to come with them. */
async function shallowCommits(root: string): Promise<Set<string>> {
  const file = (await git(root, ['rev-parse', '--path-format=absolute', '--git-path', 'shallow'])).trim()
  try {
    return new Set(readFileSync(file, 'utf8').split('\n').filter(Boolean))
  } catch {
    return new Set()
  }
}

/** Git's names of a file's bytes: as they are, and with the line ends that git stores. */
export function blobsOf(bytes: Buffer): string[] {
  const stored = Buffer.from(bytes.toString('latin1').replaceAll('\r\n', '\n'), 'latin1')
  return [blobOf(bytes), blobOf(stored)]
}

/** The name of a blob object; source: the page "Git Objects" of the Git book. */
const blobOf = (bytes: Buffer): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')
