import { writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { Client } from 'pg'
import { Driver, type Project } from './alembic/driver'
import { childEnvironment } from './alembic/environment'
import { baseCommit, scriptsAt } from './git/base'
import { requireBaseCheckout } from './git/trust'
import type { Inputs } from './inputs'
import { type Log, PrintOut } from './log'
import { headsOf } from './plan/heads'
import { isRendered, type Plan } from './plan/plan'
import { nameHeads, type Result } from './plan/result'
import { ownStatements, sqlScript, terminated } from './plan/sql'
import { obstaclesOf } from './plan/transactional'
import { connect, disconnect, sever } from './postgres/connection'
import { type Heads, readHeads, type VersionTable } from './postgres/heads'
import type { Publisher } from './publish'
import { count } from './report/words'

/** GitHub kills a cancelled step ten seconds after its first signal; of these, milliseconds for what may hang. */
const grace = { statement: 2_000, commit: 4_000, connect: 1_500 }

/** What a step runs in; main.ts gives it. */
export interface Surroundings {
  environment: NodeJS.ProcessEnv
  /** What others see in pg_stat_activity while we are connected. */
  applicationName: string
  /** Where the SQL file goes. */
  temporaryDirectory: string
  publisher: Publisher
  log: Log
  /** The tip of the pull request's base branch, as far as the event tells it. */
  base: string
  /** Where the checkout has to be on the base branch: the commits that are known to be; undefined where it need not. */
  trustedTips: string[] | undefined
  /** Aborted when GitHub cancels the step. */
  signal: AbortSignal
}

/** One step with what it has open: the user's Python, and the connection to the database if it needs one. */
export class Step {
  readonly printed = new PrintOut()
  /** Whether anything of the batch was started. */
  started = false
  /** Whether a COMMIT was sent. */
  committing = false
  /** Set by `startPython`. */
  driver!: Driver
  client: Client | undefined
  versionTable: VersionTable | undefined

  constructor(
    readonly inputs: Inputs,
    readonly surroundings: Surroundings,
    readonly result: Result,
  ) {}

  /** In an event that has secrets, a pull request's own scripts are not run. Throws a Failure `untrusted`. */
  async checkTrust(): Promise<void> {
    const { trustedTips } = this.surroundings
    if (!trustedTips) return
    const { workingDirectory, directory, alembicConfig } = this.inputs
    const scripts = alembicConfig ? dirname(alembicConfig) : directory
    await requireBaseCheckout(resolve(workingDirectory), trustedTips, scripts)
  }

  startPython(): void {
    const { database, githubToken: token } = this.inputs
    const { environment, signal } = this.surroundings
    this.driver = new Driver({
      ...this.inputs,
      workingDirectory: resolve(this.inputs.workingDirectory),
      environment: childEnvironment(environment, { secrets: database?.secrets ?? [], token }),
      url: database?.urlWithoutPassword ?? 'postgresql://',
      print: line => this.printed.add(line),
      signal,
    })
  }

  /** After a try that was rolled back: a new connection, and a new Python that knows nothing of that try. */
  async startAnew(): Promise<void> {
    this.started = this.committing = false
    this.result.runs = []
    this.driver.kill()
    this.startPython()
    await this.open()
    await this.#python(() => this.driver.project(), 'Output of the app')
  }

  /** Connects `client`, which a cancelled step leaves in time, whatever the server does. */
  async open(): Promise<void> {
    const client = await this.connect()
    this.client = client
    this.surroundings.signal.addEventListener('abort', () => {
      const leave = (after: number, unless = () => false) => setTimeout(() => unless() || sever(client), after).unref()
      leave(grace.statement, () => this.committing)
      leave(grace.commit)
    })
  }

  /** A connection of its own to the step's database; the caller closes it. */
  connect(): Promise<Client> {
    const { applicationName, signal } = this.surroundings
    return connect(this.inputs.database!, applicationName, signal.aborted ? AbortSignal.timeout(grace.connect) : signal)
  }

  /** Resolves the batch from the prior heads to the target, with its SQL. */
  async plan(): Promise<Plan> {
    const { direction, revision: target, fromRevision } = this.inputs
    const project = await this.#python(() => this.driver.project(), 'Output of the app')
    this.versionTable = { name: project.versionTable, schema: project.versionTableSchema }
    const { heads, tableExists: versionTableExists } =
      this.client && !fromRevision
        ? await readHeads(this.client, this.versionTable)
        : await this.#headsWithoutDatabase(project, fromRevision)
    if (!fromRevision) this.result.priorHeads = this.result.newHeads = heads
    const plan = await this.#python(
      () => this.driver.plan({ direction, target, heads, versionTableExists }),
      'Output of the dry run',
    )
    this.result.plan = plan
    this.result.obstacles = obstaclesOf(plan)
    this.result.priorHeads = plan.priorHeads
    this.result.newHeads = plan.newHeads
    if (plan.revisions.length > 0 && isRendered(plan)) this.result.sqlFile = this.#writeSql(plan)
    this.#describe(plan)
    return plan
  }

  /** After a failure, the outputs say what the database holds and not what was hoped. */
  async rereadHeads(): Promise<void> {
    const { result } = this
    if (result.outcome === 'in-doubt' || !this.client || !this.versionTable) return
    if (result.priorHeads) result.newHeads = result.priorHeads
    try {
      const client = await this.connect()
      try {
        const { heads } = await readHeads(client, this.versionTable)
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
    this.printed.show(this.surroundings.log, 'Output of Python')
    this.driver?.kill()
    if (this.client) await disconnect(this.client)
  }

  /** The heads that the user names, else those of the scripts that a pull request builds on. */
  async #headsWithoutDatabase(project: Project, named: string[] | undefined): Promise<Heads> {
    if (named) return { heads: named, tableExists: named.length > 0 }
    const directory = resolve(this.inputs.workingDirectory)
    const { base } = this.surroundings
    const scripts = await scriptsAt(directory, await baseCommit(directory, base))
    const nodes = await this.driver.read(scripts.map(({ source }) => source))
    // Other projects of the repository have histories of their own.
    const heads = headsOf(nodes.filter(({ id }) => project.scripts.has(id)))
    this.surroundings.log.info(`Without a database, the prior heads are those of the base: ${nameHeads(heads)}.`)
    return { heads, tableExists: heads.length > 0 }
  }

  async #python<T>(ask: () => Promise<T>, title: string): Promise<T> {
    try {
      return await ask()
    } finally {
      this.printed.show(this.surroundings.log, title)
    }
  }

  #writeSql(plan: Plan): string {
    const label = this.inputs.label.replaceAll(/[^\w.-]+/g, '-').slice(0, 60)
    const path = join(this.surroundings.temporaryDirectory, `atomic-upgrade${label && `-${label}`}.sql`)
    writeFileSync(path, sqlScript(plan))
    return path
  }

  #describe({ direction, priorHeads, newHeads, revisions }: Plan): void {
    const { log } = this.surroundings
    if (revisions.length === 0) return log.info(`The database is at ${nameHeads(priorHeads)}; nothing to do.`)
    const batch = count(revisions.length, 'revision')
    log.info(`${direction} from ${nameHeads(priorHeads)} to ${nameHeads(newHeads)}: ${batch}`)
    for (const revision of revisions) {
      const { id, message, path, notRenderable } = revision
      const title = `${id} ${message} (${path})`
      if (notRenderable) log.info(`${title}: not rendered, ${notRenderable.reason}`)
      else
        log.group(
          title,
          ownStatements(revision).map(({ sql }) => terminated(sql)),
        )
    }
  }
}
