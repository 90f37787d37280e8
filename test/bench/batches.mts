import { join } from 'node:path'
import { type Script, writeProject } from '../support/project.mts'
import { root } from '../support/runner.mts'

/** A project, the revision that its databases start from, and the one that they are brought to. */
export interface Batch {
  folder: string
  from: string
  to: string
  revisions: number
}

/** The migrations of the seed that work. */
export const seedBatch: Batch = { folder: join(root, 'migrations-fixture'), from: '', to: '5a77262c502b', revisions: 2 }

const id = (index: number) => `r${String(index).padStart(5, '0')}`

/** The table and the first row that every batch begins from, and revisions on top of it. */
function above(revisions: number, upgrade: (index: number) => string): Batch {
  const first: Script = {
    id: id(0),
    upgrade: 'op.execute("CREATE TABLE ledger (id bigint GENERATED ALWAYS AS IDENTITY, line text)")',
  }
  const more = Array.from({ length: revisions }, (_, index) => ({ id: id(index + 1), upgrade: upgrade(index + 1) }))
  return { folder: writeProject({ scripts: [first, ...more] }), from: id(0), to: id(revisions), revisions }
}

/** Revisions with as many statements each: a new table, a column and an index now and then, and rows. */
export function historyBatch(revisions: number, statementsEach: number): Batch {
  return above(revisions, index => {
    const schema = [
      `op.create_table("t${index}", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))`,
      `op.add_column("t${index}", sa.Column("made", sa.DateTime, server_default=sa.func.now()))`,
      `op.create_index("t${index}_name", "t${index}", ["name"])`,
    ].slice(0, statementsEach)
    const rows = statementsEach - schema.length
    if (rows > 0)
      schema.push(`for i in range(${rows}):\n    op.execute("INSERT INTO ledger (line) VALUES ('${index}.%d')" % i)`)
    return schema.join('\n')
  })
}

/** Revisions that only write rows, so that the server has little to do. */
export const rowsBatch = (revisions: number, statementsEach: number): Batch =>
  above(
    revisions,
    index =>
      `for i in range(${statementsEach}):\n    op.execute("INSERT INTO ledger (line) VALUES ('${index}.%d')" % i)`,
  )

/** One revision that writes so many mebibytes, in statements of one each. */
export const dataBatch = (mebibytes: number): Batch =>
  above(
    1,
    () =>
      `for i in range(${mebibytes}):\n    op.execute("INSERT INTO ledger (line) VALUES ('" + "0123456789abcdef" * 65536 + "')")`,
  )
