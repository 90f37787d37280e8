import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { contents } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import type { Step } from '../support/runner.mts'
import { type Batch, newHead, oldHead } from './batch.mts'
import type { Fault } from './faults.mts'

export interface Verdict {
  /** What the database holds: everything as before the batch, everything as after it, or neither. */
  holds: 'old' | 'new' | 'half'
  /** What the action said that is not so. */
  falseWords: string[]
  /** What it left behind: sessions, locks, prepared transactions, processes, or a database that cannot go on. */
  left: string[]
  /** For whoever reads about a bad one. */
  step: Step
}

export interface Circumstances {
  /** Why the harness ended the run; empty where it ended by itself. */
  tooLate: string
  fault: Fault
  pidFile: string
}

/** Asks the database itself, past the proxy, what became of the run; the database is used up by that. */
export async function judge(batch: Batch, url: string, step: Step, circumstances: Circumstances): Promise<Verdict> {
  const left = await leftBehind(url, circumstances.pidFile)
  const found = await contents(url)
  const holds = found === batch.before ? 'old' : found === batch.after ? 'new' : 'half'
  const falseWords = wrong(step, holds, circumstances)
  const second = await batch.apply(url)
  const expected = holds === 'new' ? 'up-to-date' : 'applied'
  if (second.outputs.outcome !== expected) left.push(`a second run ends ${second.outputs.outcome}:\n${second.log}`)
  else if ((await contents(url)) !== batch.after) left.push('a second run leaves something else than the batch')
  return { holds, falseWords, left, step }
}

export const isBad = ({ holds, falseWords, left }: Verdict): boolean =>
  holds === 'half' || falseWords.length > 0 || left.length > 0

/** What the outputs, the exit code and the last line say that is not so. */
function wrong(step: Step, holds: Verdict['holds'], { tooLate, fault }: Circumstances): string[] {
  const { outputs, exitCode, log } = step
  const { outcome = '', 'failure-reason': reason = '', 'prior-head': prior, 'new-head': head } = outputs
  const said = `outcome=${outcome} failure-reason=${reason} prior-head=${prior} new-head=${head} exit=${exitCode}`
  const wrongs: string[] = []
  const must = (so: boolean, what: string) => {
    if (!so) wrongs.push(`${what} (${said}; the database holds the ${holds})`)
  }
  if (tooLate) return [tooLate]
  if (fault.silences && outcome === '') return []
  const failed = !['applied', 'up-to-date'].includes(outcome)
  must(outcome !== '', 'no outputs')
  must(exitCode === (failed ? 1 : 0), 'the exit code does not fit')
  must((reason !== '') === failed, 'the failure-reason does not fit')
  must(
    fault.reasons.some(each => each === reason),
    'the failure-reason is not what happened',
  )
  const heads = { old: oldHead, new: newHead, half: '?' }[holds]
  if (outcome === 'in-doubt') {
    must(head === '', 'in doubt, and yet a new-head')
    must(log.includes('::xid8)'), 'in doubt, without the query that settles it')
  } else if (outcome === 'refused' && prior === '' && head === '') {
    // It never came to know the heads.
    must(holds === 'old', 'refused')
  } else {
    must(prior === oldHead, 'prior-head')
    must(head === heads, 'new-head')
    must(holds === (failed ? 'old' : 'new'), 'the outcome')
  }
  const place = /^Outcome: .*\bThe database is (?:now )?at (\w+)/m.exec(log)?.[1]
  must(place === undefined || place === heads, `the log says that the database is at ${place}`)
  return wrongs
}

/** Waits until the server has noticed; says what is still there when it should have. */
async function leftBehind(url: string, pidFile: string): Promise<string[]> {
  const deadline = Date.now() + 20_000
  for (;;) {
    const left = [...(await ours(url)), ...(isAlive(pidFile) ? ['the user’s Python'] : [])]
    if (left.length === 0 || Date.now() > deadline) return left
    await pause(50)
  }
}

async function ours(url: string): Promise<string[]> {
  const { rows } = await query(
    url,
    `SELECT 'session ' || application_name || ': ' || query AS what FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
     UNION ALL SELECT 'lock ' || mode FROM pg_locks WHERE locktype = 'advisory'
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
     UNION ALL SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts WHERE database = current_database()`,
  )
  return rows.map(row => row.what as string)
}

function isAlive(pidFile: string): boolean {
  if (!existsSync(pidFile)) return false
  try {
    process.kill(Number(readFileSync(pidFile, 'utf8')), 0)
    return true
  } catch {
    return false
  }
}
