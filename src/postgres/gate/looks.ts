/**
 * What a statement looks like, by its words: to tell people, and where PostgreSQL cannot be asked. Whether something was
 * written or read is never told by these.
 */

/** By its first word it does nothing but read. */
export const looksLikeRead = (sql: string): boolean =>
  /^\s*(select|fetch|move|close|declare|show|set|reset|with)\b/i.test(sql)

/** By its first word it changes the catalog. */
export const looksLikeDefinition = (sql: string): boolean => /^\s*(create|alter|drop)\b/i.test(sql)

export const looksLikeCreation = (sql: string): boolean => /^\s*create\b/i.test(sql)

/** As SQLAlchemy's has_table() and get_columns() do, and what people write by hand; not what drivers ask for types. */
export const looksIntoCatalog = (sql: string): boolean =>
  /\b(pg_class|pg_attribute|information_schema|to_regclass|pg_tables)\b/i.test(sql)

/** It asks for what its session has drawn last from a sequence. */
export const asksForLastValue = (sql: string): boolean => /\b(currval|lastval)\s*\(/i.test(sql)

export const resolvesConflicts = (sql: string): boolean => /\bon\s+conflict\b/i.test(sql)

/** It takes, asks for, or gives back a lock of the session's, or of its transaction. */
export const asksForAdvisoryLock = (sql: string): boolean => /\bpg_(try_)?advisory_(xact_)?(un)?lock/i.test(sql)

/** The same, of the transaction only. */
export const asksForTransactionLock = (sql: string): boolean => /\bpg_(try_)?advisory_xact_lock/i.test(sql)

export const locksRows = (sql: string): boolean =>
  /\bfor\s+(no\s+key\s+update|update|key\s+share|share)\b|^\s*lock\b/i.test(sql)

/** It goes on, or fails, where it would have to wait for rows that are locked. */
export const passesLocks = (sql: string): boolean => locksRows(sql) && /\b(nowait|skip\s+locked)\b/i.test(sql)

/** Without its counters nothing tells who reads what. */
export const setsCounting = (sql: string): boolean => /\btrack_counts\b/i.test(sql)

/** Whether that name stands where SQL has the name of a table, without a schema. */
export const namesTable = (sql: string, name: string): boolean =>
  new RegExp(
    `\\b(from|join|into|update|table|only|using|copy|truncate|exists)\\s+"?${escaped(name)}\\b(?!\\s*\\.)`,
    'i',
  ).test(sql)

/** The words behind FROM and JOIN, and in lists of them. */
export function tablesRead(sql: string): string[] {
  const lists = [...sql.matchAll(/\b(?:from|join|of)\s+((?:[\w."]+(?:\s+(?:as\s+)?\w+)?\s*,\s*)*[\w."]+)/gi)]
  return lists.flatMap(([, list = '']) => list.split(',').map(each => bareName(each.trim().split(/\s/)[0] ?? '')))
}

/** A table's name as regclass writes it, without its schema and quotes. */
export const bareName = (table: string): string => table.replace(/^.*\./, '').replaceAll('"', '')

const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
