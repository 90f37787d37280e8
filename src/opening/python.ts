import { resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { DryRun } from '../alembic/dry-run'
import { childEnvironment, environmentOutside } from '../alembic/environment'
import { ForkingPython } from '../alembic/forking'
import { type InterpreterOptions, startPython } from '../alembic/interpreter'
import { OnlineRun } from '../alembic/online-run'
import type { ProjectOptions } from '../alembic/process'
import type { Project, ReadFiles } from '../alembic/project'
import type { PythonRun } from '../alembic/python-run'
import { Reader } from '../alembic/reader'
import { Failure } from '../failure'
import { PrintOut } from '../log'
import { onlyBind, type Step } from './surroundings'
import type { Watched } from './trust'

/** How long a run may wait for what another one beside it has taken, such as a lock, in milliseconds. */
const patience = 1_500

/** A run of the user's Python, and what it prints until somebody shows that. */
export interface Printing<Run extends PythonRun> {
  run: Run
  printed: PrintOut
}

/**
 * The user's Python: a run for each purpose in a process of its own, started ahead where it will be needed, since imports
 * take longest of all. All end with the step.
 */
export class Python {
  readonly #options: InterpreterOptions & Omit<ProjectOptions, 'twice'>
  /** Elsewhere than on Linux, where a fork is not safe, each run has an interpreter of its own. */
  readonly #forking: ForkingPython | undefined
  /** Reads scripts without running them. */
  readonly reader: Reader
  /** Plans the batch, and renders it. */
  #dryRun: Printing<DryRun>
  /** Migrates; started ahead of its use. */
  #onlineRun: Printing<OnlineRun> | undefined
  /** Has migrated in the last try. */
  #lastRun: Printing<OnlineRun> | undefined
  /** What the interpreter that is forked and the wrapper command print themselves. */
  readonly #printed = new PrintOut()

  constructor(
    private readonly step: Step,
    /** What may be loaded from the checkout; undefined where that is not asked. */
    readonly trusted: Watched | undefined,
  ) {
    const { inputs, surroundings } = step
    this.#options = optionsOf(step, trusted)
    if (process.platform === 'linux') {
      const forking = new ForkingPython(this.#options, text => this.#printed.add(text))
      surroundings.atEnd.defer(async () => {
        await forking.end()
        this.#printed.show(surroundings.log, 'Output of Python')
      })
      this.#forking = forking
    }
    this.#dryRun = this.#startDry()
    // Where every file is checked, what a run writes itself is known to those that begin behind it.
    if (inputs.mode !== 'preview' && !trusted) this.#onlineRun = this.#start(OnlineRun, { twice: false })
    this.reader = new Reader(this.#options)
    surroundings.atEnd.defer(() => this.reader.kill())
  }

  /** Waits until the run that plans has loaded the project. Throws a Failure. */
  async load(read: ReadFiles): Promise<Project> {
    const ahead = this.#onlineRun?.run
    const dry = this.#dryRun.run
    void ahead?.hasImported.then(async () => {
      if (!(await isSoon(dry.hasImported))) await ahead.finish()
    })
    try {
      return await dry.load(read)
    } catch (error) {
      if (!ahead || !isOfProject(error)) throw error
      // It may not stand another one beside it: a port, or a lock.
      this.#onlineRun = undefined
      await ahead.finish()
      dry.kill()
      this.#dryRun.printed.forget()
      this.#dryRun = this.#startDry()
      return await this.#dryRun.run.load(read)
    } finally {
      this.#printed.show(this.step.surroundings.log, 'Output of Python')
      this.#dryRun.printed.show(this.step.surroundings.log, 'Output of the app')
    }
  }

  /** Asks the run that plans, and shows what the user's code has printed meanwhile under that title. */
  async dry<T>(title: string, ask: (run: DryRun) => Promise<T>): Promise<T> {
    const { run, printed } = this.#dryRun
    try {
      return await ask(run)
    } finally {
      printed.show(this.step.surroundings.log, title)
    }
  }

  /** The run that migrates, a new one for each try, with the project loaded. Nothing more is planned. Throws a Failure. */
  async loadOnline(read: ReadFiles): Promise<Printing<OnlineRun>> {
    const ahead = this.#onlineRun
    this.#onlineRun = undefined
    const dry = this.#dryRun.run
    if (ahead && (await isSoon(ahead.run.hasImported)) && (await this.#isLoaded(ahead, read))) {
      // It goes without a word: what it would clear away is the other one's as well.
      dry.kill()
      this.#lastRun = ahead
      return ahead
    }
    ahead?.run.kill()
    await dry.finish()
    await this.#lastRun?.run.finish()
    const online = this.#start(OnlineRun, { twice: false })
    this.#lastRun = online
    await online.run.load(read)
    // What the app prints, the run that plans has shown.
    online.printed.forget()
    return online
  }

  /** False where the project does not stand the run that plans beside it. */
  async #isLoaded({ run, printed }: Printing<OnlineRun>, read: ReadFiles): Promise<boolean> {
    try {
      await run.load(read)
      return true
    } catch (error) {
      if (!isOfProject(error)) throw error
      return false
    } finally {
      printed.forget()
    }
  }

  #startDry(): Printing<DryRun> {
    return this.#start(DryRun, { twice: this.step.inputs.mode !== 'apply' })
  }

  #start<Run extends PythonRun>(
    Purpose: new (...run: ConstructorParameters<typeof PythonRun>) => Run,
    { twice }: { twice: boolean },
  ): Printing<Run> {
    const printed = new PrintOut()
    const { atEnd, log } = this.step.surroundings
    const python = this.#forking?.fork() ?? startPython(this.#options)
    const run = new Purpose(python, { ...this.#options, twice }, line => printed.add(line))
    atEnd.defer(() => {
      printed.show(log, 'Output of Python')
      run.kill()
    })
    return { run, printed }
  }
}

/** Else it may wait for what another run has. */
const isSoon = (done: Promise<void>): Promise<boolean> =>
  Promise.race([done.then(() => true), pause(patience, false, { ref: false })])

const isOfProject = (error: unknown): boolean => error instanceof Failure && error.reason === 'render-failed'

function optionsOf({ inputs, surroundings }: Step, trusted: Watched | undefined) {
  const { databases, githubToken: token, planKey } = inputs
  const passwords = [...databases.values()].flatMap(database => database.secrets)
  const secrets = planKey ? [...passwords, planKey] : passwords
  const urls = [...databases].map(([bind, { urlWithoutPassword }]) => [bind, urlWithoutPassword])
  const workingDirectory = resolve(inputs.workingDirectory)
  const child = childEnvironment(surroundings.environment, { secrets, token })
  return {
    ...inputs,
    workingDirectory,
    environment: trusted ? environmentOutside(child, { ...trusted, workingDirectory }) : child,
    urls: urls.length > 0 ? Object.fromEntries(urls) : { [onlyBind]: 'postgresql://' },
    signal: surroundings.signal,
    withFlask: inputs.alembicConfig === '',
    ...(trusted && { trusted: { ...trusted, pythonPath: child.PYTHONPATH ?? '' } }),
  }
}
