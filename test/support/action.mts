import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { inject } from 'vitest'
import { query } from './postgres.mts'
import { python } from './project.mts'
import { root, runStep, type Step, type StepOptions } from './runner.mts'

/** An empty database on the tests' server. */
export async function createDatabase(): Promise<string> {
  const server = inject('postgres')
  const name = `t_${randomBytes(6).toString('hex')}`
  await query(server, `CREATE DATABASE ${name}`)
  return server.replace(/\/postgres$/, `/${name}`)
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
