import { tmpdir } from 'node:os'
import { asFailure, asFault, messageOf } from './failure'
import { baseTips, mayHoldForeignScripts, readEvent } from './github/event'
import { readInputs } from './inputs'
import { log, openLog } from './log'
import type { Result } from './plan/result'
import { withoutConstants } from './report/discretion'
import { explain, stateOf } from './report/state'
import { run } from './run'
import { outputsOf } from './telling/outputs'
import { Publisher } from './telling/publish'
import { resultOfNothing } from './telling/result'

/** How long a step that a fault of ours has stopped may take to wind down, in milliseconds; what is open may hang in it. */
const grace = 10_000

/** The only place that sets outputs and fails the step. */
async function main(): Promise<void> {
  const stopped = new AbortController()
  // GitHub sends SIGINT, SIGTERM after 7.5 seconds, and then kills; a terminal that goes away sends SIGHUP.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stopped.abort())
  const faults = watchFaults(stopped)
  let result: Result
  let hidesLiterals = false
  let opened: ReturnType<typeof openLog> | undefined
  try {
    const inputs = readInputs(process.env)
    hidesLiterals = inputs.hideLiterals
    const { PGPASSWORD = '' } = process.env
    const passwords = [...inputs.databases.values()].flatMap(database => database.secrets)
    opened = openLog([...passwords, PGPASSWORD, inputs.githubToken, inputs.planKey].filter(Boolean))
    const event = readEvent(process.env)
    const surroundings = {
      environment: process.env,
      repository: event.repository,
      applicationName: applicationName(event.repository, event.runId),
      temporaryDirectory: process.env.RUNNER_TEMP ?? tmpdir(),
      log,
      base: event.payload.pull_request?.base?.sha ?? '',
      trustedTips: mayHoldForeignScripts(event) && !inputs.allowUntrusted ? baseTips(event) : undefined,
      signal: stopped.signal,
      stuck: faults.stuck,
      atEnd: new AsyncDisposableStack(),
    }
    result = await run(inputs, surroundings, new Publisher(event, inputs, log, stopped.signal))
  } catch (error) {
    result = resultOfNothing(asFailure(error))
  }
  faults.end()
  const core = await (opened ?? openLog([]))
  const { failure } = result
  try {
    for (const [name, value] of Object.entries(outputsOf(result))) core.setOutput(name, value)
  } catch (error) {
    const told = `The outputs could not be written: ${messageOf(error)}`
    log.error([told, failure ? '' : stateOf(result)].filter(Boolean).join('\n'), 'Atomic Upgrade: outputs')
    process.exitCode = 1
  }
  if (failure) {
    const told = explain(result)
    const shown = hidesLiterals ? explain(withoutConstants(result)) : told
    if (shown !== told) log.group('The error in full, which hide-literals keeps for the log', told.split('\n'))
    log.error(shown, `Atomic Upgrade: ${failure.reason}`, failure.details.place)
    process.exitCode = 1
  }
}

/**
 * What is thrown past everything that awaits, in a listener or a promise, is a fault of ours. It stops the step as a
 * cancellation does, so that everything is rolled back and read again. `stuck` rejects where that does not come to an
 * end; `end` says that it has, or that nothing went wrong.
 */
function watchFaults(stopped: AbortController): { stuck: Promise<never>; end: () => void } {
  let reject: (error: unknown) => void = () => {}
  const stuck = new Promise<never>((_, fail) => {
    reject = fail
  })
  stuck.catch(() => {})
  let hasEnded = false
  const onFault = (error: unknown) => {
    if (hasEnded) return log.warning(`Behind its end, a fault of Atomic Upgrade itself: ${messageOf(error)}`)
    const fault = asFault(error)
    stopped.abort(fault)
    setTimeout(() => reject(fault), grace).unref()
  }
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) process.on(event, onFault)
  // Whoever reads the log can go away, and the step has to go on.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  return {
    stuck,
    end: () => {
      hasEnded = true
    },
  }
}

/** PostgreSQL keeps 63 bytes. */
function applicationName(repository: string, runId: string): string {
  return ['atomic-upgrade', repository.slice(-34), runId && `#${runId}`].filter(Boolean).join(' ').slice(0, 63)
}

// Whatever is still open then, such as a socket that never connects, is not waited for.
void main()
  .catch(error => {
    process.exitCode = 1
    console.error(error)
  })
  .finally(() => setTimeout(() => process.exit(), 2_000).unref())
