import type { Client } from 'pg'
import { Failure } from '../failure'
import { noTransactionTimeout } from './transaction'

/** "atomic" in ASCII. */
const first = 0x61746f6d6963

/** The keys of our advisory locks. They are public: whoever may connect can take one. */
export const lockKeys = {
  /** Held by the batch's own transaction; two deploys of one database contend for it. */
  deploy: first,
  /** Says, on the first of several databases, that their commit is under way. */
  commit: first + 1,
  /** Every apply takes it before that of the deploy, on a second connection, and holds it until it has read the heads behind its COMMIT. */
  second: first + 2,
}

/** How another session is named that only holds a lock for the one that its name goes on with. */
export const lockOf = (applicationName: string): string => `lock of ${applicationName}`.slice(0, 63)

/** How long another deploy is waited for, in milliseconds. */
const lockPatience = 15 * 60_000

/** Takes a lock until the end of the transaction, if nobody has it. */
export async function tryLock(client: Client, key: number): Promise<boolean> {
  const { rows } = await client.query(`SELECT pg_catalog.pg_try_advisory_xact_lock(${key}) AS locked`)
  return rows[0].locked
}

/**
 * Runs an action with the lock that says that a commit is under way, in a transaction of that client's. False where
 * another run has it, or the action says so. Throws what the action throws, and what PostgreSQL answers.
 */
export async function underCommitLock(client: Client, action: () => Promise<boolean>): Promise<boolean> {
  // A lock of a session would not survive a pooler; an idle READ COMMITTED transaction holds no snapshot.
  await client.query('BEGIN ISOLATION LEVEL READ COMMITTED')
  await client.query('SET LOCAL idle_in_transaction_session_timeout = 0')
  await client.query(noTransactionTimeout)
  return (await tryLock(client, lockKeys.commit)) && (await action())
}

/**
 * Waits for a lock until the transaction has it; `onWait` is called, about twice a minute, while somebody else has it,
 * and says who. Throws a Failure `lock-timeout` when they keep it, `cancelled` when the step is.
 */
export async function waitForLock(
  client: Client,
  key: number,
  onWait: () => Promise<string>,
  signal: AbortSignal,
  patience = lockPatience,
): Promise<void> {
  const started = Date.now()
  let holder = ''
  for (let pause = 50, told = 0; !(await tryLock(client, key)); pause = Math.min(pause * 1.5, 1_000)) {
    if (Date.now() - started > patience) {
      throw new Failure(
        'lock-timeout',
        `Another deploy of this database has held its lock for 15 minutes${named(holder)}.`,
        {
          advice:
            'Look at that session; this run can be started again when it has ended. If it is no deploy, whoever may connect can hold that lock: pg_terminate_backend ends the session.',
        },
      )
    }
    if (told === 0 || Date.now() - told > 30_000) {
      told = Date.now()
      holder = await onWait()
    }
    await new Promise(resolve => setTimeout(resolve, pause))
    if (signal.aborted) throw new Failure('cancelled', 'The step was cancelled while it waited for another deploy.')
  }
}

/** A holder at the end of a clause. */
export const named = (holder: string): string => holder && `: ${holder}`

/**
 * Who holds a lock, in words, by a connection that is not in a transaction (pg_stat_activity is cached there); empty when
 * nobody does any more. Another role's address, and since when, is visible only with `pg_read_all_stats`.
 */
export async function lockHolder(client: Client, key: number): Promise<string> {
  const { rows } = await client.query<Holder>(
    `SELECT l.pid, a.application_name AS application, a.usename AS role, pg_catalog.host(a.client_addr) AS address,
            pg_catalog.to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') AS since,
            (SELECT pg_catalog.format('%s of role %s, since %s', p.gid, p.owner,
                      pg_catalog.to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
             FROM pg_catalog.pg_locks x JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
             WHERE x.pid IS NULL AND x.virtualtransaction = l.virtualtransaction LIMIT 1) AS prepared
     FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
       AND (l.classid::bigint << 32 | l.objid::bigint) = ${key}
     ORDER BY l.pid`,
  )
  return rows.map(describe).join(' and ')
}

interface Holder {
  pid: number | null
  application: string | null
  since: string | null
  role: string | null
  address: string | null
  prepared: string | null
}

function describe({ pid, application, since, role, address, prepared }: Holder): string {
  // Source: pg_locks in view-pg-locks.html.
  if (pid === null) return `a prepared transaction (${prepared ? `${prepared}; ` : ''}see pg_prepared_xacts)`
  const who = [`pid ${pid}`, `since ${since ?? 'unknown'}`, role && `role ${role}`, address && `from ${address}`]
  const name = application?.replace(/^lock of /, '')
  return `${name || 'a session without a name'} (${who.filter(Boolean).join(', ')})`
}
