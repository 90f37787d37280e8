import type { Client } from 'pg'
import { disconnect } from './connection'

/** Cancels what a server process runs, over another connection; a server that cannot be asked sees ours end. */
export async function cancelStatement(pid: number, connect: () => Promise<Client>): Promise<void> {
  try {
    const other = await connect()
    try {
      await other.query('SELECT pg_catalog.pg_cancel_backend($1)', [pid])
    } finally {
      await disconnect(other)
    }
  } catch {
    // Nothing more can be done from here.
  }
}
