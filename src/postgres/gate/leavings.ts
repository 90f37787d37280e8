/** What SQL leaves in a session, which has to go with its client. */
import type { Statement } from '../../plan/statements'
import { identifier, join } from './request'
import type { Request } from './upstream'
import * as wire from './wire'

export type Leaving =
  | { kind: 'cursor'; name: string; hold: boolean }
  | { kind: 'prepared'; name: string }
  | { kind: 'table'; name: string; untilCommit: boolean }

/** What a statement leaves in the session, or until the next COMMIT. */
export function leavingOf(tree: Statement['tree']): Leaving | undefined {
  if ('DeclareCursorStmt' in tree) {
    const { portalname: name = '', options = 0 } = tree.DeclareCursorStmt
    return { kind: 'cursor', name, hold: (options & cursorHold) !== 0 }
  }
  if ('PrepareStmt' in tree) return { kind: 'prepared', name: tree.PrepareStmt.name ?? '' }
  if ('CreateStmt' in tree) return temporaryTable(tree.CreateStmt.relation, tree.CreateStmt.oncommit)
  const into =
    'CreateTableAsStmt' in tree
      ? tree.CreateTableAsStmt.into
      : 'SelectStmt' in tree
        ? tree.SelectStmt.intoClause
        : undefined
  return into && temporaryTable(into.rel, into.onCommit)
}

function temporaryTable(
  relation: { relname?: string; schemaname?: string; relpersistence?: string } = {},
  onCommit?: string,
): Leaving | undefined {
  const { relname: name = '', schemaname, relpersistence } = relation
  if (relpersistence !== 't' && schemaname !== 'pg_temp') return undefined
  return { kind: 'table', name, untilCommit: onCommit === 'ONCOMMIT_DROP' }
}

/** CURSOR_OPT_HOLD of PostgreSQL's parsenodes.h. */
const cursorHold = 0x20

/** Whether a COMMIT closes or drops it. */
export const isFleeting = (leaving: Leaving): boolean =>
  leaving.kind === 'table' ? leaving.untilCommit : leaving.kind === 'cursor' && !leaving.hold

export const isCursor = ({ kind }: Leaving): boolean => kind === 'cursor'

/** Closing what does not exist is not an error. */
export const close = ({ kind, name }: Leaving): Request =>
  kind === 'table'
    ? join()
    : { bytes: kind === 'cursor' ? wire.closePortal(name) : wire.closeStatement(name), expected: [{ ends: '3' }] }

export const dropTable = ({ name }: Leaving): string => `DROP TABLE IF EXISTS pg_temp.${identifier(name)} CASCADE`
