import type { Client, DatabaseError } from 'pg'
import { Failure, messageOf, required } from '../failure'
import { disconnect, isServerError } from './connection'
import { identifier } from './heads'
import { firstOf } from './rows'

export interface Timeouts {
  /** In PostgreSQL's syntax, such as `5s`. */
  lockTimeout: string
  statementTimeout: string
}

/** What a transaction is told of the server as it begins. */
type Begun = Record<'read_only' | 'standby' | 'synchronous_commit' | 'pid', string>

/**
 * The one transaction that the batch becomes part of, on a client that is used for nothing else.
 * Statements between `begin` and `commit` are the gate's.
 */
export class Transaction {
  private constructor(
    readonly client: Client,
    /** The server process. What a connection is told as it begins is the pooler's, where there is one. */
    readonly pid: number,
    /** Said at the start and again whenever a script's settings are cleared; LOCAL, because a pooler's server connection outlives us. */
    readonly settings: string[],
    /** Milliseconds; 0 is no limit. */
    readonly lockTimeout: number,
  ) {}

  #id: string | undefined
  /** Committed or prepared: nothing of it is left on the connection. */
  #over = false

  /** The transaction's id (xid8), after `identify`. */
  get id(): string {
    return required(this.#id, 'id of the transaction')
  }

  /** Throws a Failure: `not-permitted` on a read-only server or role, `invalid-input` for a timeout that is none. */
  static async begin(client: Client, { lockTimeout, statementTimeout }: Timeouts): Promise<Transaction> {
    // Under a default of repeatable read, the heads that are read again behind the lock would be stale.
    await client.query('BEGIN ISOLATION LEVEL READ COMMITTED')
    const { read_only, standby, synchronous_commit, pid } = firstOf(
      await client.query<Begun>(`SELECT
      pg_catalog.current_setting('transaction_read_only') AS read_only,
      pg_catalog.pg_is_in_recovery()::text AS standby,
      pg_catalog.current_setting('synchronous_commit') AS synchronous_commit,
      pg_catalog.pg_backend_pid()::text AS pid`),
    )
    if (read_only === 'on') {
      throw new Failure(
        'not-permitted',
        standby === 'true'
          ? 'The server is a standby: nothing can be written to it.'
          : 'The database or the role is read-only (default_transaction_read_only is on).',
        {
          advice:
            standby === 'true'
              ? 'Let database-url lead to the primary.'
              : 'Use a role that may write; the setting is a guard of somebody’s and is respected.',
        },
      )
    }
    await checkTimeout(client, 'lock-timeout', 'lock_timeout', lockTimeout)
    await checkTimeout(client, 'statement-timeout', 'statement_timeout', statementTimeout)
    const settings = [
      `SET LOCAL lock_timeout = ${quote(lockTimeout)}`,
      `SET LOCAL statement_timeout = ${quote(statementTimeout)}`,
      'SET LOCAL idle_in_transaction_session_timeout = 0',
      // With `off` an acknowledged COMMIT may be lost in a crash; `remote_apply` is stronger still, and stays.
      ...(synchronous_commit === 'remote_apply' ? [] : ['SET LOCAL synchronous_commit = on']),
      'SET LOCAL tcp_keepalives_idle = 30',
      'SET LOCAL tcp_keepalives_interval = 10',
      'SET LOCAL tcp_keepalives_count = 3',
    ]
    await together(client, settings)
    const whereKnown = [
      // From 14, and only where the platform can tell that a client has gone.
      "SET LOCAL client_connection_check_interval = '2s'",
      // From 17: the limit that a role or a database has is for others.
      'SET LOCAL transaction_timeout = 0',
    ]
    for (const setting of whereKnown) if (await isAccepted(client, setting)) settings.push(setting)
    const { setting } = firstOf(
      await client.query<{ setting: string }>("SELECT setting FROM pg_catalog.pg_settings WHERE name = 'lock_timeout'"),
    )
    return new Transaction(client, Number(pid), settings, Number(setting))
  }

  /** Gives the transaction its id. */
  async identify(): Promise<void> {
    this.#id = await this.#currentId()
  }

  /** Begins another one behind a COMMIT, with the same settings. */
  async beginNext(): Promise<void> {
    await together(this.client, ['BEGIN ISOLATION LEVEL READ COMMITTED', ...this.settings])
    this.#over = false
    await this.identify()
  }

  /** Fires what is deferred to the COMMIT. Throws PostgreSQL's error where a constraint is violated. */
  async checkConstraints(): Promise<void> {
    await this.client.query('SET CONSTRAINTS ALL IMMEDIATE')
  }

  /**
   * Throws a Failure when the connection is not in the transaction that was begun. Resolves to the cursors WITH HOLD that
   * are open: PostgreSQL runs what is left of their queries inside the COMMIT.
   */
  async checkIdentity(): Promise<string[]> {
    const { id, cursors } = firstOf(
      await this.client.query<{ id: string; cursors: string[] }>(`SELECT ${currentId},
        ARRAY(SELECT name FROM pg_catalog.pg_cursors WHERE is_holdable)::text[] AS cursors`),
    )
    if (id === this.id) return cursors
    throw new Failure('internal', `The transaction ${this.id} was ended behind our back; now ${id} is open.`, {
      advice: 'Please report this with the script that ran.',
    })
  }

  /** Runs what is left of a cursor's query, as the COMMIT would. Throws what PostgreSQL answers. */
  async exhaust(cursor: string): Promise<void> {
    await this.client.query(`MOVE FORWARD ALL IN ${identifier(cursor)}`)
  }

  /**
   * Clears what scripts have left in the session: cursors, settings, prepared statements, locks, temporary relations. It would
   * outlive the transaction on a pooled connection, and what comes now is not to be read through it. Throws what
   * PostgreSQL answers.
   */
  async clearSession(): Promise<void> {
    const unlock = 'SELECT pg_catalog.pg_advisory_unlock_all()'
    await together(this.client, ['CLOSE ALL', ...this.#cleared, 'DEALLOCATE ALL', unlock, 'DISCARD TEMP'])
  }

  /** What comes now is not for a script's SET ROLE, for one. */
  async clearSettings(): Promise<void> {
    await together(this.client, this.#cleared)
  }

  get #cleared(): string[] {
    // The role of the connection's start need not be that of the session: ALTER ROLE … SET role.
    return ['RESET SESSION AUTHORIZATION', 'RESET ROLE', 'RESET ALL', ...this.settings]
  }

  /**
   * Commits. Resolves only when PostgreSQL has answered COMMIT.
   * Throws a Failure `commit-failed` when it refused, and any other error when the answer is not known.
   */
  async commit(): Promise<void> {
    let command: string
    try {
      command = (await this.client.query('COMMIT')).command
    } catch (error) {
      if (!isServerError(error)) throw error
      throw new Failure('commit-failed', `PostgreSQL refused the COMMIT: ${messageOf(error)}.`, {
        statement: {
          sql: 'COMMIT',
          code: error.code ?? '',
          message: error.message,
          ...(error.detail && { detail: error.detail }),
        },
        cause: error,
      })
    }
    // PostgreSQL answers ROLLBACK, without an error, to the COMMIT of a failed transaction.
    if (command !== 'COMMIT') {
      throw new Failure('commit-failed', `PostgreSQL answered ${command} to the COMMIT: the transaction had failed.`)
    }
    this.#over = true
  }

  /**
   * Prepares the transaction under that name, for COMMIT PREPARED or ROLLBACK PREPARED. Resolves only when PostgreSQL
   * has answered. Throws a Failure when it refused, and any other error when the answer is not known.
   */
  async prepare(gid: string): Promise<void> {
    let command: string
    try {
      command = (await this.client.query(`PREPARE TRANSACTION '${gid}'`)).command
    } catch (error) {
      if (!isServerError(error)) throw error
      throw refusedToPrepare(error)
    }
    if (command !== 'PREPARE') {
      throw new Failure('commit-failed', `PostgreSQL answered ${command} to PREPARE TRANSACTION: it had failed.`)
    }
    this.#over = true
  }

  /** Rolls back what is not committed and closes the connection; a server that cannot hear it rolls back by itself. */
  async end(): Promise<void> {
    if (!this.#over) {
      await Promise.race([
        // In one message, since a pooler may give the next one to another server connection.
        this.client.query('ROLLBACK; DEALLOCATE ALL').catch(() => {}),
        new Promise<void>(resolve => setTimeout(resolve, 2_000).unref()),
      ])
    }
    await disconnect(this.client)
  }

  async #currentId(): Promise<string> {
    const { rows } = await this.client.query(`SELECT ${currentId}`)
    return rows[0].id
  }
}

/** For a transaction of ours that only holds a lock; servers before 17 have no such limit. */
export const noTransactionTimeout = `SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'`

const currentId = 'pg_catalog.pg_current_xact_id()::text AS id'

function refusedToPrepare(error: DatabaseError): Failure {
  const { code = '', message, detail } = error
  const statement = { sql: 'PREPARE TRANSACTION', code, message, ...(detail && { detail }) }
  // feature_not_supported: temporary tables, LISTEN, NOTIFY and cursors WITH HOLD cannot be prepared.
  if (code === '42710') {
    return new Failure('commit-failed', `PostgreSQL refused to prepare the transaction: ${message}.`, {
      statement,
      advice:
        'Somebody else has prepared a transaction under this name, which whoever may connect can do: pg_prepared_xacts has its owner, who can end it by ROLLBACK PREPARED, as a superuser can. Run the step again: its name will be another one.',
      cause: error,
    })
  }
  return code === '0A000'
    ? new Failure('not-transactional', `PostgreSQL cannot prepare this transaction: ${message}.`, {
        statement,
        advice: 'Take that out of the migration, or set two-phase: never.',
        cause: error,
      })
    : new Failure('commit-failed', `PostgreSQL refused to prepare the transaction: ${message}.`, {
        statement,
        cause: error,
      })
}

/** Several statements in one message, and so in one round trip. */
const together = (client: Client, statements: string[]) => client.query(statements.join('; '))

const quote = (text: string) => `'${text.replaceAll("'", "''")}'`

async function checkTimeout(client: Client, input: string, setting: string, value: string): Promise<void> {
  if (value.includes('\\') || !(await isAccepted(client, `SET LOCAL ${setting} = ${quote(value)}`))) {
    throw new Failure('invalid-input', `${input}: “${value}” is not a time in PostgreSQL’s syntax.`, {
      advice: 'Write a number and a unit, such as 500ms, 5s or 2min; 0 is off.',
    })
  }
}

async function isAccepted(client: Client, sql: string): Promise<boolean> {
  const savepoint = 'SAVEPOINT atomic_upgrade_try'
  try {
    await together(client, [savepoint, sql, `RELEASE ${savepoint}`])
    return true
  } catch (error) {
    if (!isServerError(error)) throw error
    await together(client, [`ROLLBACK TO ${savepoint}`, `RELEASE ${savepoint}`])
    return false
  }
}
