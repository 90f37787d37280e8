import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { required } from '../failure'

/**
 * Git's objects, of a repository that may be a stranger's: its pack files, configuration, grafts and replacements may
 * say anything, so that nothing of them is believed whose name is not the hash of its bytes, and nothing is run or fetched.
 * Source of the formats: git's pages "gitformat-…" and the chapter "Git Internals" of the Git book.
 */
export interface GitObject {
  type: string
  bytes: Buffer
}

/** What a commit has, each by its path from the root (paths.ts), with the name of its object. */
export interface Tree {
  files: Map<string, string>
  /** The object of a symbolic link has the path that it leads to. */
  links: Map<string, string>
  /** With the commit that is recorded for each. */
  submodules: Map<string, string>
}

let environment: NodeJS.ProcessEnv = {
  GIT_NO_REPLACE_OBJECTS: '1',
  GIT_GRAFT_FILE: '/dev/null',
  GIT_NO_LAZY_FETCH: '1',
  GIT_ALLOW_PROTOCOL: '',
  GIT_OPTIONAL_LOCKS: '0',
}
const settings = ['core.fsmonitor=false', 'core.commitGraph=false'].flatMap(each => ['-c', each])

/** From now on git is looked for there. */
export function lookFor(searchPath: string): void {
  environment = { ...environment, PATH: searchPath }
}

/** What a command of git's plumbing prints, in the repository whose `.git` lies in `root`, whatever that configures. */
export function plumbing(root: string, args: string[], input: string | Buffer = ''): Promise<Buffer> {
  const command = [...settings, `--git-dir=${join(root, '.git')}`, `--work-tree=${root}`, ...args]
  return new Promise((resolve, reject) => {
    const options = {
      cwd: root,
      env: { ...process.env, ...environment },
      encoding: 'buffer' as const,
      maxBuffer: 2 ** 30,
    }
    const child = execFile('git', command, options, (error, stdout) => (error ? reject(error) : resolve(stdout)))
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}

/** The name of an object; `like` is a name in the repository's format. */
export function nameOf(type: string, bytes: Buffer, like: string): string {
  const hash = createHash(like.length === 64 ? 'sha256' : 'sha1')
  return hash.update(`${type} ${bytes.length}\0`).update(bytes).digest('hex')
}

/** Objects by their names. Throws where one is missing, or is not what its name says. */
export async function readObjects(root: string, names: string[]): Promise<Map<string, GitObject>> {
  const found = new Map<string, GitObject>()
  if (names.length === 0) return found
  const printed = await plumbing(root, ['cat-file', '--batch'], `${names.join('\n')}\n`)
  for (let at = 0; at < printed.length; ) {
    const end = printed.indexOf('\n', at)
    const [name = '', type = '', size] = printed.toString('latin1', at, end).split(' ')
    if (size === undefined) throw new Error(`the object ${name} is ${type || 'missing'}`)
    const bytes = printed.subarray(end + 1, end + 1 + Number(size))
    if (nameOf(type, bytes, name) !== name) throw new Error(`the object ${name} is not what its name says`)
    found.set(name, { type, bytes })
    at = end + 1 + Number(size) + 1
  }
  return found
}

/** What the header of a commit says: its tree and its parents. */
export async function readCommits(
  root: string,
  names: string[],
): Promise<Map<string, { tree: string; parents: string[] }>> {
  const commits = await readObjects(root, names)
  return new Map(
    [...commits].map(([name, { type, bytes }]) => {
      const [header = ''] = bytes.toString('latin1').split('\n\n')
      const tree = /^tree (\w+)$/m.exec(header)?.[1]
      if (type !== 'commit' || !tree) throw new Error(`the object ${name} is no commit`)
      return [name, { tree, parents: [...header.matchAll(/^parent (\w+)$/gm)].map(([, parent = '']) => parent) }]
    }),
  )
}

/** Everything that a commit has. Throws where an object is missing, or is not what its name says. */
export async function readTree(root: string, commit: string): Promise<Tree> {
  const whole: Tree = { files: new Map(), links: new Map(), submodules: new Map() }
  const { tree } = required((await readCommits(root, [commit])).get(commit), 'such commit')
  for (let level: [string, string][] = [['', tree]]; level.length > 0; ) {
    const trees = await readObjects(root, [...new Set(level.map(([, name]) => name))])
    const below: [string, string][] = []
    for (const [folder, name] of level) {
      const { type, bytes } = required(trees.get(name), 'such tree')
      if (type !== 'tree') throw new Error(`the object ${name} is no tree`)
      for (const entry of entriesOf(bytes, commit.length / 2)) {
        const path = folder + entry.name
        if (entry.mode === '40000') below.push([`${path}/`, entry.object])
        else if (entry.mode === '160000') whole.submodules.set(path, entry.object)
        else if (entry.mode === '120000') whole.links.set(path, entry.object)
        else whole.files.set(path, entry.object)
      }
    }
    level = below
  }
  return whole
}

/**
 * The names of those files' bytes that are in each commit, at any path, as far as they are wanted. A folder that many
 * commits have is read once. Throws where an object is missing, or is not what its name says.
 */
export async function blobsOfCommits(
  root: string,
  names: string[],
  isWanted: (blob: string) => boolean,
): Promise<Map<string, Set<string>>> {
  const commits = await readCommits(root, names)
  const folders = new Map<string, { blobs: string[]; folders: string[] }>()
  for (let missing = new Set([...commits.values()].map(({ tree }) => tree)); missing.size > 0; ) {
    const below = new Set<string>()
    for (const [name, { bytes }] of await readObjects(root, [...missing])) {
      const entries = [...entriesOf(bytes, name.length / 2)]
      const of = (mode: string) => entries.filter(entry => entry.mode.startsWith(mode)).map(({ object }) => object)
      folders.set(name, { blobs: of('100').filter(isWanted), folders: of('40000') })
      for (const folder of of('40000')) below.add(folder)
    }
    missing = new Set([...below].filter(name => !folders.has(name)))
  }
  const within = (name: string): string[] => {
    const { blobs = [], folders: below = [] } = folders.get(name) ?? {}
    return [...blobs, ...below.flatMap(within)]
  }
  return new Map([...commits].map(([name, { tree }]) => [name, new Set(within(tree))]))
}

/** The entries of a tree object: each is `MODE NAME<nul>` and the bytes of an object's name. */
function* entriesOf(bytes: Buffer, length: number): Generator<{ mode: string; name: string; object: string }> {
  for (let at = 0; at < bytes.length; ) {
    const [space, nul] = [bytes.indexOf(' ', at), bytes.indexOf(0, at)]
    yield {
      mode: bytes.toString('latin1', at, space),
      name: bytes.toString('latin1', space + 1, nul),
      object: bytes.toString('hex', nul + 1, nul + 1 + length),
    }
    at = nul + 1 + length
  }
}
