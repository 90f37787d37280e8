import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { binariesIn, startServer } from './postgres.mts'
import { useScratch } from './scratch.mts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The URL of the server's database `postgres`, of its superuser. */
    postgres: string
    /** How it makes a database, as words of CREATE DATABASE. */
    strategy: string
  }
}

/** One PostgreSQL server for all tests, where every test has databases of its own; and one folder for all they write. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const tidy = useScratch(project.tmpDir)
  // Each step reads the same bundle: compiled once, it takes a tenth less.
  process.env.NODE_COMPILE_CACHE = join(tmpdir(), 'compiled')
  // For every server of the run, of which some tests have one of their own.
  process.env.ATOMIC_UPGRADE_TEST_BINARIES = await binariesIn(tmpdir())
  const server = await startServer(['max_prepared_transactions = 20'])
  console.log(`PostgreSQL ${server.version}`)
  project.provide('postgres', server.url('postgres'))
  // The other strategy writes all of it to the WAL, which takes twice as long; PostgreSQL 14 knows only this one.
  project.provide('strategy', Number.parseInt(server.version, 10) < 15 ? '' : 'STRATEGY FILE_COPY')
  return async () => {
    await server.stop()
    tidy()
  }
}
