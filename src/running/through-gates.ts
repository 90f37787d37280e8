import { ScriptError } from '../alembic/failures'
import type { OnlineRun } from '../alembic/online-run'
import type { Printing } from '../opening/python'
import { allOf } from '../opening/surroundings'
import type { Scripts } from '../planning/load'
import { importedWith } from '../planning/plan'
import { requireUnchanged } from '../planning/scripts'
import { LockWatch } from '../postgres/blockers'
import { connectionLost } from '../postgres/connection'
import { Gate } from '../postgres/gate/gate'
import { Tape } from '../postgres/gate/tape'
import { cancelStatement } from '../postgres/sessions'
import { failureOf } from '../report/blame'
import { count } from '../report/words'
import type { Migration } from './migration'
import { Progress } from './progress'
import type { Running } from './running'
import type { SegmentedRun } from './segments'

/** What stands between the scripts and one database while they run. */
interface Passage {
  migration: Migration
  tape: Tape
  gate: Gate
  watch: LockWatch
  progress: Progress
  cancel: () => Promise<void>
}

/**
 * Runs the scripts online, each database's through a gate of its own; with `segmented`, that commits where a segment
 * ends. Throws a Failure that names what failed.
 */
export async function runThroughGates(
  running: Running,
  scripts: Scripts,
  { run: python, printed }: Printing<OnlineRun>,
  migrations: Migration[],
  segmented?: SegmentedRun,
): Promise<void> {
  const { inputs, surroundings } = running.step
  const { log, signal } = surroundings
  const passages = await openAll(running, python, migrations, segmented)
  const several = migrations.length > 1
  const cancel = () => {
    for (const { migration, cancel } of passages) if (!migration.target.committing) void cancel()
  }
  signal.addEventListener('abort', cancel)
  running.hasStarted = true
  const { size } = new Set(migrations.flatMap(({ course }) => course.rest.revisions.map(({ id }) => id)))
  const where = several ? `on ${migrations.length} databases, each ` : ''
  const segments = segmented?.left ?? 1
  log.info(
    `Running ${count(size, 'revision')} ${where}in ${segments > 1 ? `${segments} segments` : 'one transaction'}.`,
  )
  const { direction, revision } = inputs
  const target = behind(revision, Math.max(...migrations.map(({ course }) => course.committed)))
  const databases = Object.fromEntries(passages.map(passage => [passage.migration.bind, batchOf(passage)]))
  const imported = importedWith(running.courses, scripts)
  let error: unknown
  try {
    await python.run(
      { direction, target, databases, imported },
      {
        revision(bind, id) {
          for (const { migration, progress } of passages) {
            if (migration.bind === bind) {
              requireUnchanged(scripts.project.scripts.get(id))
              progress.start(id)
              segmented?.revisionStarts(id)
            } else progress.finish()
          }
        },
        own(connection) {
          for (const { gate } of passages) gate.tellOwn(connection)
        },
        speaker(connection, speaker) {
          for (const { gate } of passages) gate.tell(connection, speaker)
        },
      },
    )
  } catch (thrown) {
    error = thrown
  }
  await close(passages)
  signal.removeEventListener('abort', cancel)
  for (const { migration, tape, progress } of passages) {
    progress.finish({ failed: error !== undefined })
    migration.course.runs = [...migration.course.runs, ...progress.runs]
    const { notices } = tape
    if (notices.length > 0) log.group(`Notices of PostgreSQL${several ? ` (${migration.bind})` : ''}`, notices)
  }
  printed.show(log, 'Output of the scripts')
  const [failure] = passages.flatMap(({ gate }) => gate.failure ?? [])
  if (failure) throw failure
  const lost = passages.find(({ gate }) => gate.lost)
  if (lost) throw connectionLost(lost.gate.lost, lost.tape.revision === null ? {} : { revision: lost.tape.revision })
  if (error instanceof ScriptError) throw blame(error, passages, segmented !== undefined)
  if (error) throw error
  const [doom] = passages.flatMap(({ gate }) => gate.doom ?? [])
  if (doom) throw doom
}

async function open(
  { step, courses }: Running,
  python: OnlineRun,
  migration: Migration,
  segmented: SegmentedRun | undefined,
): Promise<Passage> {
  const { log } = step.surroundings
  const { course, target, transaction } = migration
  const { client, pid, settings, lockTimeout } = transaction
  const cancel = () => cancelStatement(pid, () => target.connect())
  // A script's threads may wait for each other, and so for an answer that none of them will get any more.
  const onLost = () => void setTimeout(() => python.kill(), graceOfLost).unref()
  const tape = new Tape(course.versionTable.name)
  if (segmented) tape.listeners.push(entry => segmented.note(entry))
  const gate = await Gate.open({
    client,
    tape,
    settings,
    cancel,
    segmenting: segmented,
    patience: lockTimeout,
    onCatalogRead: words => log.info(words),
    onLost,
  })
  const watch = new LockWatch({
    pid,
    quietSince: () => tape.quietSince,
    lockTimeout,
    connect: () => target.connect(),
    onWait: blockers => log.info(`Waiting for a lock that is held by ${blockers.join(' and by ')}.`),
  })
  const of = courses.length > 1 ? `${course.bind}: ` : ''
  const progress = new Progress(tape, { info: text => log.info(of + text) }, course.rest)
  return { migration, tape, gate, watch, progress, cancel }
}

/** How long Python may go on when its connection to the database is gone, in milliseconds. */
const graceOfLost = 10_000

/** All of them, or none is left open. */
async function openAll(
  running: Running,
  python: OnlineRun,
  migrations: Migration[],
  segmented: SegmentedRun | undefined,
): Promise<Passage[]> {
  const opened: Passage[] = []
  try {
    return await allOf(
      migrations.map(async migration => {
        const passage = await open(running, python, migration, segmented)
        opened.push(passage)
        return passage
      }),
    )
  } catch (error) {
    await close(opened)
    throw error
  }
}

async function close(passages: Passage[]): Promise<void> {
  await allOf(passages.map(({ gate }) => gate.close()))
  await allOf(passages.map(({ watch }) => watch.end()))
}

/** The same target for what is still to be run: `+4` is `+3` behind the first revision. */
const behind = (revision: string, committed: number): string =>
  revision.replace(/(?<=^|@)([+-])(\d+)$/, (_, sign, steps) => `${sign}${Number(steps) - committed}`)

function batchOf({ migration, gate }: Passage) {
  const { user = '', database = '' } = migration.target.client
  const revisions = migration.course.rest.revisions.map(({ id }) => id)
  return { revisions, gate: { ...gate.address, user, database } }
}

/** The error of a script, with what PostgreSQL said to it. */
function blame(error: ScriptError, passages: Passage[], inSegments: boolean): Error {
  const passage =
    passages.find(({ migration }) => migration.bind === error.bind) ??
    passages.find(({ tape }) => tape.failure) ??
    passages[0]
  if (!passage) return error
  const { migration, tape, watch } = passage
  const blockers = watch.blockersSince(tape.failure?.since)
  const failure = failureOf(error, tape.failure, migration.course.rest, { blockers, inSegments })
  if (passages.length > 1) failure.details.bind = migration.bind
  return failure
}
