import { writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { Driver, type Project } from './alembic/driver'
import { childEnvironment } from './alembic/environment'
import { editedScripts } from './edited'
import { Failure } from './failure'
import { readPlan, writePlan } from './from-plan-file'
import { baseCommit, scriptsAt } from './git/base'
import { requireBaseCheckout, requireSignature } from './git/trust'
import { type Inputs, severalInSegments } from './inputs'
import { type Log, PrintOut } from './log'
import { abridged } from './plan/abridged'
import { destructionsOf } from './plan/destructive'
import { digestedOf } from './plan/digest'
import { headsOf } from './plan/heads'
import { isRendered, type Plan, type Script } from './plan/plan'
import { type DatabaseState, nameHeads, type Result, revisionsOf } from './plan/result'
import { segmentsOf } from './plan/segments'
import { ownStatements, sqlComment, sqlScript } from './plan/sql'
import { obstaclesOf } from './plan/transactional'
import { disconnect } from './postgres/connection'
import { type Heads, readHeads } from './postgres/heads'
import type { Database } from './postgres/url'
import type { Publisher } from './publish'
import { isDivided, segmentLines } from './report/segments'
import { count } from './report/words'
import { requireDistinct, Target } from './target'

/** The name of a project's only database. */
const onlyBind = 'default'

/** What a step runs in; main.ts gives it. */
export interface Surroundings {
  environment: NodeJS.ProcessEnv
  /** `owner/name`; empty outside of GitHub. */
  repository: string
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

/** One step with what it has open: the user's Python, and its databases. */
export class Step {
  readonly printed = new PrintOut()
  /** Whether anything of the batch was started. */
  started = false
  /** Set by `startPython`; a plan file needs none. */
  driver!: Driver
  targets: Target[]
  /** Every script of the project by its id, once it is loaded. */
  scripts = new Map<string, Script>()

  constructor(
    readonly inputs: Inputs,
    readonly surroundings: Surroundings,
    readonly result: Result,
  ) {
    const given = inputs.databases.size > 0 ? [...inputs.databases] : [[onlyBind, undefined] as const]
    this.targets = given.map(([bind, database]) => this.#target(bind, database))
  }

  /** Whether a COMMIT was sent to any database. */
  get committing(): boolean {
    return this.targets.some(target => target.committing)
  }

  /** Heads that the user names go before what a database says, so it is not asked. */
  get asksDatabases(): boolean {
    return this.inputs.databases.size > 0 && !this.inputs.fromRevision
  }

  /** Whether the batch may be several transactions. */
  get runsInSegments(): boolean {
    const { segments, mode, planFile } = this.inputs
    return segments && mode === 'apply' && !planFile
  }

  /** In an event that has secrets, a pull request's own scripts or SQL are not run. Throws a Failure `untrusted`. */
  async checkTrust(): Promise<void> {
    const { trustedTips } = this.surroundings
    if (!trustedTips) return
    const { workingDirectory, directory, alembicConfig, planFile, planKey } = this.inputs
    if (planFile) return requireSignature(planKey)
    const scripts = alembicConfig ? dirname(alembicConfig) : directory
    await requireBaseCheckout(resolve(workingDirectory), trustedTips, scripts)
  }

  startPython(): void {
    const { databases, githubToken: token, planFile, planKey } = this.inputs
    if (planFile) return
    const { environment, signal } = this.surroundings
    const passwords = [...databases.values()].flatMap(database => database.secrets)
    const secrets = planKey ? [...passwords, planKey] : passwords
    const urls = [...databases].map(([bind, { urlWithoutPassword }]) => [bind, urlWithoutPassword])
    this.driver = new Driver({
      ...this.inputs,
      workingDirectory: resolve(this.inputs.workingDirectory),
      environment: childEnvironment(environment, { secrets, token }),
      urls: urls.length > 0 ? Object.fromEntries(urls) : { [onlyBind]: 'postgresql://' },
      print: line => this.printed.add(line),
      signal,
    })
  }

  /** After a try that was rolled back: new connections, and a new Python that knows nothing of that try. */
  async startAnew(): Promise<void> {
    this.started = false
    for (const { state, committed } of this.targets) state.runs = state.runs.slice(0, committed)
    this.driver?.kill()
    this.startPython()
    await this.open()
    if (this.driver) await this.#python(() => this.driver.project(), 'Output of the app')
  }

  /** Connects to every database. Throws a Failure `invalid-input` where two of them are one. */
  async open(): Promise<void> {
    const { targets } = this
    await allOf(targets.map(target => target.open()))
    if (targets.length === 1) return
    await allOf(targets.map(target => target.identify()))
    requireDistinct(targets)
  }

  /** Resolves the batch of each database from its prior heads to the target, with its SQL, or takes it from the plan file. */
  async plan(): Promise<void> {
    const { result, inputs } = this
    const plans = inputs.planFile ? await readPlan(this) : await this.#planScripts()
    const { log } = this.surroundings
    for (const { state } of this.targets) {
      const plan = plans.get(state.bind)!
      state.plan = plan
      state.obstacles = obstaclesOf(plan)
      if (this.inputs.segments && !this.inputs.planFile) this.#divide(plan, state)
      state.destructions = destructionsOf(plan)
      state.priorHeads = plan.priorHeads
      state.newHeads = plan.newHeads
      this.#describe(plan, state)
      if (isDivided(state)) log.group(`PostgreSQL runs it in ${state.segments!.length} segments`, segmentLines(state))
    }
    result.digested = digestedOf(result)
    if (revisionsOf(result).length > 0) this.#writeSql()
    if (inputs.mode !== 'apply' && !inputs.planFile) await writePlan(this)
  }

  #divide(plan: Plan, state: DatabaseState): void {
    state.division = segmentsOf(plan)
    // A rehearsal rolls back, which only one transaction can be.
    if (this.inputs.mode === 'rehearse') return
    state.obstacles = state.division.obstacles
    state.segments = state.division.segments.map(({ revisions, alone }) => {
      return { revisions, ...(alone && { statement: alone.text }), outcome: 'planned' }
    })
  }

  async #planScripts(): Promise<Map<string, Plan>> {
    const { direction, revision: target, fromRevision } = this.inputs
    const project = await this.#python(() => this.driver.project(), 'Output of the app')
    this.match(project.databases)
    this.scripts = project.scripts
    if (this.inputs.mode !== 'apply') this.result.edited = await editedScripts(this)
    const given = this.asksDatabases ? undefined : await this.#headsWithoutDatabase(project, fromRevision)
    const asked = this.targets.map(async target => {
      const { state, client, versionTable } = target
      const { heads, tableExists } = given ?? (await readHeads(client!, versionTable))
      target.versionTableExists = tableExists
      if (!fromRevision) state.priorHeads = state.newHeads = heads
      return [state.bind, { heads, versionTableExists: tableExists }] as const
    })
    const databases = Object.fromEntries(await allOf(asked))
    return await this.#python(() => this.driver.plan({ direction, target, databases }), 'Output of the dry run')
  }

  /** After a failure, the outputs say what the databases hold and not what was hoped. */
  async rereadHeads(): Promise<void> {
    await allOf(this.targets.map(target => target.rereadHeads()))
  }

  async end(): Promise<void> {
    this.printed.show(this.surroundings.log, 'Output of Python')
    this.driver?.kill()
    await allOf(this.targets.map(async ({ client }) => client && disconnect(client)))
  }

  #target(bind: string, database: Database | undefined): Target {
    const { applicationName, signal } = this.surroundings
    const asked = this.asksDatabases ? database : undefined
    const state: DatabaseState = { bind, name: asked?.name ?? '', runs: [] }
    this.result.databases.push(state)
    return new Target(state, asked, applicationName, signal)
  }

  /** Finds each database of the project among those of the inputs. Throws a Failure `invalid-input` that names the others. */
  match(databases: Project['databases']): void {
    if (!this.asksDatabases) {
      this.result.databases = []
      this.targets = databases.map(({ bind }) => this.#target(bind, undefined))
    }
    const given = this.targets.map(({ state }) => state.bind)
    const known = databases.map(({ bind }) => bind)
    const unknown = given.filter(bind => !known.includes(bind))
    const missing = known.filter(bind => !given.includes(bind))
    if (this.inputs.segments && known.length > 1) throw severalInSegments()
    if (unknown.length > 0 || missing.length > 0) {
      const told = [
        unknown.length > 0 && `database-url names ${unknown.join(' and ')}, which the project does not migrate.`,
        missing.length > 0 && `database-url lacks ${missing.join(' and ')}, which the project migrates.`,
      ]
      throw new Failure('invalid-input', told.filter(Boolean).join(' '), {
        advice: `env.py migrates ${known.join(' and ')}: write one bind=postgresql://… a line for each.`,
      })
    }
    for (const target of this.targets) {
      const { versionTable: name, versionTableSchema: schema } = databases.find(
        ({ bind }) => bind === target.state.bind,
      )!
      target.versionTable = { name, schema }
    }
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

  /** The path of a file of this step with that extension. */
  fileFor(extension: string): string {
    const label = this.inputs.label.replaceAll(/[^\w.-]+/g, '-').slice(0, 60)
    return join(this.surroundings.temporaryDirectory, `atomic-upgrade${label && `-${label}`}.${extension}`)
  }

  #writeSql(): void {
    const { result } = this
    const plans = result.databases.flatMap(({ bind, plan }) => (plan ? [{ bind, plan }] : []))
    if (!plans.every(({ plan }) => isRendered(plan))) return
    result.sqlFile = this.fileFor('sql')
    const scripts = plans.filter(({ plan }) => plan.revisions.length > 0)
    const named = ({ bind, plan }: (typeof plans)[number]) =>
      plans.length > 1 ? `${sqlComment(`database ${bind}`)}\n${sqlScript(plan)}` : sqlScript(plan)
    writeFileSync(result.sqlFile, scripts.map(named).join('\n'))
  }

  #describe({ direction, priorHeads, newHeads, revisions }: Plan, { bind }: DatabaseState): void {
    const { log } = this.surroundings
    const of = this.targets.length > 1 ? `${bind}: ` : ''
    if (revisions.length === 0) return log.info(`${of}The database is at ${nameHeads(priorHeads)}; nothing to do.`)
    const batch = count(revisions.length, 'revision')
    log.info(`${of}${direction} from ${nameHeads(priorHeads)} to ${nameHeads(newHeads)}: ${batch}`)
    for (const revision of revisions) {
      const { id, message, path, notRenderable } = revision
      const title = `${of}${id} ${message} (${path})`
      if (notRenderable) log.info(`${title}: not rendered, ${notRenderable.reason}`)
      else log.group(title, abridged(ownStatements(revision).map(({ sql }) => sql)))
    }
  }
}

/** All of them, also those that come after a failure; then the first failure is thrown. */
export async function allOf<T>(promises: Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises)
  return Promise.all(promises)
}
