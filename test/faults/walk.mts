import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Step } from '../support/runner.mts'
import type { Batch } from './batch.mts'
import { type Fault, isPoint } from './faults.mts'
import { type Passing, startProxy } from './proxy.mts'
import { judge, type Verdict } from './verdict.mts'

/** How long a run may take, in milliseconds; after that it is killed, and hangs by our word. */
const longest = 100_000

/** Where a fault strikes: at its n-th point, or at the first one of which this is true. */
export type Place = number | ((passing: Passing, faultPoint: number) => boolean)

/** How many points each fault has in a run of the batch without faults. */
export async function countPoints(batch: Batch, faults: Fault[]): Promise<Map<Fault, number>> {
  const counts = new Map(faults.map(fault => [fault, 0]))
  const url = await batch.fresh()
  const proxy = await startProxy(url, passing => {
    for (const fault of faults) if (isPoint(fault, passing)) counts.set(fault, counts.get(fault)! + 1)
  })
  const { outputs, log } = await batch.apply(proxy.through(url))
  proxy.stop()
  await batch.drop(url)
  if (outputs.outcome !== 'applied') throw new Error(`Without faults, the batch is not applied:\n${log}`)
  return counts
}

/** Applies the batch to a new database with one fault on the way, and judges what is found then; undefined: it was never struck. */
export async function strike(batch: Batch, fault: Fault, place: Place): Promise<Verdict | undefined> {
  const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-faults-'))
  const url = await batch.fresh()
  const work: Promise<unknown>[] = []
  const timers: NodeJS.Timeout[] = []
  const waiting: (() => void)[] = []
  let pid = 0
  let points = 0
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
  const surroundings = {
    server: batch.server,
    pidFile: join(folder, batch.pidFile),
    signal,
    cancelStep() {
      signal('SIGINT')
      after(7_500, () => signal('SIGTERM'))
      after(10_000, () => kill('it had not ended ten seconds after it was cancelled'))
    },
    nextConnection: () => new Promise<void>(resolve => waiting.push(resolve)),
    afterwards: (each: Promise<unknown>) => void work.push(each),
  }
  const proxy = await startProxy(
    url,
    passing => {
      if (struck || !isPoint(fault, passing)) return
      points++
      if (typeof place === 'number' ? points !== place : !place(passing, points)) return
      struck = true
      return fault.strike(passing, surroundings)
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
    const step: Step = await batch.apply(proxy.through(url), { started, environment })
    for (const timer of timers) clearTimeout(timer)
    await Promise.all(work)
    if (!struck) return undefined
    return await judge(batch, url, step, { tooLate, fault, pidFile: surroundings.pidFile })
  } finally {
    for (const timer of timers) clearTimeout(timer)
    proxy.stop()
    await batch.drop(url)
    rmSync(folder, { recursive: true, force: true })
  }
}
