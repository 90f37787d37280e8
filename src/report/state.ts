import type { Failure } from '../failure'
import { type DatabaseResult, nameHeads, outcomeOf, type Result } from '../plan/result'
import { type Spoken, stateSaid } from './outcomes'
import type { Style } from './standing'
import { clip, describeStatement, longest } from './words'

/** The state of the databases, a sentence for each; empty where there is none to speak of. */
export function stateOf(result: Result, name?: (heads: string[]) => string): string {
  return result.databases
    .map(database => stateSaid(outcomeOf(database, result), spokenOf(database, result, name)))
    .filter(Boolean)
    .join(result.databases.length > 1 ? '\n' : ' ')
}

/** One database as it is spoken of, its heads by `name`; `bind` stands for its own where that is written otherwise. */
export function spokenOf(
  state: DatabaseResult,
  result: Result,
  name: (heads: string[]) => string = nameHeads,
  { style, bind = state.bind }: { style?: Style; bind?: string } = {},
): Spoken {
  const the = result.databases.length > 1 ? `The database ${bind}` : 'The database'
  return { state, result, the, name, style }
}

/** Everything that a person needs after a failure, as plain text: what happened, the database's state, what to do. */
export function explain(result: Result): string {
  const { message = '', details = {} }: Partial<Failure> = result.failure ?? {}
  const statement = details.statement && describeStatement(details.statement)
  return [clip(message, longest), statement, stateOf(result), details.advice].filter(Boolean).join('\n')
}
