import { setTimeout as pause } from 'node:timers/promises'

/** Milliseconds to ask for when the step is cancelled. */
const lastPatience = 2_000

/**
 * Asks again, with growing pauses, until there is an answer; undefined when `patience` (milliseconds) has run out, which
 * is soon after `signal` is aborted. What `ask` throws counts as no answer, unless `isFinal` says otherwise.
 */
export async function keepAsking<T>(
  { patience, signal }: { patience: number; signal: AbortSignal },
  ask: (limit: AbortSignal) => Promise<T | undefined>,
  isFinal: (error: unknown) => boolean = () => false,
): Promise<T | undefined> {
  let deadline = Date.now() + patience
  const hurry = () => {
    deadline = Math.min(deadline, Date.now() + lastPatience)
  }
  if (signal.aborted) hurry()
  else signal.addEventListener('abort', hurry)
  for (let wait = 100; ; wait = Math.min(wait * 2, 3_000)) {
    try {
      const answer = await ask(AbortSignal.timeout(Math.max(deadline - Date.now(), 1)))
      if (answer !== undefined) return answer
    } catch (error) {
      if (isFinal(error)) throw error
    }
    if (Date.now() + wait > deadline) return undefined
    await pause(wait)
  }
}
