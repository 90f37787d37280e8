import type { Client } from 'pg'
import type { KnownEnum } from '../plan/new-enum-values'

/**
 * Reads the enums of those names, in any schema, with what leads to them: types made of them, relations with a column of
 * one of these, and functions that take or return one.
 */
export async function readEnums(client: Client, names: string[]): Promise<Map<string, KnownEnum>> {
  const { rows } = await client.query<KnownEnum & { type: string }>(
    `WITH RECURSIVE root AS (
       SELECT oid, typname FROM pg_catalog.pg_type WHERE typtype = 'e' AND typname = ANY ($1::name[])
     ), reached (type, oid) AS (
       SELECT typname, oid FROM root
       UNION SELECT reached.type, made.oid FROM reached CROSS JOIN LATERAL (
         SELECT t.oid FROM pg_catalog.pg_type t WHERE t.typelem = reached.oid OR t.typbasetype = reached.oid
         UNION ALL SELECT rngtypid FROM pg_catalog.pg_range WHERE rngsubtype = reached.oid
         UNION ALL SELECT c.reltype FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
           WHERE a.atttypid = reached.oid AND NOT a.attisdropped AND c.reltype <> 0
       ) AS made
     ), leads (type, name, columns) AS (
       SELECT reached.type, t.typname, '{}'::text[] FROM reached JOIN pg_catalog.pg_type t ON t.oid = reached.oid
       UNION ALL SELECT reached.type, c.relname, pg_catalog.array_agg(a.attname::text)
         FROM reached JOIN pg_catalog.pg_attribute a ON a.atttypid = reached.oid AND NOT a.attisdropped
         JOIN pg_catalog.pg_class c ON c.oid = a.attrelid GROUP BY reached.type, c.oid, c.relname
       UNION ALL SELECT reached.type, p.proname, '{}' FROM reached JOIN pg_catalog.pg_proc p
         ON p.prorettype = reached.oid OR reached.oid = ANY (coalesce(p.proallargtypes, p.proargtypes::oid[]))
     )
     SELECT typname::text AS type,
       (SELECT pg_catalog.json_agg(e.enumlabel) FROM pg_catalog.pg_enum e JOIN root r ON r.oid = e.enumtypid
        WHERE r.typname = root.typname) AS labels,
       (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', name, 'columns', columns))
        FROM leads WHERE leads.type = root.typname) AS "leading"
     FROM root GROUP BY typname`,
    [names],
  )
  return new Map(rows.map(({ type, labels, leading }) => [type, { labels: labels ?? [], leading }]))
}
