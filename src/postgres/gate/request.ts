/** What the gate itself says to PostgreSQL, each statement in an extended-protocol message of its own. */
import { required } from '../../failure'
import type { Request } from './upstream'
import * as wire from './wire'

/** The name of the gate's own prepared statement and portal: clients may have unnamed ones open. */
const own = 'atomic_upgrade'

export interface Handlers {
  row?: (columns: (string | null)[]) => void
  done?: () => void
  error?: (message: wire.Message) => void
}

/** One statement of the gate's own; refused by the server if it were two. */
export function statement(sql: string, { row, done, error }: Handlers = {}): Request {
  const deliver = (message: wire.Message) => {
    if (message.type === 'E') error?.(message)
    else if (message.type === 'D') row?.(wire.readRow(message.body))
  }
  return {
    bytes: Buffer.concat([
      // A client's SQL may have used the name, and an EXECUTE of its own must not find ours.
      wire.closePortal(own),
      wire.closeStatement(own),
      wire.parse(own, sql),
      wire.bind(own, own),
      wire.execute(own),
      wire.closeStatement(own),
    ]),
    expected: [
      { ends: '3', deliver },
      { ends: '3', deliver },
      { ends: '1', deliver },
      { ends: '2', deliver },
      { ends: 'CI', deliver, done: () => done?.() },
      { ends: '3' },
    ],
  }
}

/** Several statements in order; those behind a failing one are not run. */
export const statements = (...sql: string[]): Request => join(...sql.map(text => statement(text)))

/** A Sync; `ready` gets the server's transaction status, `T` or `E`. */
export function syncPoint(ready: (status: string) => void): Request {
  return {
    bytes: wire.sync,
    expected: [
      { ends: 'Z', done: last => ready(String.fromCharCode(required(last, 'answer to a Sync').body.readUInt8(0))) },
    ],
  }
}

/** Something to do when the answers before it have come, with nothing sent. */
export const afterwards = (done: () => void): Request => ({ bytes: Buffer.alloc(0), expected: [{ ends: '', done }] })

/** Joins requests that are sent in one write. */
export function join(...requests: Request[]): Request {
  return {
    bytes: Buffer.concat(requests.map(request => request.bytes)),
    expected: requests.flatMap(request => request.expected),
  }
}

/** A string constant that means the same whatever `standard_conforming_strings` says. */
export function literal(text: string): string {
  const quoted = text.replaceAll("'", "''")
  return quoted.includes('\\') ? ` E'${quoted.replaceAll('\\', '\\\\')}'` : `'${quoted}'`
}

export const identifier = (name: string): string => `"${name.replaceAll('"', '""')}"`

/**
 * What a COMMIT checks and a RELEASE does not: deferred constraints, so that the revision that broke one is blamed.
 * By name, because `ALL IMMEDIATE` would stay in force for constraints made later, and `ALL DEFERRED` would also defer
 * what is INITIALLY IMMEDIATE. A real COMMIT leaves each constraint as it was declared, and so does this.
 * SET CONSTRAINTS needs USAGE on the schema, and means all constraints of a name, also those that cannot be deferred,
 * where it fails: what cannot be named alone, or not at all, is left to the check before the real COMMIT.
 * `others`: oids of the tables that other clients have changed and not committed, where their constraints may well be
 * broken yet. Those are left out, and while there are others, what is INITIALLY IMMEDIATE stays as they have set it.
 */
export const checkDeferredConstraints = (others?: Iterable<string>): string => `DO LANGUAGE plpgsql $$
DECLARE every text; deferred text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE condeferrable) THEN RETURN; END IF;
  SELECT pg_catalog.string_agg(name, ', '), pg_catalog.string_agg(name, ', ') FILTER (WHERE condeferred)
    INTO every, deferred
    FROM (SELECT pg_catalog.format('%I.%I', n.nspname, c.conname) AS name, pg_catalog.bool_and(c.condeferred) AS condeferred
          FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.connamespace
          WHERE pg_catalog.has_schema_privilege(n.oid, 'USAGE')
            AND (n.nspname OPERATOR(pg_catalog.!~) '^pg_temp_' OR n.oid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())
          GROUP BY n.nspname, c.conname
          HAVING pg_catalog.bool_and(${others ? 'c.condeferred' : 'c.condeferrable'})
             AND NOT pg_catalog.bool_or(ARRAY[c.conrelid, c.confrelid]
               OPERATOR(pg_catalog.&&) '{${[...(others ?? [])].join(',')}}'::pg_catalog.oid[])
             AND pg_catalog.bool_and(c.condeferred) OPERATOR(pg_catalog.=) pg_catalog.bool_or(c.condeferred)) AS found;
  IF every IS NOT NULL THEN EXECUTE 'SET CONSTRAINTS ' OPERATOR(pg_catalog.||) every OPERATOR(pg_catalog.||) ' IMMEDIATE'; END IF;
  IF deferred IS NOT NULL THEN EXECUTE 'SET CONSTRAINTS ' OPERATOR(pg_catalog.||) deferred OPERATOR(pg_catalog.||) ' DEFERRED'; END IF;
END $$`
