import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Step } from '../support/runner.mts'
import type { Batch } from './batch.mts'
import { type Fault, isPoint } from './faults.mts'
import { type Passing, type StartedProxy, startProxy } from './proxy.mts'
import { judge, type Verdict } from './verdict.mts'

/** How long a run may take, in milliseconds; after that it is killed, and hangs by our word. */
const longest = 100_000

/** The two parts of a run: until the batch has run, and from its first verification to the end. */
export type Part = 'run' | 'commit'

/** One point of a fault: the n-th one of that part, from 1. */
export interface Point {
  part: Part
  n: number
}

/** Where a fault strikes: at a point, or at the first one of which this is true. */
export type Place = Point | ((passing: Passing, point: Point) => boolean)

/** Counts a fault's points as they pass; undefined for what is none. */
function counter(): (fault: Fault, passing: Passing) => Point | undefined {
  let part: Part = 'run'
  const counts = { run: 0, commit: 0 }
  return (fault, passing) => {
    if (passing.sql === 'SET CONSTRAINTS ALL IMMEDIATE') part = 'commit'
    return isPoint(fault, passing) ? { part, n: ++counts[part] } : undefined
  }
}

/** A proxy in front of each server of the batch, which all are watched together. */
async function startProxies(
  { servers }: Batch,
  watch: (passing: Passing, server: Batch['servers'][number]) => void | Promise<void>,
  admit?: () => boolean,
): Promise<StartedProxy> {
  const proxies = await Promise.all(
    servers.map(server => startProxy(server.url('postgres'), passing => watch(passing, server), admit)),
  )
  return {
    through: url => proxies.reduce((each, proxy) => proxy.through(each), url),
    stop: () => {
      for (const proxy of proxies) proxy.stop()
    },
  }
}

/** How many points each fault has in a run of the batch without faults. */
export async function countPoints(batch: Batch, faults: Fault[]): Promise<Map<Fault, Record<Part, number>>> {
  const counts = new Map(faults.map(fault => [fault, { run: 0, commit: 0 }]))
  const counters = new Map(faults.map(fault => [fault, counter()]))
  const urls = await batch.fresh()
  const proxy = await startProxies(batch, passing => {
    for (const [fault, count] of counters) {
      const point = count(fault, passing)
      if (point) counts.get(fault)![point.part]++
    }
  })
  const { outputs, log } = await batch.apply(urls.map(proxy.through))
  proxy.stop()
  await batch.drop(urls)
  if (outputs.outcome !== 'applied') throw new Error(`Without faults, the batch is not applied:\n${log}`)
  return counts
}

/** Applies the batch to new databases with one fault on the way, and judges what is found then; undefined: it was never struck. */
export async function strike(batch: Batch, fault: Fault, place: Place): Promise<Verdict | undefined> {
  const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-faults-'))
  const urls = await batch.fresh()
  const work: Promise<unknown>[] = []
  const timers: NodeJS.Timeout[] = []
  const waiting: (() => void)[] = []
  let pid = 0
  let struck = false
  let tooLate = ''
  const signal = (name: NodeJS.Signals) => {
    try {
      process.kill(pid, name)
    } catch {
      // It has ended by itself.
    }
  }
  const after = (milliseconds: number, action: () => void) => timers.push(setTimeout(action, milliseconds))
  const kill = (why: string) => {
    tooLate = why
    signal('SIGKILL')
  }
  const pidFile = join(folder, batch.pidFile)
  const surroundings = {
    pidFile,
    signal,
    cancelStep() {
      signal('SIGINT')
      after(7_500, () => signal('SIGTERM'))
      after(10_000, () => kill('it had not ended ten seconds after it was cancelled'))
    },
    nextConnection: () => new Promise<void>(resolve => waiting.push(resolve)),
    afterwards: (each: Promise<unknown>) => void work.push(each),
  }
  const count = counter()
  const proxy = await startProxies(
    batch,
    (passing, server) => {
      const point = struck ? undefined : count(fault, passing)
      if (!point) return
      if (typeof place === 'function' ? !place(passing, point) : point.part !== place.part || point.n !== place.n)
        return
      struck = true
      const striking = Promise.resolve(fault.strike(passing, { ...surroundings, server }))
      work.push(striking)
      return striking
    },
    () => {
      for (const resolve of waiting.splice(0)) resolve()
      return true
    },
  )
  try {
    const started = (child: number) => {
      pid = child
    }
    after(longest, () => kill(`it had not ended after ${longest / 1000} seconds`))
    const environment = { FAULTS_FOLDER: folder }
    const step: Step = await batch.apply(urls.map(proxy.through), { started, environment })
    for (const timer of timers) clearTimeout(timer)
    // A crash of the server takes longer than the action may, and its restart begins after that.
    for (const each of work) await each
    if (!struck) return undefined
    return await judge(batch, urls, step, { tooLate, fault, pidFile })
  } finally {
    for (const timer of timers) clearTimeout(timer)
    proxy.stop()
    await batch.drop(urls)
    rmSync(folder, { recursive: true, force: true })
  }
}
