import type { DatabaseError } from 'pg'
import { Failure } from './failure'
import { messageOf, type Refused, refusedIn } from './plan/message'
import type { Revision } from './plan/plan'
import type { DatabaseState } from './plan/result'
import { LockWatch } from './postgres/blockers'
import { connectionLost, isServerError } from './postgres/connection'
import { Tape } from './postgres/gate/tape'
import { type CommandTag, MessageError, sendMessage } from './postgres/message'
import { cancelStatement } from './postgres/sessions'
import { Progress } from './progress'
import { failureOf } from './report/blame'
import { count } from './report/words'
import type { Step } from './step'
import type { Target } from './target'

/**
 * Runs the SQL of the plan as it stands there, one message for each revision: no Python, no scripts.
 * Throws a Failure that names what failed.
 */
export async function runMessages(step: Step): Promise<void> {
  const { log } = step.surroundings
  step.started = true
  for (const target of step.targets) {
    const { revisions } = target.state.plan!
    if (revisions.length === 0) continue
    const where = step.targets.length > 1 ? ` on ${target.state.bind}` : ''
    log.info(`Running the SQL of ${count(revisions.length, 'revision')}${where} in one transaction.`)
    await runOn(step, target)
  }
}

async function runOn({ surroundings, targets }: Step, target: Target): Promise<void> {
  const { log, signal } = surroundings
  const { state, transaction } = target
  const { client, pid, lockTimeout } = transaction
  const of = targets.length > 1 ? `${state.bind}: ` : ''
  const tape = new Tape(target.versionTable.name)
  const progress = new Progress(tape, { ...log, info: text => log.info(of + text) }, state.plan!)
  let sent = performance.now()
  const watch = new LockWatch({
    pid,
    quietSince: () => sent,
    lockTimeout,
    connect: () => target.connect(),
    onWait: blockers => log.info(`Waiting for a lock that is held by ${blockers.join(' and by ')}.`),
  })
  const cancel = () => void cancelStatement(pid, () => target.connect())
  signal.addEventListener('abort', cancel)
  const onNotice = ({ severity = '', message = '' }: { severity?: string | undefined; message?: string | undefined }) =>
    tape.notice(severity, message)
  client.on('notice', onNotice)
  let failed = true
  try {
    for (const revision of state.plan!.revisions) {
      progress.start(revision.id)
      sent = performance.now()
      signal.throwIfAborted()
      await send(target, revision, tape, () => watch.blockersSince(sent))
    }
    failed = false
  } finally {
    await watch.end()
    signal.removeEventListener('abort', cancel)
    client.off('notice', onNotice)
    progress.finish({ failed })
    state.runs = progress.runs
    if (tape.notices.length > 0) log.group(`Notices of PostgreSQL${of && ` (${state.bind})`}`, tape.notices)
  }
  // A script's SET ROLE, for one, is not for what comes now.
  await transaction.clearSession()
}

async function send(target: Target, revision: Revision, tape: Tape, blockers: () => string[]): Promise<void> {
  const message = messageOf(revision.statements!)
  const note = (answered: CommandTag[]) => {
    for (const [index, { command }] of answered.entries()) tape.start(message.commands[index]?.sql ?? '', none)(command)
  }
  let answered: CommandTag[]
  try {
    answered = await sendMessage(target.transaction.client, message.text)
  } catch (error) {
    if (!(error instanceof MessageError)) throw error
    note(error.answered)
    if (!isServerError(error.cause)) throw connectionLost(error.cause, { revision: revision.id })
    throw refusal(error.cause, refusedIn(message, positionOf(error.cause), error.answered.length))
  }
  note(answered)
  for (const [index, tag] of answered.entries()) {
    if (message.commands[index]?.own) requireOneRow(revision, tag, target.state)
  }

  function refusal(
    { code = '', message: told, detail, hint }: DatabaseError,
    { statement, position }: Refused,
  ): Failure {
    const place = statement && { file: revision.path, line: statement.line }
    const failure = failureOf(
      { message: told, revision: revision.id, place, fromDatabase: true },
      {
        sql: statement?.sql ?? '',
        error: { code, message: told, ...(detail && { detail }), ...(hint && { hint }), ...(position && { position }) },
      },
      target.state.plan!,
      { blockers: blockers() },
    )
    return inBind(failure, target.state)
  }
}

const none = () => []

const positionOf = ({ position }: DatabaseError): number | undefined => (position ? Number(position) : undefined)

/** As Alembic itself does: a row of the version table that is moved or taken away has to be there, and once. */
function requireOneRow(revision: Revision, { command, rows }: CommandTag, state: DatabaseState): void {
  if (!/^(UPDATE|DELETE)$/.test(command) || rows === 1) return
  const failure = new Failure(
    'migration-failed',
    `Revision ${revision.id} was to ${command} one row of the version table, and there were ${rows}.`,
    {
      revision: revision.id,
      advice: 'Look at what the scripts do to the version table, and make a new plan.',
    },
  )
  throw inBind(failure, state)
}

/** Which database it was, where there is more than one. */
function inBind(failure: Failure, { bind }: DatabaseState): Failure {
  if (bind !== 'default') failure.details.bind = bind
  return failure
}
