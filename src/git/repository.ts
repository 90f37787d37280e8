import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/**
 * A checkout by another user (a container job) is still the one that we were told to look at; a bare repository that
 * somebody has committed into it is not, and no program of a repository's own choice is run.
 */
const settings = [
  'safe.directory=*',
  'safe.bareRepository=explicit',
  'core.fsmonitor=false',
  'log.showSignature=false',
].flatMap(each => ['-c', each])

let environment = process.env

/** From now on git fetches nothing that a partial clone lacks: what it would run for that, the repository itself says. */
export function fetchNothing(): void {
  environment = { ...process.env, GIT_NO_LAZY_FETCH: '1', GIT_ALLOW_PROTOCOL: '' }
}

/** What git prints. Throws execFile's error, with git's exit code as `code` and its words in `stderr`. */
export async function git(directory: string, args: string[]): Promise<string> {
  const options = { cwd: directory, env: environment, maxBuffer: 256 * 1024 * 1024 }
  const { stdout } = await execute('git', [...settings, ...args], options)
  return stdout
}

/** Whether git can do that, whatever it prints. */
export const succeeds = (directory: string, args: string[]): Promise<boolean> =>
  git(directory, args).then(
    () => true,
    () => false,
  )
