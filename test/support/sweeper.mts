import { globSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

/** Waits until whoever started it is gone, then ends the servers in the given folders and removes these. */
const folders = process.argv.slice(2)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {})
process.stdin.resume().once('close', () => {
  for (const folder of folders) {
    for (const file of globSync(join(folder, 'atomic-upgrade-data-*', 'data', 'postmaster.pid'))) end(file)
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 500 })
  }
})

/** Immediate shutdown. The first line of the file is the server's process id. */
function end(file: string): void {
  try {
    process.kill(Number.parseInt(readFileSync(file, 'utf8'), 10), 'SIGQUIT')
  } catch {
    // It ended by itself.
  }
}
