import type { Client } from 'pg'
import { Failure, messageOf } from '../failure'

export interface VersionTable {
  name: string
  /** null: wherever the search path finds it. */
  schema: string | null
}

export interface Heads {
  /** Sorted; empty for base. */
  heads: string[]
  tableExists: boolean
}

const identifier = (name: string) => `"${name.replaceAll('"', '""')}"`

/** The version table as SQL names it. */
export const nameOf = ({ name, schema }: VersionTable): string =>
  schema ? `${identifier(schema)}.${identifier(name)}` : identifier(name)

/**
 * Reads the rows of Alembic's version table.
 * Throws a Failure `not-permitted` where the role may not read it.
 */
export async function readHeads(client: Client, versionTable: VersionTable): Promise<Heads> {
  const table = nameOf(versionTable)
  try {
    const found = await client.query('SELECT pg_catalog.to_regclass($1) IS NOT NULL AS found', [table])
    if (!found.rows[0].found) return { heads: [], tableExists: false }
    const { rows } = await client.query<{ version_num: string }>(`SELECT version_num FROM ${table}`)
    return { heads: rows.map(row => row.version_num).sort(), tableExists: true }
  } catch (error) {
    if ((error as { code?: string }).code !== '42501') throw error
    throw new Failure('not-permitted', `The version table ${table} cannot be read: ${messageOf(error)}.`, {
      advice: `GRANT SELECT, INSERT, UPDATE, DELETE ON ${table} to the role of database-url.`,
      cause: error,
    })
  }
}

/**
 * Throws a Failure `not-permitted` where the role may not change the version table, or create it where there is none.
 */
export async function checkWritable(client: Client, versionTable: VersionTable, exists: boolean): Promise<void> {
  const { schema } = versionTable
  const table = nameOf(versionTable)
  const { rows } = exists
    ? await client.query(
        `SELECT pg_catalog.has_table_privilege($1, 'INSERT') AND pg_catalog.has_table_privilege($1, 'DELETE')
            AND pg_catalog.has_table_privilege($1, 'UPDATE') AS allowed`,
        [table],
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
    exists
      ? `The role may not change the version table ${table}.`
      : `The role may not create the version table ${table}.`,
    {
      advice: exists
        ? `GRANT SELECT, INSERT, UPDATE, DELETE ON ${table} to the role of database-url.`
        : 'GRANT CREATE ON its schema to the role of database-url.',
    },
  )
}
