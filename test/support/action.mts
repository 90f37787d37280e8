import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { inject } from 'vitest'
import { query } from './postgres.mts'
import { python } from './project.mts'
import { root, runStep, type Step, type StepOptions } from './runner.mts'

const created: string[] = []

/** A database on the tests' server: an empty one, or a copy of another, to which nobody may be connected. */
export async function createDatabase(template = ''): Promise<string> {
  const server = inject('postgres')
  const name = `t_${randomBytes(6).toString('hex')}`
  const { pathname } = new URL(template || server)
  created.push(name)
  await query(server, `CREATE DATABASE ${name} ${inject('strategy')} ${template && `TEMPLATE ${pathname.slice(1)}`}`)
  return server.replace(/\/postgres$/, `/${name}`)
}

/** Those of this file's tests go with it, since they may lie in memory; one with a prepared transaction stays. */
export async function dropDatabases(): Promise<void> {
  for (const name of created.splice(0))
    await query(inject('postgres'), `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`).catch(() => {})
}

export const seedProject = join(root, 'migrations-fixture')
export const secondProject = join(root, 'migrations-fixture', 'reads-the-database')

/** Starts the built action on a project and a database; further inputs go before these. */
export function start(
  workspace: string,
  url: string,
  inputs: Record<string, string>,
  options: Partial<StepOptions> = {},
): Promise<Step> {
  return runStep({ workspace, inputs: { 'database-url': url, python, ...inputs }, ...options })
}
