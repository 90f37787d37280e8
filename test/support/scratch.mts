import { spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * Makes the folder of a run, which is the temporary directory of this process and of all that it starts from here on,
 * and returns what removes it. However the process ends, killed included, somebody stays behind who does that, and
 * removes the folder `besides` as well, which its owner removes only when it ends well.
 */
export function useScratch(besides: string): () => void {
  const folders = [mkdtempSync(join(tmpdir(), 'atomic-upgrade-run-'))]
  // PostgreSQL may run as somebody else.
  chmodSync(folders[0]!, 0o755)
  process.env.TMPDIR = folders[0]
  if (storage() !== tmpdir()) {
    const store = mkdtempSync(join(storage(), 'atomic-upgrade-run-'))
    chmodSync(store, 0o755)
    process.env.ATOMIC_UPGRADE_TEST_STORE = store
    folders.push(store)
  }
  const sweeper = spawn(process.execPath, [join(import.meta.dirname, 'sweeper.mts'), ...folders, besides], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  sweeper.unref()
  return () => {
    for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
    sweeper.stdin.end()
  }
}

/** Where databases are: in memory where there is room, since a new one is a thousand files, and the tests make many. */
export function storage(): string {
  if (process.env.ATOMIC_UPGRADE_TEST_STORE) return process.env.ATOMIC_UPGRADE_TEST_STORE
  const memory = '/dev/shm'
  if (!existsSync(memory)) return tmpdir()
  const { bavail, bsize } = statfsSync(memory)
  return bavail * bsize > 6 * 2 ** 30 ? memory : tmpdir()
}
