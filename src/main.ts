import { tmpdir } from 'node:os'
import { asFailure, messageOf } from './failure'
import { baseTips, mayHoldForeignScripts, readEvent } from './github/event'
import { readInputs } from './inputs'
import { log, openLog } from './log'
import { outputsOf } from './outputs'
import type { Result } from './plan/result'
import { Publisher } from './publish'
import { explain } from './report/words'
import { run } from './run'

/** The only place that sets outputs and fails the step. */
async function main(): Promise<void> {
  const cancelled = new AbortController()
  // GitHub sends SIGINT, SIGTERM after 7.5 seconds, and then kills.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => cancelled.abort())
  let result: Result
  let opened: ReturnType<typeof openLog> | undefined
  try {
    const inputs = readInputs(process.env)
    const { PGPASSWORD = '' } = process.env
    const passwords = [...inputs.databases.values()].flatMap(database => database.secrets)
    opened = openLog([...passwords, PGPASSWORD, inputs.githubToken, inputs.planKey].filter(Boolean))
    const event = readEvent(process.env)
    result = await run(inputs, {
      environment: process.env,
      repository: event.repository,
      applicationName: applicationName(event.repository, event.runId),
      temporaryDirectory: process.env.RUNNER_TEMP ?? tmpdir(),
      publisher: new Publisher(event, inputs, log, cancelled.signal),
      log,
      base: event.payload.pull_request?.base?.sha ?? '',
      trustedTips: mayHoldForeignScripts(event) && !inputs.allowUntrusted ? baseTips(event) : undefined,
      signal: cancelled.signal,
    })
  } catch (error) {
    result = {
      mode: 'preview',
      direction: 'upgrade',
      label: '',
      databases: [],
      outcome: 'refused',
      failure: asFailure(error),
    }
  }
  const core = await (opened ?? openLog([]))
  try {
    for (const [name, value] of Object.entries(outputsOf(result))) core.setOutput(name, value)
  } catch (error) {
    log.error(`The outputs could not be written: ${messageOf(error)}`, 'Atomic Upgrade: outputs')
    process.exitCode = 1
  }
  const { failure } = result
  if (failure) {
    log.error(explain({ ...result, failure }), `Atomic Upgrade: ${failure.reason}`, failure.details.place)
    process.exitCode = 1
  }
}

/** PostgreSQL keeps 63 bytes. */
function applicationName(repository: string, runId: string): string {
  return ['atomic-upgrade', repository.slice(-34), runId && `#${runId}`].filter(Boolean).join(' ').slice(0, 63)
}

// Whatever is still open then, such as a socket that never connects, is not waited for.
void main().finally(() => setTimeout(() => process.exit(), 2_000).unref())
