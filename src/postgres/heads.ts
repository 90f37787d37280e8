import type { Client } from 'pg'
import { Failure, messageOf } from '../failure'

export interface VersionTable {
  name: string
  /** null: wherever the search path finds it. */
  schema: string | null
}

/** The relation that a version table was found to be. It stays the same whatever it is called, and by whom. */
export interface Relation {
  oid: string
  schema: string
  name: string
  /** `pg_class.relkind`. */
  kind: string
  /** Whether the role has USAGE on the schema. */
  mayUse: boolean
  /** Whether row-level security keeps rows of it from the role. */
  isFiltered: boolean
  /** Whether the database has temporary tables that inherit, from this one perhaps. */
  mayHaveTemporaryHeirs: boolean
}

export interface Heads {
  /** Sorted; empty for base. */
  heads: string[]
  tableExists: boolean
  /** As it was found, where it was looked for. */
  relation?: Relation
}

export const identifier = (name: string) => `"${name.replaceAll('"', '""')}"`

/** The version table as SQL names it. */
export const nameOf = ({ name, schema }: VersionTable): string =>
  schema ? `${identifier(schema)}.${identifier(name)}` : identifier(name)

const relation = `c.oid::text AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
  pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS "mayUse",
  pg_catalog.row_security_active(c.oid) AS "isFiltered",
  EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class heir ON heir.oid = i.inhrelid
          WHERE heir.relpersistence = 't') AS "mayHaveTemporaryHeirs"
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace`

/**
 * What the name means to anybody who connects: a temporary relation, which would come first, is one session's alone.
 * Where the role may use no schema of its search path, what it would be if it might.
 */
export async function findRelation(client: Client, { name, schema }: VersionTable): Promise<Relation | undefined> {
  const { rows } = await client.query<Relation>(
    `SELECT ${relation} JOIN pg_catalog.unnest(
       CASE WHEN $2::name IS NOT NULL THEN ARRAY[$2::name]
            WHEN pg_catalog.current_schema() IS NOT NULL THEN pg_catalog.current_schemas(true)
            ELSE pg_catalog.string_to_array(
              pg_catalog.replace(pg_catalog.current_setting('search_path'), '"', ''), ', ')::name[] END
     ) WITH ORDINALITY AS path (schema, place) ON path.schema = n.nspname
     WHERE c.relname = $1::name AND c.relpersistence <> 't' ORDER BY path.place LIMIT 1`,
    [name, schema],
  )
  return rows[0]
}

/** Where that relation is by now; undefined where it is gone. */
async function locate(client: Client, { oid, name }: Relation): Promise<Relation | undefined> {
  const { rows } = await client.query<Relation>(`SELECT ${relation} WHERE c.oid = $1::oid AND c.relname = $2::name`, [
    oid,
    name,
  ])
  return rows[0]
}

/** Reads the rows; those that temporary tables inherit are one session's alone. */
async function readRows(client: Client, found: Relation | undefined, called = found && nameOf(found)): Promise<Heads> {
  if (!found) return { heads: [], tableExists: false }
  // Who may read no more than the column may not read a tableoid.
  const own =
    isTable(found) && found.mayHaveTemporaryHeirs
      ? ` v WHERE (SELECT relpersistence FROM pg_catalog.pg_class WHERE oid = v.tableoid) <> 't'`
      : ''
  try {
    const { rows } = await client.query<{ version_num: string }>(`SELECT version_num FROM ${nameOf(found)}${own}`)
    return { heads: rows.map(row => row.version_num).sort(), tableExists: true, relation: found }
  } catch (error) {
    if ((error as { code?: string }).code !== '42501') throw error
    throw new Failure('not-permitted', `The version table ${called} cannot be read: ${messageOf(error)}.`, {
      advice: `${found.mayUse ? '' : `GRANT USAGE ON SCHEMA ${identifier(found.schema)} to the role of database-url, and `}GRANT SELECT ON ${called}${found.mayUse ? ' to the role of database-url' : ''}; an apply needs INSERT, UPDATE and DELETE besides.`,
      cause: error,
    })
  }
}

/** An ordinary or a partitioned one. */
const isTable = ({ kind }: Relation): boolean => kind === 'r' || kind === 'p'

/**
 * Finds Alembic's version table by its name and reads its rows.
 * Throws a Failure `not-permitted` where the role may not read it.
 */
export async function readHeads(client: Client, versionTable: VersionTable): Promise<Heads> {
  return await readRows(client, await findRelation(client, versionTable), nameOf(versionTable))
}

/**
 * Reads the rows of the relation that was found before, by another session that has nothing of a script's.
 * Throws a Failure `not-permitted` where the role may not read it.
 */
export async function readRelation(client: Client, known: Relation): Promise<Heads> {
  return await readRows(client, await locate(client, known))
}

/**
 * Reads the rows behind scripts, which may have put another relation in the version table's place. `known`: the one
 * that was found before them; what they make where there was none has to be a table.
 * Throws a Failure `migration-failed` where the name is another one's now, `not-permitted` where it may not be read.
 */
export async function readHeadsAgain(
  client: Client,
  versionTable: VersionTable,
  known: Relation | undefined,
): Promise<Heads> {
  const found = await findRelation(client, versionTable)
  if (known) {
    const isSame = found ? found.oid === known.oid && found.kind === known.kind : !(await locate(client, known))
    if (!isSame) throw replaced(known, 'is not the one that was there at the start')
  } else if (found && !isTable(found)) throw replaced(found, 'is not a table')
  if (found?.isFiltered && !known?.isFiltered) {
    throw new Failure(
      'migration-failed',
      `The version table ${plainName(found)} has got row-level security that keeps rows of it from the role.`,
      { advice: 'Let the role of database-url own the version table, without FORCE ROW LEVEL SECURITY.' },
    )
  }
  return await readRows(client, found)
}

const plainName = ({ schema, name }: Relation): string => `${schema}.${name}`

const replaced = (relation: Relation, what: string): Failure =>
  new Failure(
    'migration-failed',
    `The version table ${plainName(relation)} ${what}: a script has put something else in its place, or moved it away.`,
    { advice: 'Change the table that is there (ALTER TABLE), and leave its name to it.' },
  )

/**
 * Throws a Failure `not-permitted` where the role may not change the version table, or create it where there is none.
 */
export async function checkWritable(client: Client, versionTable: VersionTable, found?: Relation): Promise<void> {
  const { schema } = versionTable
  const table = nameOf(versionTable)
  const { rows } = found
    ? await client.query(
        `SELECT pg_catalog.has_table_privilege($1::oid, 'INSERT') AND pg_catalog.has_table_privilege($1::oid, 'DELETE')
            AND pg_catalog.has_table_privilege($1::oid, 'UPDATE') AS allowed`,
        [found.oid],
      )
    : await client.query(
        `SELECT pg_catalog.has_schema_privilege(coalesce($1::text, pg_catalog.current_schema()::text), 'CREATE') AS allowed
         WHERE EXISTS (SELECT FROM pg_catalog.pg_namespace
                       WHERE nspname = coalesce($1::text, pg_catalog.current_schema()::text))`,
        [schema],
      )
  if (rows[0]?.allowed !== false) return
  throw new Failure(
    'not-permitted',
    found
      ? `The role may not change the version table ${table}.`
      : `The role may not create the version table ${table}.`,
    {
      advice: found
        ? `GRANT SELECT, INSERT, UPDATE, DELETE ON ${table} to the role of database-url.`
        : 'GRANT CREATE ON its schema to the role of database-url.',
    },
  )
}
