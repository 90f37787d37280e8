import { Failure } from '../failure'
import type { Step } from '../opening/surroundings'
import type { RenderedStatement, Revision } from '../plan/plan'
import { LockWatch } from '../postgres/blockers'
import { connectionLost } from '../postgres/connection'
import { Tape } from '../postgres/gate/tape'
import { type CommandTag, MessageError, Messages } from '../postgres/messages'
import { cancelStatement } from '../postgres/sessions'
import { failureOf } from '../report/blame'
import { count } from '../report/words'
import type { Course } from './course'
import type { Migration } from './migration'
import { Progress } from './progress'
import type { Running } from './running'

/**
 * Runs the SQL of the plan as it stands there, statement by statement in a pipeline: no Python, no scripts.
 * Throws a Failure that names what failed.
 */
export async function runMessages(running: Running, migrations: Migration[]): Promise<void> {
  const { log } = running.step.surroundings
  running.hasStarted = true
  for (const migration of migrations) {
    const { revisions } = migration.course.plan
    if (revisions.length === 0) continue
    const where = migrations.length > 1 ? ` on ${migration.bind}` : ''
    log.info(`Running the SQL of ${count(revisions.length, 'revision')}${where} in one transaction.`)
    await runOn(running.step, migration, migrations.length > 1)
  }
}

async function runOn({ surroundings }: Step, migration: Migration, several: boolean): Promise<void> {
  const { log, signal } = surroundings
  const { course, target, transaction } = migration
  const { client, pid, lockTimeout } = transaction
  const of = several ? `${course.bind}: ` : ''
  const tape = new Tape(course.versionTable.name)
  const progress = new Progress(tape, { info: text => log.info(of + text) }, course.plan)
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
  const ahead = new Ahead(course.plan.revisions, messages)
  let failed = true
  try {
    for (let sending = ahead.next(); sending; sending = ahead.next()) {
      const { revision, statements, answer } = sending
      progress.start(revision.id)
      sent = performance.now()
      signal.throwIfAborted()
      const answered = await answer.catch(error => {
        if (!(error instanceof MessageError)) throw error
        note(tape, statements, error.answered)
        throw failureFrom(error, { revision, statements, course, blockers: watch.blockersSince(sent) })
      })
      note(tape, statements, answered)
      const missed = missedRow(revision, statements, answered, course)
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
    course.runs = progress.runs
    if (tape.notices.length > 0) log.group(`Notices of PostgreSQL${of && ` (${course.bind})`}`, tape.notices)
  }
}

/** How much is sent before what was sent is answered, in characters. */
const mostAhead = 1_000_000

interface Sent {
  revision: Revision
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

  /** The next revision and its statements, with their answer to come; undefined behind the last one. */
  next(): Sent | undefined {
    while (this.#isLittle) {
      const revision = this.#rest.shift()
      if (!revision) break
      const { statements = [] } = revision
      this.#sent.push({ revision, statements, answer: this.messages.send(statements.map(({ sql }) => sql)) })
    }
    return this.#sent.shift()
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
  course: Course
  /** The sessions that were in the way, in words. */
  blockers: string[]
}

function failureFrom(
  { refused, answered, message: told }: MessageError,
  { revision, statements, course, blockers }: Circumstances,
): Failure {
  if (!refused) return connectionLost(new Error(told), { revision: revision.id })
  const statement = statements[answered.length]
  const place = statement && { file: revision.path, line: statement.line }
  const failure = failureOf(
    { message: refused.message, revision: revision.id, place, fromDatabase: true },
    { sql: statement?.sql ?? '', error: refused },
    course.plan,
    { blockers },
  )
  return inBind(failure, course)
}

/** As Alembic itself does: a row of the version table that is moved or taken away has to be there, and once. */
function missedRow(
  revision: Revision,
  statements: RenderedStatement[],
  answered: CommandTag[],
  course: Course,
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
  return inBind(failure, course)
}

/** Which database it was, where there is more than one. */
function inBind(failure: Failure, { bind, several }: Course): Failure {
  if (several) failure.details.bind = bind
  return failure
}
