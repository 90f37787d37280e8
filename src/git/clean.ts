import { createHash } from 'node:crypto'
import { createReadStream, lstatSync, readFileSync, readlinkSync, type Stats } from 'node:fs'
import { posix } from 'node:path'
import { nameOf, plumbing, readObjects, type Tree } from './objects'
import { fileOf, readable } from './paths'

/**
 * The first difference between a checkout and the commit that it should be, as `git status --short` writes it; undefined
 * for none. Bytes are compared, whatever the index says of a file (assume-unchanged, skip-worktree); no filter is run.
 * Files that the commit does not have are none of it.
 */
export async function differenceFrom(root: string, commit: string, tree: Tree): Promise<string | undefined> {
  const staged = await plumbing(root, ['diff-index', '--cached', '--name-status', '-z', '--no-renames', commit])
  const [status, path] = staged.toString().split('\0')
  if (status && path) return `${status} ${path}`
  const missing: string[] = []
  const changed: string[] = []
  // One after another and not side by side: of small files, that takes a quarter of the time.
  const compare = (paths: Iterable<[string, string]>, same: (file: Buffer, found: Stats, blob: string) => boolean) => {
    for (const [path, blob] of paths) {
      const file = fileOf(root, path)
      const found = statOf(file)
      if (!found) missing.push(path)
      else if (!same(file, found, blob)) changed.push(path)
    }
  }
  for (const folder of foldersOf(tree)) {
    if (statOf(fileOf(root, folder))?.isDirectory() === false) changed.push(folder)
  }
  compare(tree.files, isFile)
  compare(tree.links, isLink)
  const [lost] = missing.length > 0 ? await notLeftOut(root, missing) : []
  if (lost) return `D ${readable(lost)}`
  for (const path of changed) {
    const blob = tree.files.get(path)
    if (blob && ((await isPayload(root, fileOf(root, path), blob)) || (await isFiltered(root, path)))) continue
    return `M ${readable(path)}`
  }
  return undefined
}

/** Every folder that something of the commit lies in: a link in its place may lead to something else. */
function foldersOf({ files, links, submodules }: Tree): Set<string> {
  const folders = new Set<string>()
  for (const path of [...files.keys(), ...links.keys(), ...submodules.keys()]) {
    for (let folder = posix.dirname(path); folder !== '.' && !folders.has(folder); folder = posix.dirname(folder))
      folders.add(folder)
  }
  return folders
}

/** What stands at a path, be it a link; undefined for nothing. */
function statOf(path: Buffer): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch {
    // A file is where a folder on the way should be, which is a difference of its own.
    return undefined
  }
}

/** GitHub takes no blob that is larger. */
const largest = 100 * 2 ** 20

const isFile = (file: Buffer, found: Stats, blob: string): boolean =>
  found.isFile() && found.size <= 2 * largest && isBlob(readFileSync(file), blob)

/** A link, or the file that git writes in its place where `core.symlinks` is off. */
function isLink(file: Buffer, found: Stats, blob: string): boolean {
  if (found.isFile()) return found.size < 65536 && isBlob(readFileSync(file), blob)
  return found.isSymbolicLink() && nameOf('blob', readlinkSync(file, { encoding: 'buffer' }), blob) === blob
}

/** Whether git stores these bytes under that name: as they are, with its own line ends, or with its `$Id$`. */
function isBlob(bytes: Buffer, blob: string): boolean {
  if (nameOf('blob', bytes, blob) === blob) return true
  const text = bytes.toString('latin1').replaceAll('\r\n', '\n')
  return [text, text.replaceAll(`$Id: ${blob} $`, '$Id$')].some(
    stored => nameOf('blob', Buffer.from(stored, 'latin1'), blob) === blob,
  )
}

/** Those that are not left out by a sparse checkout. */
async function notLeftOut(root: string, paths: string[]): Promise<string[]> {
  const listed = (await plumbing(root, ['ls-files', '-t', '-z'])).toString('latin1').split('\0')
  const leftOut = new Set(listed.filter(line => line.startsWith('S ')).map(line => line.slice(2)))
  return paths.filter(path => !leftOut.has(path))
}

/** Whether a file is what Git LFS has put in the place of its pointer; source: git-lfs, docs/spec.md. */
async function isPayload(root: string, file: Buffer, blob: string): Promise<boolean> {
  const pointer = (await readObjects(root, [blob]).catch(() => undefined))?.get(blob)?.bytes.toString('latin1', 0, 1024)
  const digest = /^version https:\/\/git-lfs\.github\.com\/spec\/v1\n(?:.*\n)*oid sha256:([0-9a-f]{64})$/m.exec(
    pointer ?? '',
  )?.[1]
  if (!digest || !statOf(file)?.isFile()) return false
  const hash = createHash('sha256')
  for await (const part of createReadStream(file)) hash.update(part as Buffer)
  return hash.digest('hex') === digest
}

/**
 * Whether the bytes of a file depend on a program or an encoding, so that nothing can be said of them here. Python will
 * not get to load them: what it loads has to be the commit's own bytes.
 */
async function isFiltered(root: string, path: string): Promise<boolean> {
  const asked = ['check-attr', '-z', '--stdin', 'filter', 'working-tree-encoding']
  const values = (await plumbing(root, asked, Buffer.from(`${path}\0`, 'latin1'))).toString().split('\0')
  return values.some((value, at) => at % 3 === 2 && !['unspecified', 'unset', 'lfs'].includes(value))
}
