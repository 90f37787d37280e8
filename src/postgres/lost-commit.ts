import type { Client } from 'pg'
import { connect, disconnect } from './connection'
import { type Relation, readHeads, readRelation, type VersionTable } from './heads'
import { keepAsking } from './patience'
import type { Database } from './url'

export type Settled =
  | { decision: 'committed'; heads: string[] }
  | { decision: 'rolled-back'; heads: string[] }
  | { decision: 'unknown'; why: string }

export interface Question {
  database: Database
  applicationName: string
  versionTable: VersionTable
  /** What it was found to be; a name may lead elsewhere by now. */
  relation: Relation | undefined
  /** The transaction (xid8) whose COMMIT was sent and not answered. */
  id: string
  priorHeads: string[]
  newHeads: string[]
  /** Milliseconds to keep asking. */
  patience: number
  /** Aborted: there is little time left. */
  signal: AbortSignal
}

/**
 * Finds out what became of a transaction whose COMMIT got no answer.
 *
 * The heads decide: the version row moved in that transaction or the transaction did not happen. `pg_xact_status` tells
 * when it is over; alone it can lie, since after a crash an id that was never written is given out again.
 */
export async function settleLostCommit(question: Question): Promise<Settled> {
  const { database, applicationName } = question
  let why = 'the database could not be reached'
  const settled = await keepAsking(question, async limit => {
    const client = await connect(database, applicationName, limit)
    try {
      const answer = await ask(client, question)
      if (typeof answer !== 'string') return answer
      why = answer
      return undefined
    } finally {
      await disconnect(client)
    }
  })
  return settled ?? { decision: 'unknown', why }
}

/** The decision, or why there is none yet. */
async function ask(
  client: Client,
  { id, versionTable, relation, priorHeads, newHeads }: Question,
): Promise<Settled | string> {
  // A standby may not know yet what its primary has done.
  const { rows } = await client.query<{ standby: boolean }>('SELECT pg_catalog.pg_is_in_recovery() AS standby')
  if (rows[0]?.standby) return 'the server that answers is a standby'
  const status = await statusOf(client, id)
  if (status === 'in progress') return `transaction ${id} is still in progress`
  const { heads } = relation ? await readRelation(client, relation) : await readHeads(client, versionTable)
  // A committed transaction is never said to have aborted, nor is its id lost: then somebody else moved the heads.
  if (status === 'aborted' || status === 'never written') return { decision: 'rolled-back', heads }
  if (heads.join() === newHeads.join()) return { decision: 'committed', heads }
  // `committed` here is another transaction's status, under an id that a crash had set free.
  if (heads.join() === priorHeads.join()) return { decision: 'rolled-back', heads }
  return `the heads are ${heads.join(', ') || 'base'} and pg_xact_status(${id}) says ${status ?? 'nothing'}`
}

/** What PostgreSQL knows of a transaction; null where it is so old that it has been forgotten. */
export async function statusOf(client: Client, id: string): Promise<string | null> {
  try {
    const { rows } = await client.query<{ status: string | null }>(
      'SELECT pg_catalog.pg_xact_status($1::xid8) AS status',
      [id],
    )
    return rows[0]?.status ?? null
  } catch (error) {
    // "transaction ID … is in the future": a crash came before anything of it was on disk.
    if ((error as { code?: string }).code === '22023') return 'never written'
    throw error
  }
}
