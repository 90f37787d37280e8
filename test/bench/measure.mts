import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { query, type Server } from '../support/postgres.mts'
import { withDriver } from '../support/shapes.mts'
import { anyDriver } from '../support/stack.mts'
import type { Batch } from './batches.mts'
import { type Contestant, raw, step } from './contestants.mts'
import type { Own, Row } from './figures.mts'
import type { Link } from './link.mts'

/** Where the databases of one batch are made, and how they are reached. */
export interface Course {
  server: Server
  batch: Batch
  link?: Link
}

/** Runs the contestants in turn, round by round, each on a fresh database; in every other round in reverse. */
export async function race(course: Course, contestants: Contestant[], rounds: number): Promise<Row[]> {
  await makeTemplate(course)
  const rows = contestants.map(({ name }): Row => ({ name, times: [] }))
  for (let round = 0; round < rounds; round++) {
    const order = contestants.map((_, index) => index)
    if (round % 2 === 1) order.reverse()
    for (const index of order) {
      const time = await timeOf(course, contestants[index]!)
      rows[index]!.times.push(time)
      console.log(`  ${contestants[index]!.name}: ${time.toFixed(0)} ms`)
    }
  }
  await dropTemplate(course)
  return rows
}

const timeOf = (course: Course, { prepare, run, reads = false, name }: Contestant) =>
  onFresh(course, async (url, near) => {
    const prepared = await prepare?.(course.batch, near)
    const started = performance.now()
    await run(course.batch, url, prepared)
    const time = performance.now() - started
    const { from, to } = course.batch
    const there = (await query(plain(near), `SELECT to_regclass('alembic_version') AS v`)).rows[0].v
    const found = there ? (await query(plain(near), 'SELECT version_num AS v FROM alembic_version')).rows[0]?.v : ''
    if (found !== (reads ? from : to)) throw new Error(`${name} left the database at ${found || 'base'}`)
    return time
  })

const plain = (url: string) => url.replace(/^postgresql\+\w+:/, 'postgresql:')
const names = { template: 'start', database: 'shop' }

/** A database that stands at the start of the batch; `near` is its URL without the link. */
export async function onFresh<T>(
  { server, batch, link }: Course,
  use: (url: string, near: string) => Promise<T>,
  { template = false } = {},
): Promise<T> {
  const name = template ? names.template : names.database
  const more = template ? '' : ` TEMPLATE ${names.template}`
  await query(server.url('postgres'), `CREATE DATABASE ${name}${more}`)
  const near = withDriver(server.url(name), anyDriver)
  if (template && batch.from) await raw.run({ ...batch, to: batch.from }, near, undefined)
  try {
    return await use(link ? link.through(near) : near, near)
  } finally {
    if (!template) await query(server.url('postgres'), `DROP DATABASE ${name} WITH (FORCE)`)
  }
}

export const makeTemplate = (course: Course) => onFresh(course, async () => {}, { template: true })

export const dropTemplate = ({ server }: Course) =>
  query(server.url('postgres'), `DROP DATABASE ${names.template} WITH (FORCE)`)

/** What the action's own process takes for an apply of the batch with a comment: Node says so as it ends. */
export async function own(
  course: Course,
  github: string,
  label: string,
  statements: number,
  rounds: number,
): Promise<Own> {
  await makeTemplate(course)
  const result: Own = { batch: label, statements, cpu: [], wall: [], memory: [] }
  for (let round = 0; round < rounds; round++) {
    await onFresh(course, async url => {
      const started = performance.now()
      const usage = await usageOf(environment => step(course.batch, url, {}, { environment, github }))
      result.wall.push(performance.now() - started)
      if (!usage) throw new Error('The action’s process did not say what it took')
      result.cpu.push(usage.cpu)
      result.memory.push(usage.memory)
      console.log(`  ${label}: ${usage.cpu.toFixed(0)} ms, ${usage.memory.toFixed(0)} MiB`)
    })
  }
  await dropTemplate(course)
  return result
}

/** CPU time in milliseconds and largest resident set in MiB of the Node process that `run` starts, if it starts one. */
export async function usageOf(
  run: (environment: Record<string, string>) => Promise<unknown>,
): Promise<{ cpu: number; memory: number } | undefined> {
  const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-bench-'))
  const [hook, told] = [join(folder, 'hook.cjs'), join(folder, 'usage.json')]
  writeFileSync(
    hook,
    `process.on('exit', () => require('node:fs').writeFileSync(${JSON.stringify(told)}, JSON.stringify(process.resourceUsage())))`,
  )
  try {
    await run({ NODE_OPTIONS: `--require ${hook}` })
    if (!existsSync(told)) return undefined
    const usage = JSON.parse(readFileSync(told, 'utf8')) as NodeJS.ResourceUsage
    return { cpu: (usage.userCPUTime + usage.systemCPUTime) / 1000, memory: usage.maxRSS / 1024 }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
