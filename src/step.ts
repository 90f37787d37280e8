import { writeFileSync } from 'node:fs'
import { delimiter, join, resolve } from 'node:path'
import { Driver, type Project, type ReadScript, shownPath } from './alembic/driver'
import { childEnvironment, environmentOutside } from './alembic/environment'
import { Reader } from './alembic/reader'
import { Failure, messageOf } from './failure'
import { filesOf, findsBytecode, waysOf } from './git/command'
import { requireKnown, requireSignature, sourcesBelow, type Trusted, trustedFiles } from './git/trust'
import { type Inputs, severalInSegments } from './inputs'
import { type Log, PrintOut } from './log'
import { below } from './plan/heads'
import type { Script } from './plan/plan'
import type { DatabaseState, Result } from './plan/result'
import { disconnect } from './postgres/connection'
import type { Database } from './postgres/url'
import type { Publisher } from './publish'
import { readScripts } from './scripts'
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
  /** Aborted when GitHub cancels the step, or a fault of ours stops it: then its reason is a Failure. */
  signal: AbortSignal
  /** Rejects where such a step does not come to its end. */
  stuck: Promise<never>
}

/** One step with what it has open: the user's Python, and its databases. */
export class Step {
  readonly printed = new PrintOut()
  /** Whether anything of the batch was started. */
  started = false
  /** Set by `startPython`; a plan file needs none. */
  driver!: Driver
  reader!: Reader
  targets: Target[]
  /** Set by `checkTrust`, where Python may load nothing else from the checkout. */
  trusted: (Trusted & { findsBytecode: boolean }) | undefined
  /** The prepared transactions that were told to be a stranger's. */
  readonly strangers = new Set<string>()
  /** Every script of the project by its id, once it is loaded. */
  scripts = new Map<string, Script>()
  /** Every script's file as it was read, once: nothing else is looked at, or run. */
  sources: ReadScript[] = []

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

  /**
   * The scripts that are imported, by their ids: the batch, and what has run before it. Raw Alembic imports the others,
   * too; nothing of the batch can need what comes behind it, or beside it.
   */
  get imported(): Set<string> {
    const plans = this.targets.flatMap(({ state }) => state.plan ?? [])
    const heads = plans.flatMap(({ priorHeads }) => priorHeads)
    return new Set([...below(this.scripts, heads), ...plans.flatMap(({ revisions }) => revisions.map(({ id }) => id))])
  }

  /** In an event that has secrets, a pull request's own scripts or SQL are not run. Throws a Failure `untrusted`. */
  async checkTrust(): Promise<void> {
    const { trustedTips } = this.surroundings
    if (!trustedTips) return
    const { directory, alembicConfig, planFile, planKey, python, flaskApp } = this.inputs
    if (planFile) return requireSignature(planKey)
    const { environment } = this.surroundings
    const { GITHUB_WORKSPACE: workspace = process.cwd(), PYTHONPATH = '', FLASK_APP = '' } = environment
    const workingDirectory = resolve(this.inputs.workingDirectory)
    const named = (path: string) => resolve(workingDirectory, path)
    const scripts = named(alembicConfig || directory)
    const command = { words: python, workingDirectory, workspace, environment }
    const app = (flaskApp || FLASK_APP).split(':')[0]!
    const trusted = await trustedFiles({
      workspace,
      workingDirectory,
      scripts: [scripts],
      named: [...waysOf(command), ...[...PYTHONPATH.split(delimiter), app].map(named)],
      tips: trustedTips,
    })
    requireKnown([...filesOf(command, trusted), ...(alembicConfig ? [scripts] : sourcesBelow(scripts))], trusted)
    this.trusted = { ...trusted, findsBytecode: findsBytecode(command, trusted) }
  }

  startPython(): void {
    const { databases, githubToken: token, planFile, planKey } = this.inputs
    if (planFile) return
    const { environment, signal } = this.surroundings
    const passwords = [...databases.values()].flatMap(database => database.secrets)
    const secrets = planKey ? [...passwords, planKey] : passwords
    const urls = [...databases].map(([bind, { urlWithoutPassword }]) => [bind, urlWithoutPassword])
    const workingDirectory = resolve(this.inputs.workingDirectory)
    const child = childEnvironment(environment, { secrets, token })
    const { trusted } = this
    const options = {
      ...this.inputs,
      workingDirectory,
      environment: trusted ? environmentOutside(child, { ...trusted, workingDirectory }) : child,
      urls: urls.length > 0 ? Object.fromEntries(urls) : { [onlyBind]: 'postgresql://' },
      twice: this.inputs.mode !== 'apply',
      print: (line: string) => this.printed.add(line),
      signal,
      ...(trusted && { trusted: { ...trusted, pythonPath: child.PYTHONPATH ?? '' } }),
    }
    this.driver = new Driver(options)
    this.reader ??= new Reader(options)
  }

  /** Waits until Python has loaded the project, whose scripts are then known and none imported. */
  async loadProject(): Promise<Project> {
    return await this.python(() => this.driver.project(files => this.#read(files)), 'Output of the app')
  }

  /** A script's bytes as they were read. */
  bytesOf({ file }: Script): Buffer {
    const found = this.sources.find(source => source.file === file)
    if (!found) throw new Error(`${file} was not read`)
    return found.bytes
  }

  /** Reads scripts that were not read yet. */
  async #read(files: string[]): Promise<ReadScript[]> {
    const known = new Map(this.sources.map(source => [source.file, source]))
    const isFirst = this.scripts.size === 0
    const missing = files.filter(file => !known.has(file))
    const [first] = missing
    if (first && !isFirst) {
      throw new Failure('plan-changed', `The script ${shownPath(first)} has come since the batch was planned.`)
    }
    // Before it is read, and so before any of it is run.
    if (this.trusted) requireKnown(missing, this.trusted)
    const read = first ? await readScripts(missing, this.reader, this.inputs) : []
    this.sources.push(...read)
    for (const source of read) known.set(source.file, source)
    return files.flatMap(file => known.get(file) ?? [])
  }

  /** After a try that was rolled back: new connections, and a new Python that knows nothing of that try. */
  async startAnew(): Promise<void> {
    this.started = false
    for (const { state, committed } of this.targets) state.runs = state.runs.slice(0, committed)
    this.driver?.kill()
    this.startPython()
    await this.open()
    if (this.driver) await this.loadProject()
  }

  /** Connects to every database. Throws a Failure `invalid-input` where two of them are one. */
  async open(): Promise<void> {
    const { targets } = this
    await allOf(targets.map(target => target.open()))
    if (targets.length === 1) return
    await allOf(targets.map(target => target.identify()))
    requireDistinct(targets)
  }

  /** After a failure, the outputs say what the databases hold and not what was hoped. */
  async rereadHeads(): Promise<void> {
    await allOf(this.targets.map(target => target.rereadHeads()))
  }

  /**
   * Throws where the step has been cancelled. A signal that came before the last answer can still be on its way: libuv
   * notes it while it hands on what the poll at hand has found, and finds it with the next one.
   */
  async throwIfCancelled(): Promise<void> {
    for (let turn = 0; turn < 2; turn++) await new Promise(resolve => setImmediate(resolve))
    this.surroundings.signal.throwIfAborted()
  }

  async end(): Promise<void> {
    this.printed.show(this.surroundings.log, 'Output of Python')
    this.driver?.kill()
    this.reader?.kill()
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

  /** Asks Python for something, and shows what the user's code has printed meanwhile under that title. */
  async python<T>(ask: () => Promise<T>, title: string): Promise<T> {
    try {
      return await ask()
    } finally {
      this.printed.show(this.surroundings.log, title)
    }
  }

  /** Writes a file of this step and returns its path; undefined, with a warning that names `what`, where that fails. */
  write(extension: string, text: string, what: string): string | undefined {
    const { temporaryDirectory, log } = this.surroundings
    const label = this.inputs.label.replaceAll(/[^\w.-]+/g, '-').slice(0, 60)
    const path = join(temporaryDirectory, `atomic-upgrade${label && `-${label}`}.${extension}`)
    try {
      writeFileSync(path, text)
      return path
    } catch (error) {
      log.warning(`${what} could not be written: ${messageOf(error)}`)
      return undefined
    }
  }
}

/** All of them, also those that come after a failure; then the first failure is thrown. */
export async function allOf<T>(promises: Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises)
  return Promise.all(promises)
}
