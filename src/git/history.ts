import { createHash } from 'node:crypto'
import { readFileSync, realpathSync } from 'node:fs'
import { basename, dirname, relative, sep } from 'node:path'
import { Failure } from '../failure'
import { followed, type Link } from './links'
import { git, gitBytes, succeeds } from './repository'

/** A script as git and GitHub know it. */
export interface Versioned {
  /** Relative to the repository's root, with slashes. */
  path: string
  /** The commit that last changed it. */
  commit: string
  /** Git's names of its bytes as they will run: as they are, and with the line ends that git stores. */
  blobs: string[]
}

/** Where the bytes of files came from, as git tells it. */
export class History {
  readonly #links = new Map<string, Promise<void>>()

  /** `workspace`: links outside of it are the machine's own. */
  constructor(private readonly workspace: string) {}

  /**
   * Where the bytes of a file that is about to run came from. `file` is absolute, and the links on its way count.
   * Throws a Failure `not-reviewed` where git does not have it so, `invalid-input` where the clone is too shallow to tell.
   */
  async versionOf(file: string, bytes: Buffer): Promise<Versioned> {
    const real = await this.requireCommitted(file)
    const root = await rootOf(dirname(real))
    if (root === undefined) {
      throw new Failure('not-reviewed', `${file} is in no git checkout, so nobody can have reviewed it.`)
    }
    const path = pathIn(root, realpathSync.native(real))
    const entry = await entryAt(root, 'HEAD', path)
    if (!entry?.mode.startsWith('100')) {
      throw new Failure('not-reviewed', `${path} is not committed, so nobody can have reviewed it.`)
    }
    const blobs = blobsOf(bytes)
    if (!blobs.includes(entry.blob)) {
      const told = `${path}: the commit that is checked out has another version of this script than will run.`
      throw new Failure('not-reviewed', told)
    }
    const commit = await lastChangeOf(root, path, entry.blob)
    if ((await shallowCommits(root)).has(commit)) {
      throw tooShallow(`which commit has changed ${path} last`)
    }
    return { path, commit, blobs }
  }

  /**
   * Where a path really leads. Throws a Failure `not-reviewed` where a link on its way inside of the workspace is not
   * committed as it is.
   */
  async requireCommitted(path: string): Promise<string> {
    const { file, links } = followed(path)
    const inside = `${realpathSync(this.workspace)}${sep}`
    for (const link of links.filter(each => each.file.startsWith(inside))) {
      const known = this.#links.get(link.file) ?? requireCommittedLink(link)
      this.#links.set(link.file, known)
      await known
    }
    return file
  }
}

async function requireCommittedLink({ file, target }: Link): Promise<void> {
  const root = await rootOf(dirname(file))
  const path = root && pathIn(root, `${realpathSync.native(dirname(file))}${sep}${basename(file)}`)
  const entry = root && path ? await entryAt(root, 'HEAD', path) : undefined
  if (entry?.mode === '120000' && entry.blob === blobOf(Buffer.from(target))) return
  const told = `${path || file} is a link that is not committed, so nobody can have reviewed where it leads.`
  throw new Failure('not-reviewed', told)
}

const pathIn = (root: string, file: string): string => relative(root, file).replaceAll('\\', '/')

/** The root of the checkout that a folder is in. */
export const rootOf = (directory: string): Promise<string | undefined> =>
  git(directory, ['rev-parse', '--show-toplevel']).then(
    text => realpathSync.native(text.trim()),
    () => undefined,
  )

/**
 * The commit that has last changed a file, whose blob is this one. That is also a merge which has put an earlier version
 * back, against a parent that had changed it since; git's own simplification of the history goes past it.
 */
async function lastChangeOf(root: string, path: string, blob: string): Promise<string> {
  const file = ['--', `:(top,literal)${path}`]
  const commit = (await git(root, ['log', '-1', '--format=%H', ...file])).trim()
  const merges = await git(root, ['log', '--merges', '--full-history', '--format=%H %P', `${commit}..HEAD`, ...file])
  for (const line of merges.split('\n').filter(Boolean)) {
    const [merge = '', ...parents] = line.split(' ')
    if ((await entryAt(root, merge, path))?.blob !== blob) continue
    for (const parent of parents) {
      const isOther = (await entryAt(root, parent, path))?.blob !== blob
      if (isOther && (await succeeds(root, ['merge-base', '--is-ancestor', commit, parent]))) return merge
    }
  }
  return commit
}

/** What a commit has at a path. */
async function entryAt(
  root: string,
  commit: string,
  path: string,
): Promise<{ mode: string; blob: string } | undefined> {
  // Each entry is `MODE TYPE NAME<tab>PATH`.
  const listed = await git(root, ['ls-tree', '-z', '--full-tree', commit, '--', path]).catch(() => '')
  const [entry = ''] = listed.split('\0').filter(each => each.endsWith(`\t${path}`))
  const [mode, , blob] = entry.split(/[ \t]/)
  return mode && blob ? { mode, blob } : undefined
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

const tooShallow = (what: string): Failure =>
  new Failure('invalid-input', `The clone is too shallow to tell ${what}.`, {
    advice: 'Set “fetch-depth: 0” on actions/checkout, and no `filter`; `require-review` needs the history.',
  })

/** What a commit of the history has at the path of a Python file, and what one of its parents has there. */
export interface Change {
  commit: string
  path: string
  /** undefined: nothing, or no file. */
  before: string | undefined
  blob: string | undefined
}

/**
 * Every change of a Python file by a commit of the history; a merge is compared with each of its parents, and a moved
 * file is gone and added. Throws a Failure `invalid-input` where the clone is too shallow to tell.
 */
export async function changesOf(root: string): Promise<Change[]> {
  if ((await shallowCommits(root)).size > 0) throw tooShallow('which older scripts have changed')
  const python = ['--', ':(top)*.py']
  // Not `git log`, which the repository's configuration may change.
  const commits = await git(root, ['rev-list', '--full-history', 'HEAD', ...python])
  const shown = ['--stdin', '-m', '-r', '--root', '--raw', '--no-abbrev', '--no-renames']
  const printed = await gitBytes(root, ['diff-tree', ...shown, ...python], commits)
  const changes: Change[] = []
  let commit = ''
  for (const line of printed.toString().split('\n')) {
    if (!line.startsWith(':')) commit = line || commit
    else {
      // `:MODE MODE NAME NAME STATUS<tab>PATH`; source: the page of git-diff-tree.
      const [told = '', path = ''] = line.split('\t')
      const [before, after, old, blob] = told.slice(1).split(' ')
      const isFile = (mode?: string) => mode?.startsWith('100')
      changes.push({ commit, path, before: isFile(before) ? old : undefined, blob: isFile(after) ? blob : undefined })
    }
  }
  return changes
}

/**
 * The contents of those blobs that hold a text. Throws a Failure `invalid-input` where the clone does not have one, which
 * a partial one may not.
 */
export async function blobsWith(root: string, blobs: string[], text: string): Promise<[string, Buffer][]> {
  const found: [string, Buffer][] = []
  const atOnce = 1000
  for (let from = 0; from < blobs.length; from += atOnce) {
    const names = blobs.slice(from, from + atOnce)
    const printed = await gitBytes(root, ['cat-file', '--batch'], names.map(name => `${name}\n`).join(''))
    // Each is `NAME TYPE SIZE<LF>BYTES<LF>`; source: the page of git-cat-file.
    for (let at = 0; at < printed.length; ) {
      const end = printed.indexOf(10, at)
      const [name = '', , size] = printed.toString('latin1', at, end).split(' ')
      if (size === undefined) throw tooShallow(`what was in ${name}, which it lacks`)
      const bytes = printed.subarray(end + 1, end + 1 + Number(size))
      if (bytes.includes(text)) found.push([name, bytes])
      at = end + 1 + Number(size) + 1
    }
  }
  return found
}

/** Git's names of a file's bytes: as they are, and with the line ends that git stores. */
export function blobsOf(bytes: Buffer): string[] {
  const stored = Buffer.from(bytes.toString('latin1').replaceAll('\r\n', '\n'), 'latin1')
  return [blobOf(bytes), blobOf(stored)]
}

/** The name of a blob object; source: the page "Git Objects" of the Git book. */
const blobOf = (bytes: Buffer): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')
