import { existsSync, readFileSync } from 'node:fs'

/** Those processes that a file names, a line each, which have not ended. */
export function livingIn(pidFile: string): number[] {
  if (!existsSync(pidFile)) return []
  const pids = readFileSync(pidFile, 'utf8').split('\n').filter(Boolean).map(Number)
  return pids.filter(pid => {
    try {
      process.kill(pid, 0)
      return true
    } catch {
      return false
    }
  })
}
