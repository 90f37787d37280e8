import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Client } from 'pg'
import { Driver, ScriptError } from './alembic/driver'
import { childEnvironment } from './alembic/environment'
import { asFailure, Failure, messageOf } from './failure'
import type { Inputs } from './inputs'
import { type Log, PrintOut } from './log'
import { isRendered, type Plan, sameHeads } from './plan/plan'
import { nameHeads, type Result } from './plan/result'
import { ownStatements, sqlScript } from './plan/sql'
import { loadParser } from './plan/statements'
import { connect, disconnect } from './postgres/connection'
import { Gate } from './postgres/gate/gate'
import { Tape } from './postgres/gate/tape'
import { checkWritable, readHeads, type VersionTable } from './postgres/heads'
import { lockHolder } from './postgres/holder'
import { settle } from './postgres/settle'
import { Transaction } from './postgres/transaction'
import type { Publisher } from './publish'
import { failureOf } from './report/blame'
import { count, seconds } from './report/words'

/** What the step runs in; the edge gives it, the tests of the edge are the tests of the built action. */
export interface Surroundings {
  environment: NodeJS.ProcessEnv
  /** What others see in pg_stat_activity while we are connected. */
  applicationName: string
  /** Where the SQL file goes. */
  temporaryDirectory: string
  publisher: Publisher
  log: Log
  /** Aborted when GitHub cancels the step. */
  signal: AbortSignal
}

/**
 * The story: resolve, dry run, publish, run in one transaction, verify, commit, publish.
 * Never throws; a failure is part of the result, with the heads as the database has them then.
 */
export async function run(inputs: Inputs, surroundings: Surroundings): Promise<Result> {
  const { publisher, log, signal } = surroundings
  const { mode, direction, label, database } = inputs
  const result: Result = { mode, direction, label, database: database?.name ?? '', runs: [] }
  const step = new Step(inputs, surroundings, result)
  try {
    // Python takes longest to start, so it goes first; everything else is done while the app imports.
    step.startPython()
    const [client] = await Promise.all([database && step.connect(), loadParser()])
    const plan = await step.plan(client)
    if (plan.revisions.length === 0) result.outcome = 'up-to-date'
    else if (mode === 'preview') result.outcome = 'previewed'
    else {
      result.commentUrl = await publisher.comment(result)
      result.outcome = await step.transact(client!, plan)
    }
    if (result.outcome === 'up-to-date') result.newHeads = result.priorHeads!
  } catch (error) {
    result.failure = signal.aborted ? new Failure('cancelled', 'The step was cancelled.') : asFailure(error)
    result.outcome ??= step.started ? 'rolled-back' : 'refused'
    await step.rereadHeads()
  } finally {
    await step.end()
  }
  const commentUrl = await publisher.comment(result)
  if (commentUrl) result.commentUrl = commentUrl
  await publisher.summarize(result)
  log.info(`Outcome: ${result.outcome}`)
  return result
}

/** One run of the step: what is open, and what has to be closed. */
class Step {
  /** Whether anything of the batch was started. */
  started = false
  #driver: Driver | undefined
  #client: Client | undefined
  #transaction: Transaction | undefined
  #versionTable: VersionTable | undefined
  readonly #printed = new PrintOut()

  constructor(
    private readonly inputs: Inputs,
    private readonly surroundings: Surroundings,
    private readonly result: Result,
  ) {}

  startPython(): void {
    const { inputs, surroundings } = this
    const { database, githubToken } = inputs
    this.#driver = new Driver({
      ...inputs,
      workingDirectory: resolve(inputs.workingDirectory),
      environment: childEnvironment(surroundings.environment, { secrets: database?.secrets ?? [], token: githubToken }),
      url: database?.urlWithoutPassword ?? 'postgresql://',
      print: line => this.#printed.add(line),
      signal: surroundings.signal,
    })
  }

  async connect(): Promise<Client> {
    this.#client = await connect(this.inputs.database!, this.surroundings.applicationName)
    return this.#client
  }

  /** Resolves the batch from the prior heads to the target, with its SQL. */
  async plan(client: Client | undefined): Promise<Plan> {
    const { inputs, result, surroundings } = this
    const project = await this.#python(driver => driver.project(), 'Output of the app')
    this.#versionTable = { name: project.versionTable, schema: project.versionTableSchema }
    const prior = inputs.fromRevision
      ? { heads: inputs.fromRevision, tableExists: inputs.fromRevision.length > 0 }
      : await readHeads(client!, this.#versionTable)
    if (!inputs.fromRevision) result.priorHeads = result.newHeads = prior.heads
    const plan = await this.#python(
      driver =>
        driver.plan({
          direction: inputs.direction,
          target: inputs.revision,
          heads: prior.heads,
          versionTableExists: prior.tableExists,
        }),
      'Output of the dry run',
    )
    result.plan = plan
    result.priorHeads = plan.priorHeads
    result.newHeads = plan.newHeads
    if (plan.revisions.length > 0 && isRendered(plan)) {
      result.sqlFile = join(
        surroundings.temporaryDirectory,
        `atomic-upgrade${inputs.label && `-${slug(inputs.label)}`}.sql`,
      )
      writeFileSync(result.sqlFile, sqlScript(plan))
    }
    this.#describe(plan)
    return plan
  }

  /** Runs the batch in one transaction and ends it: committed in mode apply, rolled back in mode rehearse. */
  async transact(client: Client, plan: Plan): Promise<'up-to-date' | 'rehearsed' | 'applied'> {
    const { inputs, surroundings, result } = this
    const { log, signal } = surroundings
    const transaction = await Transaction.begin(client, inputs)
    this.#transaction = transaction
    if (inputs.mode === 'rehearse') log.info('A rehearsal takes the same locks as an apply, until it is rolled back.')
    await transaction.lock(() => this.#sayWhoHoldsTheLock(), signal)

    // Only now nobody else can move the heads.
    const now = await readHeads(client, this.#versionTable!)
    result.priorHeads = result.newHeads = now.heads
    if (sameHeads(now.heads, plan.newHeads)) {
      log.info('Another deploy has brought the database to the target in the meantime.')
      plan.revisions = []
      return 'up-to-date'
    }
    if (!sameHeads(now.heads, plan.priorHeads)) {
      throw new Failure(
        'drift',
        `The database has moved from ${nameHeads(plan.priorHeads)} to ${nameHeads(now.heads)} since the batch was planned.`,
        { advice: 'Run the step again: it will plan from the new heads.' },
      )
    }
    await checkWritable(client, this.#versionTable!, now.tableExists)

    await this.#runThroughGate(transaction, plan)
    await this.#verify(transaction, plan)
    result.newHeads = plan.newHeads
    if (inputs.mode === 'rehearse') {
      await transaction.rollBack()
      return 'rehearsed'
    }
    await this.#commit(transaction, plan)
    return 'applied'
  }

  async #runThroughGate(transaction: Transaction, plan: Plan): Promise<void> {
    const { inputs, surroundings, result } = this
    const { log, signal } = surroundings
    const { client, settings } = transaction
    const cancel = () => this.#cancelStatement(client)
    const tape = new Tape(this.#versionTable!.name)
    const gate = await Gate.open({ client, tape, settings, cancel })
    const abort = () => void cancel()
    signal.addEventListener('abort', abort)
    this.started = true
    log.info(`Running ${count(plan.revisions.length, 'revision')} in one transaction.`)
    const progress = new Progress(tape, result, log, plan)
    let failure: unknown
    try {
      const { direction, revision: target } = inputs
      const { user = '', database = '' } = client
      const revisions = plan.revisions.map(revision => revision.id)
      await this.#driver!.run({ direction, target, revisions, gate: { ...gate.address, user, database } }, id =>
        progress.start(id),
      )
    } catch (error) {
      failure = error
    }
    await gate.close()
    signal.removeEventListener('abort', abort)
    progress.finish(failure !== undefined)
    this.#printed.show(log, 'Output of the scripts')
    const notices = tape.notices.map(({ severity, message }) => `${severity}: ${message}`)
    if (notices.length > 0) log.group('Notices of PostgreSQL', notices)
    if (gate.lost) {
      throw new Failure('connection-failed', `The connection to PostgreSQL was lost: ${messageOf(gate.lost)}.`, {
        advice: 'PostgreSQL rolls an open transaction back when its connection ends. Run the step again.',
        ...(tape.revision && { revision: tape.revision }),
      })
    }
    if (failure instanceof ScriptError) throw failureOf(failure, tape, plan)
    if (failure) throw failure
  }

  /** Everything that has to be true before a COMMIT may be sent. */
  async #verify(transaction: Transaction, plan: Plan): Promise<void> {
    try {
      await transaction.checkConstraints()
    } catch (error) {
      throw new Failure('migration-failed', `A deferred constraint is violated: ${messageOf(error)}.`, {
        advice: 'Mend the data in the migration before the constraint is checked.',
        cause: error,
      })
    }
    await transaction.checkIdentity()
    const { heads } = await readHeads(transaction.client, this.#versionTable!)
    if (!sameHeads(heads, plan.newHeads)) {
      throw new Failure(
        'migration-failed',
        `Python ended without an error, but the heads are ${nameHeads(heads)} and not ${nameHeads(plan.newHeads)}.`,
        { advice: 'Check that env.py runs the migrations on a connection that commits.' },
      )
    }
  }

  async #commit(transaction: Transaction, plan: Plan): Promise<void> {
    const { inputs, surroundings, result } = this
    try {
      await transaction.commit()
    } catch (error) {
      if (error instanceof Failure) throw error
      surroundings.log.info('The answer to the COMMIT was lost; asking the database what became of it.')
      const settled = await settle({
        database: inputs.database!,
        applicationName: surroundings.applicationName,
        versionTable: this.#versionTable!,
        id: transaction.id,
        priorHeads: plan.priorHeads,
        newHeads: plan.newHeads,
        patience: 60_000,
      })
      if (settled.decision === 'committed') return
      if (settled.decision === 'rolled-back') {
        throw new Failure('commit-failed', 'The connection broke during the COMMIT, and PostgreSQL has rolled back.', {
          advice: 'Run the step again.',
        })
      }
      result.outcome = 'in-doubt'
      delete result.newHeads
      throw new Failure('commit-failed', `The COMMIT was sent, and no answer came: ${settled.why}.`, {
        advice: `When the database can be reached again, ask it: SELECT pg_xact_status('${transaction.id}'::xid8), and look at the heads with SELECT * FROM ${this.#versionTable!.name}.`,
      })
    }
  }

  /** After a failure, the outputs say what the database holds and not what was hoped. */
  async rereadHeads(): Promise<void> {
    const { result, inputs, surroundings } = this
    if (result.outcome === 'in-doubt' || !inputs.database || !this.#client || !this.#versionTable) return
    await this.#transaction?.rollBack()
    if (result.priorHeads) result.newHeads = result.priorHeads
    try {
      const client = await connect(inputs.database, surroundings.applicationName)
      try {
        const { heads } = await readHeads(client, this.#versionTable)
        result.newHeads = heads
        result.priorHeads ??= heads
        result.reread = true
      } finally {
        await disconnect(client)
      }
    } catch {
      result.reread = false
    }
  }

  async end(): Promise<void> {
    this.#printed.show(this.surroundings.log, 'Output of Python')
    this.#driver?.kill()
    if (this.#client) await disconnect(this.#client)
  }

  async #python<T>(ask: (driver: Driver) => Promise<T>, title: string): Promise<T> {
    try {
      return await ask(this.#driver!)
    } finally {
      this.#printed.show(this.surroundings.log, title)
    }
  }

  #describe(plan: Plan): void {
    const { log } = this.surroundings
    const { direction, revisions } = plan
    if (revisions.length === 0) return log.info(`The database is at ${nameHeads(plan.priorHeads)}; nothing to do.`)
    log.info(
      `${direction} from ${nameHeads(plan.priorHeads)} to ${nameHeads(plan.newHeads)}: ${count(revisions.length, 'revision')}`,
    )
    for (const revision of revisions) {
      const { id, message, path, statements, notRenderable } = revision
      const title = `${id} ${message} (${path})`
      if (statements)
        log.group(
          title,
          ownStatements(revision).map(({ sql }) => sql),
        )
      else log.info(`${title}: not rendered, ${notRenderable?.reason}`)
    }
  }

  #sayWhoHoldsTheLock(): void {
    const { inputs, surroundings } = this
    const look = async (): Promise<void> => {
      const client = await connect(inputs.database!, surroundings.applicationName)
      try {
        const holder = await lockHolder(client)
        if (holder) surroundings.log.info(`Waiting for another deploy of this database: ${holder}.`)
      } finally {
        await disconnect(client)
      }
    }
    // Only for the log: the wait goes on without it.
    look().catch(() => surroundings.log.info('Waiting for another deploy of this database.'))
  }

  async #cancelStatement(client: Client): Promise<void> {
    try {
      const other = await connect(this.inputs.database!, this.surroundings.applicationName)
      try {
        await other.query('SELECT pg_catalog.pg_cancel_backend($1)', [
          (client as unknown as { processID: number }).processID,
        ])
      } finally {
        await disconnect(other)
      }
    } catch {
      // The server ends the statement itself when it sees that the connection is gone.
    }
  }
}

/** Tells the log of each revision as it ends, and keeps its figures. */
class Progress {
  #started = 0
  #current: string | undefined

  constructor(
    private readonly tape: Tape,
    private readonly result: Result,
    private readonly log: Log,
    private readonly plan: Plan,
  ) {}

  start(id: string): void {
    this.finish(false)
    this.#current = id
    this.tape.revision = id
    this.#started = performance.now()
  }

  finish(failed: boolean): void {
    const id = this.#current
    if (id === undefined) return
    this.#current = undefined
    const duration = performance.now() - this.#started
    const statements = this.tape.entries.filter(entry => entry.revision === id && !entry.lookup).length
    this.result.runs.push({ id, duration, statements })
    const message = this.plan.revisions.find(revision => revision.id === id)?.message ?? ''
    this.log.info(`${failed ? '✗' : '✓'} ${id} ${message}: ${count(statements, 'statement')}, ${seconds(duration)}`)
  }
}

const slug = (text: string): string => text.replaceAll(/[^\w.-]+/g, '-').slice(0, 60)
