/** Why a step failed; the values of the output `failure-reason`. */
export type FailureReason =
  | 'invalid-input'
  | 'connection-failed'
  | 'unknown-revision'
  | 'multiple-heads'
  | 'render-failed'
  | 'migration-failed'
  | 'not-transactional'
  | 'lock-timeout'
  | 'drift'
  | 'plan-changed'
  | 'not-reviewed'
  | 'untrusted'
  | 'not-permitted'
  | 'commit-failed'
  | 'cancelled'
  | 'internal'

/** A place in a file of the user's. */
export interface Place {
  /** Relative to the workspace where it lies inside it. */
  file: string
  line: number | null
}

/** What PostgreSQL said about the statement it refused. */
export interface StatementFailure {
  sql: string
  /** SQLSTATE; empty where PostgreSQL was not asked. */
  code: string
  message: string
  detail?: string
  hint?: string
  /** Characters from the start of `sql`, counted from 1. */
  position?: number
  /** Where in functions it happened. */
  context?: string
}

/** Words of others in a message of ours, which may repeat what rows and statements hold. */
export interface Quotation {
  /** PostgreSQL's error, a Python error as `Class: words`, what another session runs, a sentence with an enum's value, SQL. */
  of: 'postgres' | 'python' | 'session' | 'value' | 'statement'
  text: string
  /** Whether PostgreSQL only passes on what a function says. */
  raised?: boolean
}

export interface FailureDetails {
  /** What to do about it; a sentence. */
  advice?: string
  /** The database it happened in, where there are several. */
  bind?: string
  revision?: string
  place?: Place
  statement?: StatementFailure
  /** What of the message is the words of others, besides those of `statement` and `cause`. */
  quotes?: Quotation[]
  /** Whether the same batch may well succeed a little later: another session was in the way. */
  transient?: boolean
  cause?: unknown
}

/** A failure in words for the user. `message` says what happened, in one sentence or a few. */
export class Failure extends Error {
  constructor(
    readonly reason: FailureReason,
    message: string,
    readonly details: FailureDetails = {},
  ) {
    super(message, { cause: details.cause })
    this.name = 'Failure'
  }
}

/** Any thrown value as a Failure; what we did not foresee is `internal`. */
export const asFailure = (error: unknown): Failure => (error instanceof Failure ? error : asFault(error))

/** What nobody foresaw, or nobody waited for. */
export function asFault(error: unknown): Failure {
  return new Failure('internal', messageOf(error), {
    advice: 'This is a fault of Atomic Upgrade itself; please report it with the log of this step.',
    cause: error,
  })
}

/** The words of any thrown value. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(messageOf).join('; ')
  if (error instanceof Error) return error.message || error.name
  return String(error)
}

/** What has to be there by now. Throws where it is not, which is a fault of ours. */
export function required<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`There is no ${what}`)
  return value
}
