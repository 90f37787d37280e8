import { resolve } from 'node:path'
import { nodeOf } from '../alembic/reader'
import { baseCommit, scriptsAt } from '../git/base'
import { settleLeftovers } from '../opening/leftovers'
import { allOf } from '../opening/surroundings'
import type { Edited } from '../plan/edited'
import { headsOf } from '../plan/heads'
import { nameHeads } from '../plan/result'
import { type Heads, readHeads } from '../postgres/heads'
import { editedScripts } from './edited'
import type { Database, Loaded, Scripts } from './load'

/** A database, and where it is. */
export interface Located extends Database {
  priorHeads: string[]
  versionTableExists: boolean
}

/** Every database of the step, with its prior heads. */
export interface Found extends Omit<Loaded, 'stage' | 'databases'> {
  readonly stage: 'found'
  readonly databases: Located[]
  /** Scripts of the pull request's base that are not the same here. */
  readonly edited: Edited[]
}

/**
 * Reads the heads of the databases, behind what an earlier run has left in them; where none is asked, those that the
 * user names or the pull request builds on. Throws a Failure.
 */
export async function findPriorHeads(loaded: Loaded): Promise<Found> {
  const { inputs, source } = loaded
  const asked = loaded.databases.flatMap(({ target, versionTable }) => (target ? [{ target, versionTable }] : []))
  if (asked.length > 0) await settleLeftovers(loaded, asked)
  const edited = source.is === 'scripts' && inputs.mode !== 'apply' ? await editedScripts(loaded, source) : []
  const given =
    asked.length > 0 ? undefined : source.is === 'scripts' ? await headsWithoutDatabase(loaded, source) : atBase
  const databases = await allOf(
    loaded.databases.map(async database => {
      const { target, versionTable } = database
      const { heads, tableExists } = target ? await readHeads(target.client, versionTable) : (given ?? atBase)
      return { ...database, priorHeads: heads, versionTableExists: tableExists }
    }),
  )
  return { ...loaded, stage: 'found', databases, edited }
}

const atBase: Heads = { heads: [], tableExists: false }

/** The heads that the user names, else those of the scripts that a pull request builds on. */
async function headsWithoutDatabase({ inputs, surroundings }: Loaded, { project, sources }: Scripts): Promise<Heads> {
  const { fromRevision: named } = inputs
  if (named) return { heads: named, tableExists: named.length > 0 }
  const directory = resolve(inputs.workingDirectory)
  const scripts = await scriptsAt(directory, await baseCommit(directory, surroundings.base))
  const readings = await sources.reader.read(scripts.map(({ source }) => Buffer.from(source)))
  const nodes = readings.flatMap(reading => nodeOf(reading) ?? [])
  // Other projects of the repository have histories of their own.
  const heads = headsOf(nodes.filter(({ id }) => project.scripts.has(id)))
  surroundings.log.info(`Without a database, the prior heads are those of the base: ${nameHeads(heads)}.`)
  return { heads, tableExists: heads.length > 0 }
}
