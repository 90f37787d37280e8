import { spawn } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, nobody, query, superuser } from '../support/postgres.mts'

export interface Pooler {
  /** The URL of a database by way of the pooler. */
  through(url: string): string
  stop(): Promise<void>
}

/** PgBouncer in transaction mode, with one server connection a database, in front of the server of `url`. */
export async function startPooler(url: string): Promise<Pooler> {
  const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-pgbouncer-'))
  const server = new URL(url)
  const port = await freePort()
  const files = {
    users: `"${superuser.user}" "${superuser.password}"\n`,
    ini: `[databases]
* = host=${server.hostname} port=${server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${join(folder, 'users')}
pool_mode = transaction
default_pool_size = 1
server_reset_query_always = 0
`,
  }
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content)
  // It refuses to run as root.
  const owner = nobody()
  if (owner) {
    chmodSync(folder, 0o700)
    for (const path of [folder, ...Object.keys(files).map(name => join(folder, name))])
      chownSync(path, owner.uid, owner.gid)
  }
  const child = spawn('pgbouncer', [join(folder, 'ini')], { ...owner, stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  const ended = new Promise<void>(resolve => child.once('close', () => resolve()))
  let running = true
  void ended.then(() => {
    running = false
  })
  child.on('error', error => {
    log += error.message
  })
  child.stderr.on('data', chunk => {
    log += chunk
  })
  const pooler: Pooler = {
    through: each => each.replace(`:${server.port}/`, `:${port}/`),
    async stop() {
      child.kill('SIGINT')
      await ended
      rmSync(folder, { recursive: true, force: true })
    },
  }
  for (;;) {
    if (!running) throw new Error(`PgBouncer does not run (Debian's package pgbouncer):\n${log}`)
    try {
      await query(pooler.through(url), 'SELECT 1')
      return pooler
    } catch {
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }
}
