import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { query } from '../support/postgres.mts'
import type { Contestant } from './contestants.mts'
import type { Load, Sampled } from './figures.mts'
import { type Course, dropTemplate, makeTemplate, onFresh, usageOf } from './measure.mts'

/** Only Linux tells what the children of a process have computed. */
export const canTellLoads = existsSync('/proc/self/stat')

/** What the processes compute while a contestant runs, round by round. */
export async function loads(course: Course, contestants: Contestant[], rounds: number): Promise<Load[]> {
  await makeTemplate(course)
  const { rows } = await query(course.server.url('postgres'), `SELECT pg_read_file('postmaster.pid') AS file`)
  const postmaster = (rows[0]!.file as string).split('\n')[0]!
  const found = contestants.map(({ name }): Load => ({ name, wall: [], python: [], node: [], postgres: [] }))
  for (let round = 0; round < rounds; round++) {
    for (const [index, contestant] of contestants.entries()) {
      const { wall, python, node, postgres } = await onFresh(course, url => loadOf(course, contestant, url, postmaster))
      found[index]!.wall.push(wall)
      found[index]!.python.push(python)
      found[index]!.node.push(node)
      found[index]!.postgres.push(postgres)
    }
  }
  await dropTemplate(course)
  return found
}

async function loadOf({ batch }: Course, { run, passesHere = false }: Contestant, url: string, postmaster: string) {
  await setTimeout(settling)
  const [children, sessions, here] = [ofChildren('self'), ofChildren(postmaster), process.cpuUsage()]
  const started = performance.now()
  const usage = await usageOf(environment => run(batch, url, undefined, environment))
  const wall = performance.now() - started
  const { user, system } = process.cpuUsage(here)
  await setTimeout(settling)
  // Python is a child of ours, or of the action, which is one.
  const python = ofChildren('self') - children - (usage?.cpu ?? 0)
  const node = usage?.cpu ?? (passesHere ? (user + system) / 1000 : 0)
  return { wall, python, node, postgres: ofChildren(postmaster) - sessions }
}

/** For the server to have ended the sessions of a process that has, in milliseconds. */
const settling = 100

/** CPU time of the ended children of a process, and of theirs, in milliseconds: proc_pid_stat(5), in ticks of 10 ms. */
function ofChildren(process: string): number {
  const stat = readFileSync(`/proc/${process}/stat`, 'utf8')
  const [user, system] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(13, 15)
  return (Number(user) + Number(system)) * 10
}

/** What the main thread of the action does while a contestant runs, in milliseconds, sampled by V8. */
export async function sampled(course: Course, contestants: Contestant[]): Promise<Sampled[]> {
  await makeTemplate(course)
  const found: Sampled[] = []
  for (const { name, run } of contestants) {
    const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-bench-'))
    const environment = { NODE_OPTIONS: `--cpu-prof --cpu-prof-interval=200 --cpu-prof-dir=${folder}` }
    await onFresh(course, url => run(course.batch, url, undefined, environment))
    const [file] = readdirSync(folder)
    found.push({ name, parts: partsOf(JSON.parse(readFileSync(join(folder, file!), 'utf8'))) })
    rmSync(folder, { recursive: true })
  }
  await dropTemplate(course)
  return found
}

/** As the DevTools protocol has it: https://chromedevtools.github.io/devtools-protocol/tot/Profiler/#type-Profile */
interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string } }[]
  samples: number[]
  /** In microseconds. */
  timeDeltas: number[]
}

function partsOf({ nodes, samples, timeDeltas }: CpuProfile): Record<string, number> {
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]))
  const parts: Record<string, number> = {}
  for (const [index, id] of samples.entries()) {
    const part = partOf(frames.get(id)!)
    parts[part] = (parts[part] ?? 0) + timeDeltas[index]! / 1000
  }
  return parts
}

function partOf({ functionName, url }: { functionName: string; url: string }): string {
  if (functionName === '(idle)') return 'waits'
  if (functionName === '(garbage collector)') return 'V8: garbage collection'
  if (url.startsWith('wasm:')) return 'libpg-query: PostgreSQL’s parser'
  if (url.startsWith('node:')) return 'Node: sockets and streams in JavaScript'
  if (url === '') return 'Node, V8 and the kernel: native code and system calls'
  return 'the action’s JavaScript'
}
