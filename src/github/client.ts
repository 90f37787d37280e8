import { setImmediate } from 'node:timers/promises'

export type Octokit = Awaited<ReturnType<typeof client>>

/** A repository as Octokit names it. */
export interface Repository {
  owner: string
  repo: string
}

/** How long one look-up or one change may take before the step goes on without it, in milliseconds. */
const patience = 15_000
/** The same once the step is cancelled: the runner kills it ten seconds later. */
const haste = 3_000

/**
 * A client of GitHub's API. It tries once more after a second, and no longer: a deploy has better things to wait for.
 * Octokit and its HTTP client take long to load, so that is done when what was begun before has been started: Python.
 */
export async function client(token: string) {
  await setImmediate()
  const [{ getOctokit }, { retry }] = await Promise.all([import('@actions/github'), import('@octokit/plugin-retry')])
  return getOctokit(token, { retry: { retries: 1 } }, retry)
}

/** Aborts what takes too long. */
export function deadline(cancelled: AbortSignal): AbortSignal {
  if (cancelled.aborted) return AbortSignal.timeout(haste)
  const hurried = new AbortController()
  const hurry = () => setTimeout(() => hurried.abort(), haste).unref()
  cancelled.addEventListener('abort', hurry, { once: true })
  return AbortSignal.any([AbortSignal.timeout(patience), hurried.signal])
}
