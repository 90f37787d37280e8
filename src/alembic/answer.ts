import type { PlaceInScript, RenderedStatement } from '../plan/plan'

/** One JSON line of the driver's. */
export interface Answer {
  /** Of the interpreter that is forked for each run: how one has ended. */
  ended?: { run: number; code: number | null; signal: string | null }
  /** Of the same: the number of a run that cannot be forked. */
  alone?: number
  /** Comes before `loaded`, mostly once: scripts that the action is to read. */
  files?: string[]
  loaded?: {
    revisions: {
      id: string
      /** Which of the scripts that were read. */
      file: number
      down: string[]
      depends_on: string[]
      labels: string[]
      message: string
      path: string
      created: string
    }[]
    heads: string[]
    databases: { bind: string; version_table: string; version_table_schema: string | null }[]
  }
  /** Comes before `planned`: one statement of a revision, in their order. */
  statement?: RenderedStatement
  resolved?: Record<string, { prior: string[]; new: string[]; revisions: { id: string; heads: string[] }[] }>
  planned?: Record<string, RenderedBatch>
  /** Comes at any time: the path of the script that is about to be imported or rendered; null when that has ended. */
  at?: string | null
  revision?: { bind: string; id: string }
  /** The number of the connection that Alembic runs the scripts on. */
  own?: number
  speaker?: { connection: number; thread: string; task: string | null; place: { file: string; line: number } | null }
  ran?: true
  failed?: {
    kind: string
    message: string
    /** What of the message is a Python error's. */
    quoted?: string
    frames?: { file: string; line: number }[]
    bind?: string | null
    revision?: string | null
    line?: number | null
    database?: boolean
    path?: string
  }
}

export interface RenderedBatch {
  revisions: {
    id: string
    /** Which of the statements that came before: from, and up to without that one. */
    statements: [number, number]
    reason: string | null
    line: number | null
    concurrently?: PlaceInScript[]
    mentions?: PlaceInScript[]
    strings?: PlaceInScript[]
  }[]
}

/** Reads an answer; undefined where the line is none, whoever has written it. */
export function readAnswer(json: string): Answer | undefined {
  try {
    const value: unknown = JSON.parse(json)
    return isAnswer(value) ? (value as Answer) : undefined
  } catch {
    return undefined
  }
}

type Check = (value: unknown) => boolean

const text: Check = value => typeof value === 'string'
const number: Check = value => Number.isInteger(value)
const truth: Check = value => typeof value === 'boolean'
const or =
  (check: Check, ...others: unknown[]): Check =>
  value =>
    others.includes(value) || check(value)
const list =
  (check: Check): Check =>
  value =>
    Array.isArray(value) && value.every(check)
const record =
  (check: Check): Check =>
  value =>
    typeof value === 'object' && value !== null && !Array.isArray(value) && Object.values(value).every(check)
const fields = (checks: Record<string, Check>): Check => {
  const all = Object.entries(checks)
  return value =>
    typeof value === 'object' &&
    value !== null &&
    all.every(([name, check]) => check((value as Record<string, unknown>)[name]))
}

const texts = list(text)
const line = or(number, null)
const places = or(list(fields({ line: number, text })), undefined)

const isAnswer = fields({
  ended: or(fields({ run: number, code: or(number, null), signal: or(text, null) }), undefined),
  alone: or(number, undefined),
  files: or(texts, undefined),
  loaded: or(
    fields({
      revisions: list(
        fields({
          id: text,
          file: number,
          down: texts,
          depends_on: texts,
          labels: texts,
          message: text,
          path: text,
          created: text,
        }),
      ),
      heads: texts,
      databases: list(fields({ bind: text, version_table: text, version_table_schema: or(text, null) })),
    }),
    undefined,
  ),
  statement: or(fields({ sql: text, line, own: truth }), undefined),
  resolved: or(
    record(fields({ prior: texts, new: texts, revisions: list(fields({ id: text, heads: texts })) })),
    undefined,
  ),
  planned: or(
    record(
      fields({
        revisions: list(
          fields({
            id: text,
            statements: list(number),
            reason: or(text, null),
            line,
            concurrently: places,
            mentions: places,
            strings: places,
          }),
        ),
      }),
    ),
    undefined,
  ),
  at: or(text, undefined, null),
  revision: or(fields({ bind: text, id: text }), undefined),
  own: or(number, undefined),
  speaker: or(
    fields({
      connection: number,
      thread: text,
      task: or(text, null),
      place: or(fields({ file: text, line: number }), null),
    }),
    undefined,
  ),
  ran: or(truth, undefined),
  failed: or(
    fields({
      kind: text,
      message: text,
      quoted: or(text, undefined),
      frames: or(list(fields({ file: text, line })), undefined),
      bind: or(text, undefined, null),
      revision: or(text, undefined, null),
      line: or(number, undefined, null),
      database: or(truth, undefined),
      path: or(text, undefined, null),
    }),
    undefined,
  ),
})
