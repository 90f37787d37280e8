import { Failure } from './failure'
import type { RenderedStatement, Revision } from './plan/plan'
import type { DatabaseState } from './plan/result'
import { LockWatch } from './postgres/blockers'
import { connectionLost } from './postgres/connection'
import { Tape } from './postgres/gate/tape'
import { type CommandTag, MessageError, Messages } from './postgres/messages'
import { cancelStatement } from './postgres/sessions'
import { Progress } from './progress'
import { failureOf } from './report/blame'
import { count } from './report/words'
import type { Step } from './step'
import type { Target } from './target'

/**
 * Runs the SQL of the plan as it stands there, statement by statement in a pipeline: no Python, no scripts.
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
  const messages = new Messages(client, (severity, text) => tape.notice(severity, text))
  const ahead = new Ahead(state.plan!.revisions, messages)
  let failed = true
  try {
    for (const revision of state.plan!.revisions) {
      progress.start(revision.id)
      sent = performance.now()
      signal.throwIfAborted()
      const { statements, answer } = ahead.next()
      const answered = await answer.catch(error => {
        if (!(error instanceof MessageError)) throw error
        note(tape, statements, error.answered)
        throw failureFrom(error, { revision, statements, state, blockers: watch.blockersSince(sent) })
      })
      note(tape, statements, answered)
      const missed = missedRow(revision, statements, answered, state)
      if (!missed) continue
      cancel()
      throw missed
    }
    failed = false
  } finally {
    await ahead.end()
    messages.close()
    await watch.end()
    signal.removeEventListener('abort', cancel)
    progress.finish({ failed })
    state.runs = progress.runs
    if (tape.notices.length > 0) log.group(`Notices of PostgreSQL${of && ` (${state.bind})`}`, tape.notices)
  }
}

/** How much is sent before what was sent is answered, in characters. */
const mostAhead = 1_000_000

interface Sent {
  statements: RenderedStatement[]
  answer: Promise<CommandTag[]>
}

/** The statements of the revisions, sent ahead of the answers: a database that is far away is not waited for each time. */
class Ahead {
  readonly #rest: Revision[]
  #sent: Sent[] = []

  constructor(
    revisions: Revision[],
    private readonly messages: Messages,
  ) {
    this.#rest = [...revisions]
  }

  /** The next revision's statements, with their answer to come. */
  next(): Sent {
    while (this.#rest.length > 0 && this.#isLittle) {
      const { statements = [] } = this.#rest.shift()!
      this.#sent.push({ statements, answer: this.messages.send(statements.map(({ sql }) => sql)) })
    }
    return this.#sent.shift()!
  }

  get #isLittle(): boolean {
    const lengths = this.#sent.flatMap(({ statements }) => statements.map(({ sql }) => sql.length))
    return this.#sent.length === 0 || lengths.reduce((sum, length) => sum + length, 0) < mostAhead
  }

  /** Behind a failure, PostgreSQL answers everything that is under way. */
  async end(): Promise<void> {
    await Promise.allSettled(this.#sent.map(({ answer }) => answer))
  }
}

function note(tape: Tape, statements: RenderedStatement[], answered: CommandTag[]): void {
  for (const [index, { command }] of answered.entries()) {
    if (command) tape.start(statements[index]?.sql ?? '', none)(command)
  }
}

const none = () => []

interface Circumstances {
  revision: Revision
  statements: RenderedStatement[]
  state: DatabaseState
  /** The sessions that were in the way, in words. */
  blockers: string[]
}

function failureFrom(
  { refused, answered, message: told }: MessageError,
  { revision, statements, state, blockers }: Circumstances,
): Failure {
  if (!refused) return connectionLost(new Error(told), { revision: revision.id })
  const statement = statements[answered.length]
  const place = statement && { file: revision.path, line: statement.line }
  const failure = failureOf(
    { message: refused.message, revision: revision.id, place, fromDatabase: true },
    { sql: statement?.sql ?? '', error: refused },
    state.plan!,
    { blockers },
  )
  return inBind(failure, state)
}

/** As Alembic itself does: a row of the version table that is moved or taken away has to be there, and once. */
function missedRow(
  revision: Revision,
  statements: RenderedStatement[],
  answered: CommandTag[],
  state: DatabaseState,
): Failure | undefined {
  const missed = answered.find(
    ({ command, rows }, index) => statements[index]?.own && /^(UPDATE|DELETE)$/.test(command) && rows !== 1,
  )
  if (!missed) return undefined
  const failure = new Failure(
    'migration-failed',
    `Revision ${revision.id} was to ${missed.command} one row of the version table, and there were ${missed.rows}.`,
    {
      revision: revision.id,
      advice: 'Look at what the scripts do to the version table, and make a new plan.',
    },
  )
  return inBind(failure, state)
}

/** Which database it was, where there is more than one. */
function inBind(failure: Failure, { bind }: DatabaseState): Failure {
  if (bind !== 'default') failure.details.bind = bind
  return failure
}
