/** The first row of an answer that always has one. Throws where it has none. */
export function firstOf<Row>({ rows: [row] }: { rows: Row[] }): Row {
  if (row === undefined) throw new Error('PostgreSQL answered without a row')
  return row
}
