import type { Inputs } from '../inputs'
import type { Log } from '../log'

/** What a step runs in; main.ts gives it. */
export interface Surroundings {
  environment: NodeJS.ProcessEnv
  /** `owner/name`; empty outside of GitHub. */
  repository: string
  /** What others see in pg_stat_activity while we are connected. */
  applicationName: string
  /** Where the files of SQL and plan go. */
  temporaryDirectory: string
  log: Log
  /** The tip of the pull request's base branch, as far as the event tells it. */
  base: string
  /** Where the checkout has to be on the base branch: the commits that are known to be; undefined where it need not. */
  trustedTips: string[] | undefined
  /** Aborted when GitHub cancels the step, or a fault of ours stops it: then its reason is a Failure. */
  signal: AbortSignal
  /** Rejects where such a step does not come to its end. */
  stuck: Promise<never>
  /** What is open at the end of the step is ended then, the last one first. */
  atEnd: AsyncDisposableStack
}

/** What every stage knows. */
export interface Step {
  readonly inputs: Inputs
  readonly surroundings: Surroundings
}

/** The name of a project's only database. */
export const onlyBind = 'default'

/**
 * Throws where the step has been cancelled. A signal that came before the last answer can still be on its way: libuv
 * notes it while it hands on what the poll at hand has found, and finds it with the next one.
 */
export async function throwIfCancelled({ surroundings }: Step): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise(resolve => setImmediate(resolve))
  surroundings.signal.throwIfAborted()
}

/** All of them, also those that come after a failure; then the first failure is thrown. */
export async function allOf<T>(promises: Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises)
  return Promise.all(promises)
}
