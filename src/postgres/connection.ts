import type { Duplex } from 'node:stream'
import pg, { type Client } from 'pg'
import { Failure, type FailureDetails, messageOf } from '../failure'
import type { Database } from './url'

/** Seconds to wait for a connection where the URL has no `connect_timeout`. */
const patience = 15

/**
 * Connects one client, no pool. `applicationName` is what others see in pg_stat_activity; `signal` ends the attempt.
 * Throws a Failure `connection-failed` in words.
 */
export async function connect(database: Database, applicationName: string, signal?: AbortSignal): Promise<Client> {
  const { config, tls } = database
  const attempt = (ssl: typeof config.ssl) => open({ ...config, ssl }, applicationName, signal)
  try {
    return await attempt(config.ssl).catch(error => {
      // libpq's `prefer`: without TLS where the server has none.
      if (tls === 'prefer' && /does not support SSL/.test(messageOf(error))) return attempt(false)
      throw error
    })
  } catch (error) {
    throw connectionFailure(database, error)
  }
}

/** Why the connection of a client broke while it was open; what pg says later of it is only that it did. */
const lost = new WeakMap<Client, unknown>()

async function open(config: pg.ClientConfig, applicationName: string, signal?: AbortSignal): Promise<Client> {
  const seconds = Number((config as { connect_timeout?: string }).connect_timeout) || patience
  const client = new pg.Client({
    ...config,
    application_name: applicationName,
    connectionTimeoutMillis: seconds * 1000,
    keepAlive: true,
    keepAliveInitialDelayMillis: 15_000,
  })
  // A lost connection also rejects the query under way, where it is dealt with; pg tells of it here first.
  client.on('error', error => lost.has(client) || lost.set(client, error))
  const stop = () => sever(client)
  signal?.addEventListener('abort', stop)
  try {
    await client.connect()
  } finally {
    signal?.removeEventListener('abort', stop)
  }
  return client
}

/** Ends a connection at once, whatever is under way on it; PostgreSQL rolls back. */
export function sever(client: Client): void {
  // pg has no word for this: its socket is an inside of it, as in gate/upstream.ts.
  ;(client as unknown as { connection: { stream: Duplex } }).connection.stream.destroy()
}

function connectionFailure({ name, tls, fromEnvironment }: Database, error: unknown): Failure {
  const { code } = error as { code?: string }
  const told = messageOf(error)
  const [, what] = inWords.find(([words]) => words.test(told)) ?? []
  const advice =
    (code && adviceByCode[code]) ??
    (/does not support SSL/.test(told)
      ? `sslmode is ${tls}, and the server has TLS switched off.`
      : /certificate|self.signed/i.test(told)
        ? 'Give the server’s CA with sslrootcert=PATH in the URL, and use the host name that is in its certificate.'
        : 'Check that the database runs and can be reached from this runner.')
  const borrowed =
    fromEnvironment.length > 0
      ? ` What database-url leaves out, this job’s environment says: look at ${fromEnvironment.join(', ')}.`
      : ''
  return new Failure('connection-failed', `Could not connect to ${name}: ${what ?? (told || code)}.`, {
    advice: advice + borrowed,
    cause: error,
  })
}

/** What pg says in words of its own insides. */
const inWords: [RegExp, string][] = [
  [/^SASL: .*password must be a/, 'the server asks for a password, and there is none in database-url'],
  [/^There was an error establishing an SSL connection/, 'what listens there does not answer as PostgreSQL does'],
  [/^Connection terminated unexpectedly/, 'the connection was closed before the server had answered'],
]

const adviceByCode: Record<string, string> = {
  ENOTFOUND: 'Check the host in database-url.',
  EAI_AGAIN: 'Check the host in database-url.',
  ECONNREFUSED: 'Check host and port in database-url, and that the server is up and reachable from this runner.',
  ETIMEDOUT: 'Check that a firewall lets this runner in.',
  '28P01': 'Check user and password in database-url.',
  '28000': 'The server’s pg_hba.conf does not let this user in from here, or not without TLS (sslmode=require).',
  '3D000': 'Check the database’s name in database-url.',
  '53300': 'The server has no free connection; try again, or keep one for this role.',
  '57P03': 'The server is starting up or shutting down; try again.',
}

/** Closes a connection without waiting for a server that does not answer; its socket would keep the process alive. */
export async function disconnect(client: Client): Promise<void> {
  await Promise.race([client.end().catch(() => {}), new Promise<void>(resolve => setTimeout(resolve, 1_000).unref())])
  sever(client)
}

/** The Failure of a connection that broke while it was in use, if that is why `error` was thrown. */
export function lossOf(client: Client, error: unknown): Failure | undefined {
  if (error instanceof Failure || isServerError(error)) return undefined
  return lost.has(client) || error instanceof pg.DatabaseError ? connectionLost(causeOf(client, error)) : undefined
}

/** Why a client's connection broke, where it did; else the error. */
export const causeOf = (client: Client, error: unknown): unknown => lost.get(client) ?? error

export function connectionLost(cause: unknown, details: FailureDetails = {}): Failure {
  return new Failure('connection-failed', `The connection to PostgreSQL was lost: ${messageOf(cause)}.`, {
    advice: 'PostgreSQL rolls an open transaction back when its connection ends. Run the step again.',
    cause,
    ...details,
  })
}

/**
 * Whether an error came from PostgreSQL as an answer, as opposed to a connection that broke, or that the server ends:
 * by an administrator, with the database, or at a timeout. Source: PostgreSQL's errcodes.txt.
 */
export function isServerError(error: unknown): error is pg.DatabaseError {
  return error instanceof pg.DatabaseError && !/^(57P0[1-5]|25P0[34]|08)/.test(error.code ?? '')
}
