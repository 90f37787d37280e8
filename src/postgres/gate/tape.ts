/** What passed the gate: every statement with its revision, duration and how PostgreSQL answered. */
export interface TapeEntry {
  /** The revision that was running; null before the first one. */
  revision: string | null
  sql: string
  /** Text parameters as sent; binary ones as `\x…`. */
  parameters: (string | null)[]
  /** When it began to run, as `performance.now()` counts: when it was sent, or when the one before it was answered. */
  since: number
  /** Milliseconds from the previous answer (or from sending, if that was later) to this one. */
  duration: number
  /** The command tag, such as `INSERT 0 2`; null when the statement failed. */
  tag: string | null
  error: ServerError | null
  /** Whether this is Alembic's or SQLAlchemy's own look-up or bookkeeping, not the script's statement. */
  lookup: boolean
}

/** PostgreSQL's ErrorResponse in words. */
export interface ServerError {
  code: string
  message: string
  detail?: string
  hint?: string
  /** Characters from the start of the statement, counted from 1. */
  position?: number
  context?: string
  table?: string
  constraint?: string
}

/** The most notices that are kept. */
const mostNotices = 1_000

/** How much of a refused statement, of any other, and of a parameter is kept, in characters; the rest is only counted. */
const kept = { refused: 100_000, sql: 10_000, parameter: 10_000 }

function shortened(text: string, limit: number): string {
  if (text.length <= limit) return text
  // A copy: V8's slice of a string would keep all of it.
  const start = Buffer.from(text.slice(0, limit), 'utf16le').toString('utf16le')
  return `${start} … (${text.length} characters)`
}

export class Tape {
  readonly entries: TapeEntry[] = []
  /** Hear of each entry as it is made. */
  readonly listeners: ((entry: TapeEntry) => void)[] = []
  readonly #notices: string[] = []
  #noticesDropped = 0
  revision: string | null = null
  #sent = 0
  #last = 0

  /** `versionTable`: Alembic's own, whose rows are bookkeeping and not the script's. */
  constructor(private readonly versionTable: string) {}

  /** Notes a statement that goes upstream now; call the returned function when it is answered. */
  start(sql: string, parameters: () => (string | null)[]): (tag: string | null, error?: ServerError) => void {
    const sent = performance.now()
    this.#sent = sent
    const revision = this.revision
    return (tag, error) => {
      const now = performance.now()
      const since = Math.max(sent, this.#last)
      this.#last = now
      const entry: TapeEntry = {
        revision,
        sql: shortened(sql, error ? kept.refused : kept.sql),
        parameters: parameters().map(value => value && shortened(value, kept.parameter)),
        since,
        duration: now - since,
        tag,
        error: error ?? null,
        lookup: isLookup(sql, this.versionTable),
      }
      this.entries.push(entry)
      for (const listener of this.listeners) listener(entry)
    }
  }

  notice(severity: string, message: string): void {
    if (this.#notices.length < mostNotices) this.#notices.push(`${severity}: ${shortened(message, kept.parameter)}`)
    else this.#noticesDropped++
  }

  /** PostgreSQL's notices as `SEVERITY: message`; of very many, the first ones and a count. */
  get notices(): string[] {
    const more = this.#noticesDropped
    return more > 0 ? [...this.#notices, `… ${more} more notices`] : this.#notices
  }

  /** Since when neither a statement nor an answer has passed, as `performance.now()` counts. */
  get quietSince(): number {
    return Math.max(this.#sent, this.#last)
  }

  /** The last statement that PostgreSQL refused, if any. */
  get failure(): TapeEntry | undefined {
    return this.entries.findLast(entry => entry.error)
  }
}

/**
 * Statements that Alembic and SQLAlchemy send on their own account: catalog reads, `show`, transaction control, and the
 * version table with its rows.
 */
function isLookup(sql: string, versionTable: string): boolean {
  const head = sql.slice(0, 2_000)
  const [, verb] = firstWord.exec(head) ?? []
  switch (verb?.toLowerCase()) {
    case 'show':
    case 'begin':
    case 'commit':
    case 'rollback':
    case 'savepoint':
    case 'release':
    case 'deallocate':
      return true
    case 'select':
      return ofTheCatalog.test(head) || isOf(versionTable, head)
    case 'insert':
    case 'update':
    case 'delete':
    case 'create':
      return isOf(versionTable, head)
    default:
      return false
  }
}

const firstWord = /^\s*(\w+)/
const ofTheCatalog = /\b(pg_catalog\.|pg_class\b|version\(\)|current_schema\(\))/i
const tableOf = /^\s*(?:insert into|update|delete from|create table|select .* from)\s+((?:"[^"]+"|[\w.$])+)/is

function isOf(table: string, head: string): boolean {
  const [, name] = tableOf.exec(head) ?? []
  return name?.split('.').at(-1)?.replaceAll('"', '') === table
}

/** Reads the fields of an ErrorResponse; source: protocol-error-fields.html of PostgreSQL's documentation. */
export function serverError(fields: Record<string, string>): ServerError {
  return {
    code: fields.C ?? 'XX000',
    message: fields.M ?? '',
    ...(fields.D && { detail: fields.D }),
    ...(fields.H && { hint: fields.H }),
    ...(fields.P && { position: Number(fields.P) }),
    ...(fields.W && { context: fields.W }),
    ...(fields.t && { table: fields.t }),
    ...(fields.n && { constraint: fields.n }),
  }
}
