import { execFile } from 'node:child_process'
import { devNull } from 'node:os'
import { delimiter } from 'node:path'
import { isWithin, realOf } from './paths'

/** What a repository replaces on this machine alone (`git replace`, grafts) is not what was committed. */
let environment: NodeJS.ProcessEnv = { ...process.env, GIT_NO_REPLACE_OBJECTS: '1', GIT_GRAFT_FILE: devNull }

/**
 * A checkout by another user (a container job) is still the one that we were told to look at; a bare repository that
 * somebody has committed into it is not, and no program of a repository's own choice is run.
 */
const settings = [
  'safe.directory=*',
  'safe.bareRepository=explicit',
  'core.fsmonitor=false',
  'core.commitGraph=false',
  'log.showSignature=false',
].flatMap(each => ['-c', each])

/**
 * From now on git is none that lies in the workspace, and fetches nothing that a partial clone lacks: what it would run
 * for that, the repository itself says. Returns where it is looked for.
 */
export function distrust(workspace: string): string {
  const folders = (process.env.PATH ?? '').split(delimiter)
  const PATH = folders.filter(folder => !isWithin(realOf(folder), realOf(workspace))).join(delimiter)
  environment = { ...environment, PATH, GIT_NO_LAZY_FETCH: '1', GIT_ALLOW_PROTOCOL: '' }
  return PATH
}

/** What git prints. Throws execFile's error, with git's exit code as `code` and its words in `stderr`. */
export const git = async (directory: string, args: string[]): Promise<string> =>
  (await gitBytes(directory, args)).toString()

/** The same as bytes, for a git that reads `input`. */
export function gitBytes(directory: string, args: string[], input = ''): Promise<Buffer> {
  const options = { cwd: directory, env: environment, maxBuffer: 256 * 1024 * 1024, encoding: 'buffer' } as const
  return new Promise((resolve, reject) => {
    const child = execFile('git', [...settings, ...args], options, (error, stdout, stderr) => {
      if (error) reject(Object.assign(error, { stderr: stderr.toString() }))
      else resolve(stdout)
    })
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}

/** Whether git can do that, whatever it prints. */
export const succeeds = (directory: string, args: string[]): Promise<boolean> =>
  git(directory, args).then(
    () => true,
    () => false,
  )
