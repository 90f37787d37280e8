import { Failure, messageOf, type Quotation, type StatementFailure } from '../failure'
import { hideLiterals } from '../plan/literals'
import type { Revision } from '../plan/plan'
import type { DatabaseResult, Result } from '../plan/result'
import { canRunAgain } from '../plan/segments'
import { vocabulary } from './vocabulary'

/**
 * A result for readers who shall see no constants (`hide-literals`): of statements their form, and of what others say
 * only what cannot hold one. Where it is not sure, too little is shown. Needs the parser to be loaded where there are
 * statements.
 */
export function withoutConstants(result: Result): Result {
  const { databases, failure } = result
  return { ...result, databases: databases.map(databaseWithout), failure: failure && failureWithout(failure) }
}

function databaseWithout(database: DatabaseResult): DatabaseResult {
  if (database.plan === null) return database
  const { plan, forecast, segments, standing } = database
  const { obstacles, division } = forecast
  return {
    ...database,
    plan: { ...plan, revisions: plan.revisions.map(revisionWithout) },
    forecast: {
      ...forecast,
      obstacles: obstacles.map(each => ({ ...each, text: hideLiterals(each.text), why: whyWithout(each.why) })),
      division: division && {
        ...division,
        halves: division.halves.map(half => {
          return { ...half, statements: half.statements.filter(sql => !canRunAgain(sql)).map(hideLiterals) }
        }),
      },
    },
    segments: segments.map(({ statement, ...segment }) => {
      return { ...segment, ...(statement !== undefined && { statement: hideLiterals(statement) }) }
    }),
    standing: standing && { ...standing, statements: standing.statements.map(hideLiterals) },
  }
}

function revisionWithout({ statements, notRenderable, ...revision }: Revision): Revision {
  return {
    ...revision,
    ...(statements && { statements: statements.map(each => ({ ...each, sql: hideLiterals(each.sql) })) }),
    ...(notRenderable && { notRenderable: { ...notRenderable, reason: reasonWithout(notRenderable.reason) } }),
  }
}

/**
 * Of a statement its form, of PostgreSQL's words those that it says of anything, with names that the statement has as
 * well, and of a Python error the class.
 */
function failureWithout({ reason, message, details }: Failure): Failure {
  const { statement, cause } = details
  const hidden = statement && statementWithout(statement)
  const names = new Set([...namesIn(hidden?.sql ?? ''), ...namesGiven(cause)])
  const quotations = [...(details.quotes ?? []), ...quotedFrom(statement, cause, reason)]
  const told = quotations
    .filter(({ text }) => text !== '')
    .reduce((told, quotation) => told.replaceAll(quotation.text, () => discreet(quotation, names)), message)
  return new Failure(reason, told, {
    ...details,
    ...(hidden &&
      statement && { statement: { ...hidden, message: statement.message && discreet(fromServer(statement), names) } }),
  })
}

/** Positions count in the statement as it was sent; details and hints repeat what rows hold. */
function statementWithout({ sql, code, message }: StatementFailure): StatementFailure {
  return { sql: hideLiterals(sql), code, message }
}

function quotedFrom(statement: StatementFailure | undefined, cause: unknown, reason: string): Quotation[] {
  const told = messageOf(cause ?? '')
  const asked = statement ? [fromServer(statement)] : []
  if (isOfServer(cause)) return [...asked, { of: 'postgres', text: told, ...(isRaised(cause) && { raised: true }) }]
  return reason === 'internal' ? [...asked, { of: 'python', text: told }] : asked
}

const fromServer = (statement: StatementFailure): Quotation => {
  const { message, code, context } = statement
  return { of: 'postgres', text: message, ...(isRaised({ code, where: context }) && { raised: true }) }
}

interface OfServer {
  code?: string | undefined
  where?: string | undefined
  schema?: string
  table?: string
  column?: string
  dataType?: string
  constraint?: string
}

/** Whether it is an error that PostgreSQL has answered; pg's class has an SQLSTATE. */
const isOfServer = (error: unknown): error is OfServer & Error =>
  error instanceof Error && /^[0-9A-Z]{5}$/.test((error as OfServer).code ?? '') && 'severity' in error

/** The words of RAISE, ASSERT and of functions in other languages are anybody's; source: PostgreSQL's errcodes.txt. */
const isRaised = ({ code = '', where = '' }: OfServer): boolean =>
  /^(P0|38|39)/.test(code) || /\bRAISE\b|PL\/(?!pgSQL)/.test(where)

const namesGiven = (error: unknown): string[] => {
  if (!isOfServer(error)) return []
  const { schema, table, column, dataType, constraint } = error
  return [schema, table, column, dataType, constraint].flatMap(name => (name ? [name] : []))
}

/** The words and quoted names of a statement that has no constants any more. */
function namesIn(sql: string): string[] {
  const quoted = [...sql.matchAll(/"((?:[^"]|"")+)"/g)].map(([, name = '']) => name.replaceAll('""', '"'))
  return [...quoted, ...(sql.match(/[\p{L}_][\p{L}\p{N}_$]*|\d+/gu) ?? [])]
}

function discreet({ of, text, raised = false }: Quotation, names: Set<string>): string {
  switch (of) {
    case 'python':
      return typeOf(text)
    case 'session':
      return text.replace(/\): .*$/s, ')')
    case 'value':
      return whyWithout(text)
    case 'statement':
      return hideLiterals(text)
    case 'postgres':
      return raised ? `(${notShown})` : wordsOf(text, names)
  }
}

const notShown = 'its words are not shown, since they may hold constants'

/** Of a Python error, as `Class: words`; of other words nothing. */
const typeOf = (text: string): string => {
  const [, type] = /^([A-Za-z_][\w.]*)(?=: |$)/.exec(text) ?? []
  return type ? `${type} (${notShown})` : `an error (${notShown})`
}

/** Quoted values, words and numbers that are neither in the vocabulary nor a name become an ellipsis. */
function wordsOf(text: string, names: Set<string>): string {
  const isName = (word: string) => names.has(word) || word.split('.').every(part => names.has(part))
  const shown = text.replaceAll(/"[^"]*"|'[^']*'|[^\s"'(),:;]+/g, piece => {
    const quote = /^["']/.exec(piece)?.[0]
    if (quote) return isName(piece.slice(1, -1)) ? piece : `${quote}…${quote}`
    const [, word = '', end = ''] = /^(.*?)([.?!]?)$/s.exec(piece) ?? []
    return vocabulary.has(word.toLowerCase()) || isName(word) ? piece : `…${end}`
  })
  return shown.replaceAll(/…(?:[\s,:;]*…)+/g, '…')
}

/** Why a statement cannot be in a transaction, without the value of an enum. */
const whyWithout = (why: string): string => why.replace(/'.*'/s, "'…'")

/** Why a script cannot be shown or applied as SQL: a Python error, or our own words, in which a parameter has its name. */
export const reasonWithout = (reason: string): string =>
  /^[A-Za-z_][\w.]*(: |$)/.test(reason) ? typeOf(reason) : whyWithout(reason.replaceAll(/:\S+/g, ':…'))
