import { join, literal, statement, statements } from './request'
import type { Request } from './upstream'
import type * as wire from './wire'

/** The values of settings by their names, in the order in which they can be set. */
export type Values = Record<string, string>

/** The settings of the connection, which clients take turns in. */
export class Settings {
  /** Names with a dot in them, which pg_settings does not show. */
  readonly #custom = new Set<string>()

  /** What a pooler, or we, had set for the connection before the gate was opened. */
  readonly #before: string[]

  /** `own`: the `SET LOCAL` statements of this step, which hold whatever clients set or reset. */
  constructor(
    private readonly own: string[],
    before: Values,
  ) {
    const ours = own.map(sql => sql.split(/\s+/)[2])
    this.#before = setting(Object.entries(before).filter(([name]) => !ours.includes(name)))
  }

  /** A client sets it. */
  note(name: string): void {
    if (name.includes('.')) this.#custom.add(name.toLowerCase())
  }

  /** Says this step's own settings again, or only the one of that name. */
  ownOf(name: string | null): Request {
    if (name === null) return statements(...this.own)
    return statements(...this.own.filter(sql => sql.toLowerCase().startsWith(`set local ${name.toLowerCase()} `)))
  }

  /** What makes the connection forget those of all clients. */
  get reset(): string[] {
    return ['RESET SESSION AUTHORIZATION', 'RESET ALL', ...this.#before, ...this.own]
  }

  /** What sets the client's for a statement outside of a transaction, where SET LOCAL does nothing. */
  outside(values: Values): string[] {
    const own = this.own.map(sql => sql.replace(/^SET LOCAL /, 'SET '))
    return ['RESET SESSION AUTHORIZATION', 'RESET ALL', ...this.#before, ...own, ...setting(Object.entries(values))]
  }

  /** Reads what the client at hand has set. */
  save(saved: (values: Values) => void, error?: (message: wire.Message) => void): Request {
    const row = ([json]: (string | null)[]) => saved(JSON.parse(json ?? '{}'))
    return statement(sessionSettings([...this.#custom]), { row, ...(error && { error }) })
  }

  restore(values: Values, error: (message: wire.Message) => void): Request {
    return join(...[...this.reset, ...setting(Object.entries(values))].map(sql => statement(sql, { error })))
  }
}

/** The statement that sets them for the session, if there are any. */
function setting(values: [string, string][]): string[] {
  const calls = values.map(([name, value]) => `pg_catalog.set_config(${literal(name)}, ${literal(value)}, false)`)
  return calls.length > 0 ? [`SELECT ${calls.join(', ')}`] : []
}

/** Reads what the session has set, as one row with JSON; not all of it is in pg_settings. */
export const sessionSettings = (
  custom: string[] = [],
) => `SELECT pg_catalog.json_object_agg(name, setting ORDER BY rank)::text FROM (
  SELECT 1 AS rank, name, setting FROM pg_catalog.pg_settings WHERE source = 'session' AND context IN ('user', 'superuser')
    AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
  UNION ALL SELECT 2, name, pg_catalog.current_setting(name, true)
    FROM pg_catalog.unnest(ARRAY[${custom.map(literal).join(', ')}]::text[]) AS custom (name)
    WHERE pg_catalog.current_setting(name, true) <> ''
  UNION ALL SELECT 3, 'session_authorization', pg_catalog.current_setting('session_authorization')
  UNION ALL SELECT 4, 'role', pg_catalog.current_setting('role')) AS settings`

/** The settings that a client asks for as it connects; the rest of a StartupMessage is the gate's own business. */
export function startupSettings({ options = '', ...parameters }: Values): Values {
  if (parameters.replication) throw new Error('replication connections are not possible')
  const settings: Values = {}
  for (const [, name = '', value = ''] of options.matchAll(/(?:-c\s*|--)([\w.-]+)=((?:\\.|[^\s\\])*)/g))
    settings[name.replaceAll('-', '_')] = value.replace(/\\(.)/g, '$1')
  for (const [name, value] of Object.entries(parameters))
    if (
      !['user', 'database', 'application_name', 'client_encoding', 'replication'].includes(name) &&
      !name.startsWith('_pq_')
    )
      settings[name] = value
  return settings
}

/** The settings that a server reports to its clients (protocol-flow.html, PostgreSQL 18), but for those asked apart. */
export const reported = [
  'application_name',
  'client_encoding',
  'DateStyle',
  'default_transaction_read_only',
  'in_hot_standby',
  'integer_datetimes',
  'IntervalStyle',
  'scram_iterations',
  'search_path',
  'server_encoding',
  'server_version',
  'standard_conforming_strings',
  'TimeZone',
]
