import { realpathSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { nodeOf } from '../alembic/reader'
import { messageOf } from '../failure'
import { baseCommit, scriptsAt } from '../git/base'
import { blobsOf } from '../git/history'
import { git } from '../git/repository'
import type { Step } from '../opening/surroundings'
import { type Edited, editedOf, type KnownScript } from '../plan/edited'
import { editedTold } from '../report/warnings'
import type { Scripts } from './load'

/**
 * The scripts that the base of a pull request has and that are edited or deleted here, for which it warns. Scripts of
 * the base are read, and not run. Where that cannot be told, mostly because the clone is too shallow, the log says so.
 */
export async function editedScripts({ inputs, surroundings }: Step, scripts: Scripts): Promise<Edited[]> {
  const { base, log } = surroundings
  if (!base) return []
  try {
    const edited = await compare(scripts, resolve(inputs.workingDirectory), base)
    if (edited.length > 0) log.warning(editedTold(edited))
    return edited
  } catch (error) {
    log.info(`Whether scripts of the base branch were edited is not known: ${messageOf(error)}`)
    return []
  }
}

async function compare({ project, sources }: Scripts, directory: string, base: string): Promise<Edited[]> {
  const head = (await git(directory, ['rev-parse', 'HEAD'])).trim()
  // In pull_request_target the checkout is the base itself.
  if (head === base) return []
  const root = realpathSync((await git(directory, ['rev-parse', '--show-toplevel'])).trim())
  const files = [...project.scripts.values()].map(script => ({ ...script, bytes: sources.bytesOf(script) }))
  const unchanged = new Set(files.flatMap(({ bytes }) => blobsOf(bytes)))
  const others = await scriptsAt(directory, await baseCommit(directory, base), unchanged)
  const readings = await sources.reader.read(others.map(({ source }) => Buffer.from(source)))
  const known = others.flatMap(({ path, source }, index): KnownScript[] => {
    const reading = readings[index]
    const node = reading && nodeOf(reading)
    return node ? [{ id: node.id, path, source }] : []
  })
  const here = files.map(({ id, file, bytes }) => {
    const path = relative(root, realpathSync(file)).replaceAll('\\', '/')
    return { id, path, source: bytes.toString() }
  })
  return editedOf(known, here)
}
