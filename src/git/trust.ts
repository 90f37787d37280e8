import { existsSync, lstatSync, readdirSync, statSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { Failure, messageOf } from '../failure'
import { differenceFrom } from './clean'
import { followed } from './links'
import { lookFor, plumbing, readCommits, readTree } from './objects'
import { bytewise, isWithin, readable, realOf } from './paths'
import { distrust } from './repository'

/** What the checkout may hold for Python to load. Every path is absolute, with no symbolic link in it; those of files and links are bytewise. */
export interface Trusted {
  /** The workspace, and the repositories; what lies elsewhere is not the checkout's. */
  roots: string[]
  /** The name of each file's blob in the trusted commit. */
  files: Record<string, string>
  /** Likewise for symbolic links, whose blob is the path that they lead to. */
  links: Record<string, string>
}

/** What the checkout is asked for. */
export interface Asked {
  workspace: string
  workingDirectory: string
  /** Where the scripts are, wherever that is. */
  scripts: string[]
  /** Everything else that leads to code; what lies outside of the checkout is not its. */
  named: string[]
  /** Commits that are known to be on the base branch. */
  tips: string[]
}

/**
 * Looks at each repository on the way from the workspace to what is named: it has to be, as it stands, a commit of the
 * base branch (one of `tips` or an ancestor of one), or the submodule that such a commit records, with no file changed.
 * Nothing is believed but the tips: every object is held against its name, and every file against its object.
 * Throws a Failure `untrusted` for the first that is none of these.
 */
export async function trustedFiles({ workspace, workingDirectory, scripts, named, tips }: Asked): Promise<Trusted> {
  lookFor(distrust(workspace))
  const here = realOf(workspace)
  const around = (path: string) => repositoriesAround(path, here)
  const ofWork = around(realOf(workingDirectory))
  if (ofWork.length === 0) throw untrusted('there is no git checkout that would tell where the scripts come from')
  const inside = named.map(realOf).filter(path => [here, ...ofWork].some(root => isWithin(path, root)))
  const ways = [...ofWork, ...[...scripts.map(realOf), ...inside].flatMap(around)]
  // A repository comes before those that lie in it.
  const repositories = [...new Set(ways)].sort((a, b) => a.length - b.length)
  const [strange] = scripts.filter(path => !repositories.some(root => isWithin(realOf(path), root)))
  if (strange) throw untrusted(`${strange} lies in no git checkout`)
  const trusted: Trusted = { roots: [here, ...repositories], files: {}, links: {} }
  const seen = new Set<string>()

  async function vouch(root: string, commit: string): Promise<void> {
    seen.add(root)
    const place = placeOf(root, here)
    const tree = await readTree(root, commit).catch(error => {
      throw untrusted(`the commit ${commit.slice(0, 12)}${place} cannot be read (${messageOf(error)})`)
    })
    const difference = await differenceFrom(root, commit, tree).catch(error => {
      throw untrusted(`the checkout${place} cannot be compared with its commit (${messageOf(error)})`)
    })
    if (difference) throw untrusted(`the checkout${place} is not as it was committed (${difference})`)
    for (const [path, blob] of tree.files) trusted.files[join(bytewise(root), path)] = blob
    for (const [path, blob] of tree.links) trusted.links[join(bytewise(root), path)] = blob
    for (const [path, recorded] of tree.submodules) {
      const submodule = join(root, readable(path))
      if (!isRepository(submodule)) continue
      const head = await headOf(submodule)
      if (head !== recorded) {
        const told = `the submodule ${relative(here, submodule)} is at ${head?.slice(0, 12) ?? 'no commit'}`
        throw untrusted(`${told}, and ${recorded.slice(0, 12)} is recorded for it`)
      }
      trusted.roots.push(submodule)
      await vouch(submodule, head)
    }
  }

  for (const root of repositories) {
    if (seen.has(root)) continue
    const head = await headOf(root)
    if (head === undefined) throw untrusted(`there is no commit checked out${placeOf(root, here) || ' here'}`)
    if (!(await isOnBase(root, head, tips))) {
      const told = `the checked-out commit ${head.slice(0, 12)}${placeOf(root, here)}`
      throw untrusted(`${told} is not known to be on the base branch`)
    }
    await vouch(root, head)
  }
  return trusted
}

/** Throws a Failure `untrusted` where one of these files is there and is not the trusted commit's; folders are none. */
export function requireKnown(files: string[], trusted: Trusted): void {
  for (const file of files) {
    const found = lstatSync(file, { throwIfNoEntry: false })
    if (!found || found.isDirectory()) continue
    const path = join(realOf(dirname(file)), basename(file))
    if (isKnown(path, trusted)) continue
    throw untrusted(`the checkout is not as it was committed (?? ${relative(trusted.roots[0] ?? '', path)})`)
  }
}

function isKnown(path: string, { roots, files, links }: Trusted): boolean {
  const { file, links: way } = followed(path)
  const isForeign = (link: string) => roots.some(root => isWithin(link, root)) && links[bytewise(link)] === undefined
  if (way.some(link => isForeign(link.file))) return false
  return files[bytewise(file)] !== undefined || (way.length > 0 && isFolder(file))
}

/** The Python sources below a folder, links to folders aside. */
export function sourcesBelow(folder: string): string[] {
  if (!isFolder(folder)) return []
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.name.endsWith('.py') && !entry.isDirectory())
    .map(entry => join(entry.parentPath, entry.name))
}

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true

const isRepository = (folder: string): boolean => existsSync(join(folder, '.git'))

/** The repositories that a path lies in: within the workspace all of them, elsewhere the innermost. */
function repositoriesAround(path: string, workspace: string): string[] {
  const found: string[] = []
  for (let folder = path; ; folder = dirname(folder)) {
    if (found.length > 0 && !isWithin(folder, workspace)) return found
    if (isRepository(folder)) found.push(folder)
    if (dirname(folder) === folder) return found
  }
}

/** The commit that is checked out; undefined for none. */
const headOf = (root: string): Promise<string | undefined> =>
  plumbing(root, ['rev-parse', '--verify', 'HEAD^{commit}']).then(
    text => text.toString().trim(),
    () => undefined,
  )

/** Whether a commit is one of the tips, or an ancestor of one by a chain of parents that is there to be read. */
async function isOnBase(root: string, head: string, tips: string[]): Promise<boolean> {
  if (tips.includes(head)) return true
  for (const tip of tips) {
    if (await leadsTo(root, tip, head).catch(() => false)) return true
  }
  return false
}

async function leadsTo(root: string, tip: string, head: string): Promise<boolean> {
  const between = await plumbing(root, ['rev-list', '--ancestry-path', `${head}..${tip}`, '--'])
  const commits = await readCommits(root, between.toString().split('\n').filter(Boolean))
  const reached = new Set([tip])
  for (const commit of reached) for (const parent of commits.get(commit)?.parents ?? []) reached.add(parent)
  return reached.has(head)
}

const placeOf = (root: string, workspace: string): string =>
  root === workspace ? '' : ` in ${relative(workspace, root)}`

/** Throws a Failure `untrusted` where plan files are not signed: an artifact may come from a pull request's own run. */
export function requireSignature(key: string): void {
  if (key) return
  throw new Failure(
    'untrusted',
    'This event has secrets, and the plan file may be a stranger’s: no plan-key is given.',
    {
      advice:
        'Sign plan files with plan-key in the run that makes them. If whoever can make one may run it, set allow-untrusted: true.',
    },
  )
}

function untrusted(why: string): Failure {
  return new Failure('untrusted', `This event has secrets, and the scripts may be a stranger’s: ${why}.`, {
    advice:
      'Check out the base branch (actions/checkout without ref), or show pull requests in an event without secrets (pull_request). If you trust these scripts with what this job can reach, set allow-untrusted: true.',
  })
}
