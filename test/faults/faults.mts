import { setTimeout as pause } from 'node:timers/promises'
import type { FailureReason } from '../../src/failure.ts'
import type { Server } from '../support/postgres.mts'
import type { Direction } from './frames.mts'
import { livingIn } from './living.mts'
import type { Passing } from './proxy.mts'

/** What a fault can lay hands on. */
export interface Surroundings {
  server: Server
  /** Sends a signal to the action. */
  signal(signal: NodeJS.Signals): void
  /** As GitHub cancels a step: SIGINT, SIGTERM 7.5 seconds later, and SIGKILL 2.5 seconds after that. */
  cancelStep(): void
  /** Where each run of the user's Python writes its process id. */
  pidFile: string
  /** Resolves when the action opens its next connection. */
  nextConnection(): Promise<void>
  /** Is finished before the database is asked. */
  afterwards(work: Promise<unknown>): void
}

/** One way in which things break, at one point of a run. */
export interface Fault {
  name: string
  direction: Direction
  /** Whether it may strike at every message, or only where a statement begins (up) or has ended (down). */
  at: 'message' | 'statement'
  /** What the action may give as its failure-reason; empty for a success. */
  reasons: (FailureReason | '')[]
  /** The action is dead then and has no words. */
  silences?: boolean
  strike(passing: Passing, surroundings: Surroundings): void | Promise<void>
}

/** How long a stall lasts that goes on by itself, in milliseconds. */
const stall = 700
/** How long one is held at most that waits for a cancellation. */
const patience = 3_000

const cut: Fault['strike'] = passing => passing.cut()
const cutBehind: Fault['strike'] = passing => passing.cutBehind()
const reset: Fault['strike'] = passing => passing.reset()
const hold: Fault['strike'] = passing => passing.hold(pause(stall))
const cancel: Fault['strike'] = (_passing, { cancelStep }) => cancelStep()
const signal =
  (name: NodeJS.Signals): Fault['strike'] =>
  (_passing, { signal: send }) =>
    send(name)

/** The message is held until the server is gone, so it never arrives; the server is started again at once. */
const crash: Fault['strike'] = async (passing, { server, afterwards }) => {
  await server.crash()
  passing.cut()
  afterwards(server.restart())
}

/** The answer passes, from a server that is gone by then. */
const crashBehind: Fault['strike'] = async (passing, { server, afterwards }) => {
  await server.crash()
  passing.cutBehind()
  afterwards(server.restart())
}

const cancelWhileStalled: Fault['strike'] = (passing, { cancelStep, nextConnection }) => {
  passing.hold(Promise.race([nextConnection(), pause(patience)]))
  cancelStep()
}

const killPython: Fault['strike'] = async (_passing, { pidFile }) => {
  while (livingIn(pidFile).length === 0) await pause(20)
  // The one that has planned may have ended.
  for (const pid of livingIn(pidFile)) process.kill(pid, 'SIGKILL')
}

const broken: Fault['reasons'] = ['', 'connection-failed', 'commit-failed']
const cancelled: Fault['reasons'] = ['', 'cancelled']
const ended: Fault['reasons'] = ['', 'render-failed', 'migration-failed']

export const faults: Fault[] = [
  { name: 'connection cut, request lost', direction: 'up', at: 'message', reasons: broken, strike: cut },
  { name: 'connection cut, answer lost', direction: 'down', at: 'message', reasons: broken, strike: cut },
  { name: 'connection cut behind an answer', direction: 'down', at: 'statement', reasons: broken, strike: cutBehind },
  { name: 'connection reset, request lost', direction: 'up', at: 'statement', reasons: broken, strike: reset },
  { name: 'connection reset, answer lost', direction: 'down', at: 'statement', reasons: broken, strike: reset },
  { name: 'request stalled, then goes on', direction: 'up', at: 'statement', reasons: [''], strike: hold },
  { name: 'answer stalled, then goes on', direction: 'down', at: 'statement', reasons: [''], strike: hold },
  {
    name: 'stalled until the step is cancelled',
    direction: 'up',
    at: 'statement',
    reasons: cancelled,
    strike: cancelWhileStalled,
  },
  {
    name: 'action gets SIGINT, as GitHub cancels',
    direction: 'up',
    at: 'statement',
    reasons: cancelled,
    strike: cancel,
  },
  {
    name: 'action gets SIGINT, together with an answer',
    direction: 'down',
    at: 'statement',
    reasons: cancelled,
    strike: cancel,
  },
  { name: 'action gets SIGTERM', direction: 'up', at: 'statement', reasons: cancelled, strike: signal('SIGTERM') },
  {
    name: 'action gets SIGKILL',
    direction: 'up',
    at: 'statement',
    reasons: [''],
    strike: signal('SIGKILL'),
    silences: true,
  },
  { name: 'user’s Python gets SIGKILL', direction: 'up', at: 'statement', reasons: ended, strike: killPython },
  { name: 'server crashes, request lost', direction: 'up', at: 'statement', reasons: broken, strike: crash },
  { name: 'server crashes behind an answer', direction: 'down', at: 'statement', reasons: broken, strike: crashBehind },
  { name: 'server crashes, answer lost', direction: 'down', at: 'statement', reasons: broken, strike: crash },
]

export const faultNamed = (name: string): Fault => {
  const found = faults.find(fault => fault.name === name)
  if (!found) throw new Error(`There is no fault named “${name}”.`)
  return found
}

/** Whether a fault may strike here: statements begin with Query or Parse, and end with ReadyForQuery. */
export function isPoint({ direction, at }: Fault, passing: Pick<Passing, 'direction' | 'type'>): boolean {
  if (passing.direction !== direction) return false
  return at === 'message' || (direction === 'up' ? 'QP' : 'Z').includes(passing.type || '?')
}
