import type { Node } from 'libpg-query'
import { scanSync } from 'libpg-query'
import { comments } from './literals'
import { sqlComment, terminated } from './sql'
import { splitStatements } from './statements'

/** How many rows stand for the rest. */
const mostRows = 5

/** Lines, and characters of a line. */
const screen = { height: 40, width: 100 }

/**
 * The statements of a revision as people read them, each with its terminator. Rows that would fill more than a screen
 * are shown by the first few and a count: those of one INSERT, and those of INSERTs into one table that follow each
 * other, as `op.bulk_insert` renders them. What is left out differs from what is shown in constants only: a row that
 * does something else is never hidden. Needs the parser to be loaded.
 */
export function abridged(statements: string[]): string[] {
  if (!fillsAScreen(statements)) return statements.map(terminated)
  const shown: string[] = []
  for (let rest = statements; rest.length > 0; ) {
    const [first = '', ...others] = rest
    const insert = insertOf(first)
    const end = insert?.rows === 1 ? others.findIndex(sql => !isAnotherRow(sql, insert)) : 0
    const run = end < 0 ? rest : rest.slice(0, end + 1)
    rest = rest.slice(run.length)
    const isLong = fillsAScreen(run)
    if (isLong && run.length > mostRows) {
      shown.push(...run.slice(0, mostRows).map(terminated), remark(run.length))
    } else if (isLong && insert?.isUniform && insert.rows > mostRows) {
      shown.push(terminated(firstRows(first, insert.rows)))
    } else shown.push(...run.map(terminated))
  }
  return shown
}

function fillsAScreen(statements: string[]): boolean {
  let height = 0
  for (const statement of statements) {
    for (const line of statement.split('\n')) height += Math.ceil(line.length / screen.width) || 1
    if (height > screen.height) return true
  }
  return false
}

interface Insert {
  /** What it is apart from its constants. */
  form: string
  rows: number
  /** Whether each row has the form of one of the first. */
  isUniform: boolean
}

/** A statement of more characters than these is not parsed to be shown: it is cut anyway. */
const longest = 4_000_000

/** By their text: the log, the comment and the summary show the same statements. */
const known = new Map<string, Insert | undefined>()

/** What an INSERT … VALUES inserts; undefined for anything else. */
function insertOf(sql: string): Insert | undefined {
  if (!known.has(sql)) known.set(sql, readInsert(sql))
  return known.get(sql)
}

function readInsert(sql: string): Insert | undefined {
  if (sql.length > longest || !/\binsert\b/i.test(sql)) return undefined
  const [statement, more] = statementsOf(sql)
  if (!statement || more || !('InsertStmt' in statement)) return undefined
  const { selectStmt } = statement.InsertStmt
  const rows = (selectStmt && 'SelectStmt' in selectStmt && selectStmt.SelectStmt.valuesLists) || []
  if (rows.length === 0) return undefined
  const forms = rows.map(formOf)
  const first = new Set(forms.slice(0, mostRows))
  return { form: formOf(statement), rows: rows.length, isUniform: forms.every(form => first.has(form)) }
}

const isAnotherRow = (sql: string, { form }: Insert): boolean => insertOf(sql)?.form === form

const formOf = (tree: Node): string =>
  JSON.stringify(tree, (key, value) => (key === 'location' ? undefined : isConstant(value) ? '?' : value))

/** Also with a cast, a DEFAULT, and the parameter that stands for a hidden constant. */
function isConstant(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  if ('TypeCast' in value) return isConstant((value.TypeCast as { arg?: unknown }).arg)
  return 'A_Const' in value || 'SetToDefault' in value || 'ParamRef' in value
}

function statementsOf(sql: string): Node[] {
  try {
    return splitStatements(sql).map(({ tree }) => tree)
  } catch {
    // Not in our parser's grammar: it is shown as it is.
    return []
  }
}

/** The parse tree does not say where a row ends, so the parentheses behind VALUES are counted. */
function firstRows(sql: string, rows: number): string {
  const ends: number[] = []
  let [depth, isBehind] = [0, false]
  for (const { text, end, tokenType } of scanSync(sql).tokens) {
    if (comments.has(tokenType)) continue
    if (depth === 0 && /^values$/i.test(text)) {
      // The first one may be the name of the table.
      isBehind = true
      ends.length = 0
    } else if (text === '(') depth++
    else if (text === ')') {
      depth--
      if (depth === 0 && isBehind) ends.push(end)
    } else if (depth === 0 && isBehind && text !== ',') break
  }
  if (ends.length !== rows) return sql
  const bytes = Buffer.from(sql)
  const [first, rest] = [bytes.toString('utf8', 0, ends[mostRows - 1]), bytes.toString('utf8', ends.at(-1)).trim()]
  return `${first}\n${remark(rows)}${rest && `\n${rest}`}`
}

const remark = (rows: number): string => sqlComment(`… and ${rows - mostRows} more rows, ${rows} in all`)
