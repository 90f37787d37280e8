import { setTimeout as pause } from 'node:timers/promises'
import { contents } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import type { Step } from '../support/runner.mts'
import { type Batch, newHead, oldHead, preparedIn, type Stop } from './batch.mts'
import type { Fault } from './faults.mts'
import { livingIn } from './living.mts'

/** What one database holds: everything as before the batch, everything as after it, neither, or what a stop between two segments has. */
type Holds = 'old' | 'new' | 'half' | 'between'

export interface Verdict {
  /** What all databases hold once what was prepared is decided; `half` is also one old and another new. */
  holds: Holds
  /** What each held after the run with the fault, before anybody settled it. */
  seen: (Holds | 'prepared')[]
  /** Between which segments it stopped, if it did. */
  stop?: Stop['name']
  /** What the action said that is not so. */
  falseWords: string[]
  /** What it left behind: sessions, locks, processes, or a database that cannot go on. */
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

/** Asks the databases themselves, past the proxy, what became of the run; they are used up by that. */
export async function judge(batch: Batch, urls: string[], step: Step, circumstances: Circumstances): Promise<Verdict> {
  const left = await leftBehind(urls, circumstances.pidFile)
  const prepared = await Promise.all(urls.map(preparedIn))
  // Behind a prepared transaction's locks the tables cannot even be read.
  const seen = await Promise.all(
    urls.map((url, i) => (prepared[i]!.length > 0 ? ('prepared' as const) : holdings(batch, url))),
  )
  const stop = seen[0] === 'between' ? await stopIn(batch, urls[0]!) : undefined
  const second = await batch.apply(urls)
  // The second run settles, and then applies what is left: whether it settled to a mix, only the transactions can tell.
  const decided = await Promise.all(seen.map((each, i) => (each === 'prepared' ? fate(urls[i]!, prepared[i]!) : each)))
  const holds = decided.every(each => each === decided[0]) ? decided[0]! : 'half'
  const falseWords = wrong(batch, step, decided, seen, stop, circumstances)
  const expected = holds === 'new' ? 'up-to-date' : 'applied'
  if (second.outputs.outcome !== expected) left.push(`a second run ends ${second.outputs.outcome}:\n${second.log}`)
  for (const url of urls) {
    const found = await holdings(batch, url)
    if (found !== 'new') left.push(`a second run leaves ${url} at ${found}`)
  }
  left.push(...(await leftBehind(urls, circumstances.pidFile, true)).map(each => `after a second run, ${each}`))
  return { holds, seen, falseWords, left, step, ...(stop && { stop: stop.name }) }
}

export const isBad = ({ holds, falseWords, left }: Verdict): boolean =>
  holds === 'half' || falseWords.length > 0 || left.length > 0

async function holdings(batch: Batch, url: string): Promise<Holds> {
  const found = await contents(url)
  if (found === batch.before) return 'old'
  return found === batch.after ? 'new' : batch.stops.some(stop => stop.contents === found) ? 'between' : 'half'
}

async function stopIn({ stops }: Batch, url: string): Promise<Stop | undefined> {
  const found = await contents(url)
  return stops.find(stop => stop.contents === found)
}

/** What became of a transaction that was prepared: a prepared one's id is on disk, so it is never given out again. */
async function fate(url: string, [prepared, ...more]: { id: string }[]): Promise<Holds> {
  const { rows } = await query(url, `SELECT pg_xact_status('${prepared!.id}'::xid8) AS status`)
  if (more.length > 0) return 'half'
  return rows[0]!.status === 'committed' ? 'new' : rows[0]!.status === 'aborted' ? 'old' : 'half'
}

/** What the outputs, the exit code and the last lines say that is not so. */
function wrong(
  { binds }: Batch,
  step: Step,
  decided: Holds[],
  seen: Verdict['seen'],
  stop: Stop | undefined,
  { tooLate, fault }: Circumstances,
): string[] {
  const { outputs, exitCode, log } = step
  const { outcome = '', 'failure-reason': reason = '', 'prior-head': prior, 'new-head': head, databases } = outputs
  const said = `outcome=${outcome} failure-reason=${reason} prior-head=${prior} new-head=${head} exit=${exitCode} databases=${databases}`
  const wrongs: string[] = []
  const must = (so: boolean, what: string) => {
    if (!so) wrongs.push(`${what} (${said}; held: ${seen.join(', ')}; decided: ${decided.join(', ')})`)
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
  must(
    !seen.includes('prepared') || /a prepared transaction may be left|'::xid8|COMMIT PREPARED '/.test(log),
    'a prepared transaction is left, and not a word of it',
  )
  if (outcome === 'in-doubt') must(/::xid8\)|COMMIT PREPARED '/.test(log), 'in doubt, without what settles it')
  const each = (JSON.parse(databases || '{}') as Record<string, Record<string, string>>) ?? {}
  const lines = (which: 'prior-head' | 'new-head') =>
    binds.map(bind => (binds.length > 1 ? `${bind}=` : '') + (each[bind]?.[which] ?? '')).join('\n')
  must(prior === lines('prior-head') && head === lines('new-head'), 'the heads are not those of databases')
  for (const [index, bind] of binds.entries()) {
    const { outcome: its = '', 'prior-head': from = '', 'new-head': to = '' } = each[bind] ?? {}
    const holds = decided[index]!
    const of = (what: string) => `${what} of ${bind}`
    if (its === 'in-doubt') {
      must(outcome === 'in-doubt', of('in doubt as the outcome'))
      must(to === '', of('in doubt, and yet the new-head'))
    } else if (its === 'refused' && from === '' && to === '') {
      // It never came to know the heads.
      must(holds === 'old', of('refused as the outcome'))
    } else if (stop) {
      must(from === oldHead, of('the prior-head'))
      must(to === stop.head, of('the new-head'))
      must(its === 'partly-applied', of('the outcome'))
      must(isSaid(stop, outputs.segments), `the segments, at ${stop.name}: ${outputs.segments}`)
    } else {
      must(from === oldHead, of('the prior-head'))
      must(to === { old: oldHead, new: newHead, half: '?', between: '?' }[holds], of('the new-head'))
      must(holds === (['applied', 'up-to-date'].includes(its) ? 'new' : 'old'), of('the outcome'))
    }
    const the = binds.length > 1 ? `The database ${bind} is` : 'Outcome: .*\\bThe database is'
    const place = new RegExp(`^(?:Outcome: \\S+ )?${the} (?:now )?at (\\w+)`, 'm').exec(log)?.[1]
    const there = { old: oldHead, new: newHead, half: '?', between: stop?.head }[holds]
    must(place === undefined || place === there, `the log says that the database ${bind} is at ${place}`)
  }
  return wrongs
}

/** Whether the output has the segments that are committed, and no others; an unanswered statement may be one of them. */
function isSaid({ committed }: Stop, segments = '[]'): boolean {
  const outcomes = (JSON.parse(segments) as { outcome: string }[]).map(({ outcome }) => outcome)
  const applied = outcomes.filter(outcome => outcome === 'applied').length
  return applied === committed || (outcomes[applied] === 'in-doubt' && committed === applied + 1)
}

/**
 * Waits until the servers have noticed; says what is still there when it should have. What is prepared may stay, with
 * its locks, for the next run; after that nothing may (`settled`).
 */
async function leftBehind(urls: string[], pidFile: string, settled = false): Promise<string[]> {
  const deadline = Date.now() + 20_000
  for (;;) {
    const found = await Promise.all(urls.map(url => ours(url, settled || urls.length === 1)))
    const left = [...found.flat(), ...(livingIn(pidFile).length > 0 ? ['the user’s Python'] : [])]
    if (left.length === 0 || Date.now() > deadline) return left
    await pause(50)
  }
}

async function ours(url: string, preparedToo: boolean): Promise<string[]> {
  const { rows } = await query(
    url,
    `SELECT 'session ' || application_name || ': ' || query AS what FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
     UNION ALL SELECT 'lock ' || mode FROM pg_locks WHERE locktype = 'advisory'
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND (pid IS NOT NULL OR ${preparedToo})
     UNION ALL SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts
       WHERE database = current_database() AND ${preparedToo}`,
  )
  return rows.map(row => row.what as string)
}
