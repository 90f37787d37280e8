import { ScriptError } from './alembic/driver'
import { LockWatch } from './postgres/blockers'
import { connectionLost } from './postgres/connection'
import { Gate } from './postgres/gate/gate'
import { Tape } from './postgres/gate/tape'
import { cancelStatement } from './postgres/sessions'
import { Progress } from './progress'
import { failureOf } from './report/blame'
import { count } from './report/words'
import { requireUnchanged } from './scripts'
import type { SegmentedRun } from './segments'
import { allOf, type Step } from './step'
import type { Target } from './target'

/** What stands between the scripts and one database while they run. */
interface Passage {
  target: Target
  tape: Tape
  gate: Gate
  watch: LockWatch
  progress: Progress
  cancel: () => Promise<void>
}

/**
 * Runs the scripts online, each database's through a gate of its own; with `run`, that commits where a segment ends.
 * Throws a Failure that names what failed.
 */
export async function runThroughGates(step: Step, run?: SegmentedRun): Promise<void> {
  const { surroundings, inputs, printed, targets } = step
  const { log, signal } = surroundings
  const passages = await openAll(step, run)
  const several = targets.length > 1
  const cancel = () => {
    for (const passage of passages) if (!passage.target.committing) void passage.cancel()
  }
  signal.addEventListener('abort', cancel)
  step.started = true
  const { size } = new Set(targets.flatMap(({ rest }) => rest.revisions.map(({ id }) => id)))
  const where = several ? `on ${targets.length} databases, each ` : ''
  const segments = run?.left ?? 1
  log.info(
    `Running ${count(size, 'revision')} ${where}in ${segments > 1 ? `${segments} segments` : 'one transaction'}.`,
  )
  const { direction } = inputs
  const target = behind(inputs.revision, targets[0]!.committed)
  const databases = Object.fromEntries(passages.map(passage => [passage.target.state.bind, batchOf(passage)]))
  let error: unknown
  try {
    await step.driver.run(
      { direction, target, databases, imported: step.imported },
      {
        revision(bind, id) {
          for (const { target, progress } of passages) {
            if (target.state.bind === bind) {
              requireUnchanged(step.scripts.get(id))
              progress.start(id)
              run?.revisionStarts(id)
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
  for (const { target, tape, progress } of passages) {
    progress.finish({ failed: error !== undefined })
    target.state.runs = [...target.state.runs, ...progress.runs]
    const { notices } = tape
    if (notices.length > 0) log.group(`Notices of PostgreSQL${several ? ` (${target.state.bind})` : ''}`, notices)
  }
  printed.show(log, 'Output of the scripts')
  const [failure] = passages.flatMap(({ gate }) => gate.failure ?? [])
  if (failure) throw failure
  const lost = passages.find(({ gate }) => gate.lost)
  if (lost) throw connectionLost(lost.gate.lost, lost.tape.revision === null ? {} : { revision: lost.tape.revision })
  if (error instanceof ScriptError) throw blame(error, passages, run !== undefined)
  if (error) throw error
  const [doom] = passages.flatMap(({ gate }) => gate.doom ?? [])
  if (doom) throw doom
}

async function open(step: Step, target: Target, run: SegmentedRun | undefined): Promise<Passage> {
  const { driver } = step
  const { log } = step.surroundings
  const { client, pid, settings, lockTimeout } = target.transaction
  const cancel = () => cancelStatement(pid, () => target.connect())
  // A script's threads may wait for each other, and so for an answer that none of them will get any more.
  const onLost = () => void setTimeout(() => driver.kill(), graceOfLost).unref()
  const tape = new Tape(target.versionTable.name)
  run?.begins(tape)
  const gate = await Gate.open({
    client,
    tape,
    settings,
    cancel,
    segmenting: run,
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
  const of = step.targets.length > 1 ? `${target.state.bind}: ` : ''
  const progress = new Progress(tape, { ...log, info: text => log.info(of + text) }, target.rest)
  return { target, tape, gate, watch, progress, cancel }
}

/** How long Python may go on when its connection to the database is gone, in milliseconds. */
const graceOfLost = 10_000

/** All of them, or none is left open. */
async function openAll(step: Step, run: SegmentedRun | undefined): Promise<Passage[]> {
  const opened: Passage[] = []
  try {
    return await allOf(
      step.targets.map(async target => {
        const passage = await open(step, target, run)
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

function batchOf({ target, gate }: Passage) {
  const { user = '', database = '' } = target.client!
  const revisions = target.rest.revisions.map(({ id }) => id)
  return { revisions, gate: { ...gate.address, user, database } }
}

/** The error of a script, with what PostgreSQL said to it. */
function blame(error: ScriptError, passages: Passage[], inSegments: boolean) {
  const { target, tape, watch } =
    passages.find(({ target }) => target.state.bind === error.bind) ??
    passages.find(({ tape }) => tape.failure) ??
    passages[0]!
  const blockers = watch.blockersSince(tape.failure?.since)
  const failure = failureOf(error, tape.failure, target.rest, { blockers, inSegments })
  if (passages.length > 1) failure.details.bind = target.state.bind
  return failure
}
