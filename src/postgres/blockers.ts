import { setInterval } from 'node:timers/promises'
import type { Client } from 'pg'
import { disconnect } from './connection'

/** The most of another session's query that is shown, in characters. */
const shown = 200

/**
 * The sessions that keep a server process waiting for a lock, in words; by a connection that is not in a transaction
 * (pg_stat_activity is cached there). Another role's query is visible only with `pg_read_all_stats`.
 */
export async function blockersOf(client: Client, pid: number): Promise<string[]> {
  const { rows } = await client.query<Record<'pid' | 'application' | 'user' | 'since' | 'state' | 'query', string>>(
    `SELECT b.pid::text AS pid, coalesce(nullif(a.application_name, ''), a.backend_type, 'a session') AS application,
            coalesce(a.usename, '') AS user, coalesce(a.state, '') AS state, coalesce(a.query, '') AS query,
            coalesce(to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), '') AS since
     FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) AS b (pid)
     LEFT JOIN pg_catalog.pg_stat_activity a USING (pid) ORDER BY b.pid`,
    [pid],
  )
  const described = rows.map(({ pid, application, user, since, state, query }) => {
    // Source: pg_blocking_pids in functions-info.html.
    if (pid === '0') return 'a prepared transaction (see pg_prepared_xacts)'
    const who = [`pid ${pid}`, user && `user ${user}`, since && `in a transaction since ${since}`, state]
    const last = query.replaceAll(/\s+/g, ' ').trim()
    const told = last && `: ${last.length > shown ? `${last.slice(0, shown)}…` : last}`
    return `${application} (${who.filter(Boolean).join(', ')})${told}`
  })
  return [...new Set(described)]
}

export interface LockWatchOptions {
  /** The server process that may wait. */
  pid: number
  /** Since when nothing has passed, as `performance.now()` counts. */
  quietSince: () => number
  /** `lock_timeout` in milliseconds; 0 is none. */
  lockTimeout: number
  /** A connection of the watch's own, made when there is something to look at. */
  connect: () => Promise<Client>
  /** Told of the sessions waited for, each time there are others. */
  onWait: (blockers: string[]) => void
}

/**
 * Looks, while a statement takes long, for whom it waits: the error after a lock timeout does not tell.
 */
export class LockWatch {
  /** What was seen last, and of the wait that began when. */
  #seen: { since: number; blockers: string[] } = { since: 0, blockers: [] }
  readonly #ended = new AbortController()
  readonly #watching: Promise<void>

  constructor(private readonly options: LockWatchOptions) {
    this.#watching = this.#watch().catch(() => {
      // Ended, or no second connection was to be had: the wait goes on unexplained.
    })
  }

  /** Whom the statement waited for that nothing has passed before since `since`. */
  blockersSince(since: number | undefined): string[] {
    return since === this.#seen.since ? this.#seen.blockers : []
  }

  async end(): Promise<void> {
    this.#ended.abort()
    await this.#watching
  }

  async #watch(): Promise<void> {
    const { pid, quietSince, lockTimeout, connect, onWait } = this.options
    const patience = lockTimeout > 0 ? Math.min(lockTimeout / 3, 1_000) : 1_000
    let client: Client | undefined
    let told = ''
    try {
      for await (const _ of setInterval(patience / 2, undefined, { signal: this.#ended.signal, ref: false })) {
        const since = quietSince()
        if (performance.now() - since < patience) continue
        client ??= await connect()
        const found = await blockersOf(client, pid)
        if (found.length === 0 || since !== quietSince()) continue
        this.#seen = { since, blockers: found }
        // What they do changes while they hold the lock; who they are is told once.
        const who = found.map(each => /pid \d+/.exec(each)?.[0]).join()
        if (who !== told) onWait(found)
        told = who
      }
    } finally {
      if (client) await disconnect(client)
    }
  }
}
