import pg from 'pg'

/**
 * Everything that a migration can change in a database, as text to compare: relations with their columns, defaults and
 * owners, constraints, indexes, triggers, types, functions, sequences, and every row of every table. Values of sequences are left
 * out: PostgreSQL does not roll them back.
 */
export async function contents(url: string): Promise<string> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const lines: string[] = []
    for (const sql of catalog) {
      const { rows } = await client.query({ text: sql, rowMode: 'array' })
      lines.push(...rows.map(row => row.join(' | ')).sort())
    }
    const tables = await client.query<{ name: string }>(
      `SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
       WHERE relkind IN ('r', 'm') AND ${ours} ORDER BY 1`,
    )
    for (const { name } of tables.rows) {
      const { rows } = await client.query<{ row: string }>(`SELECT to_jsonb(t)::text AS row FROM ${name} t`)
      lines.push(...rows.map(({ row }) => `${name}: ${row}`).sort())
    }
    return lines.join('\n')
  } finally {
    await client.end()
  }
}

const ours = `n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'`

const catalog = [
  `SELECT 'schema', nspname FROM pg_namespace n WHERE ${ours}`,
  `SELECT 'relation', n.nspname, relname, relkind, relpersistence, reloptions FROM pg_class c
     JOIN pg_namespace n ON n.oid = relnamespace WHERE ${ours}`,
  `SELECT 'column', n.nspname, relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
     pg_get_expr(adbin, adrelid) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
     JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE attnum > 0 AND NOT attisdropped AND ${ours}`,
  `SELECT 'constraint', n.nspname, conrelid::regclass, conname, pg_get_constraintdef(c.oid), condeferrable, condeferred
     FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace WHERE ${ours}`,
  `SELECT 'index', pg_get_indexdef(indexrelid), indisvalid FROM pg_index i JOIN pg_class c ON c.oid = indexrelid
     JOIN pg_namespace n ON n.oid = relnamespace WHERE ${ours}`,
  `SELECT 'trigger', pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
     JOIN pg_namespace n ON n.oid = relnamespace WHERE NOT tgisinternal AND ${ours}`,
  `SELECT 'view', n.nspname, relname, pg_get_viewdef(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
     WHERE relkind IN ('v', 'm') AND ${ours}`,
  `SELECT 'type', n.nspname, typname, typtype FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE ${ours}`,
  `SELECT 'enum', enumtypid::regtype, enumlabel FROM pg_enum`,
  `SELECT 'function', p.oid::regprocedure, prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE ${ours}`,
  `SELECT 'setting', setdatabase::regclass, setrole::regrole, setconfig FROM pg_db_role_setting
     WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())`,
  `SELECT 'extension', extname FROM pg_extension`,
]

/** Our sessions, locks and prepared transactions that are still there. */
export async function leftovers(url: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<{ what: string }>(
      `SELECT 'session ' || state AS what FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
       UNION ALL SELECT 'lock ' || mode FROM pg_locks WHERE locktype = 'advisory'
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       UNION ALL SELECT 'prepared ' || gid FROM pg_prepared_xacts WHERE database = current_database()`,
    )
    return rows.map(row => row.what)
  } finally {
    await client.end()
  }
}
