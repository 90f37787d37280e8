import { resolve } from 'node:path'
import { DryRun } from '../alembic/dry-run'
import { childEnvironment, environmentOutside } from '../alembic/environment'
import { ForkingPython } from '../alembic/forking'
import { type InterpreterOptions, startPython } from '../alembic/interpreter'
import { OnlineRun } from '../alembic/online-run'
import type { ProjectOptions } from '../alembic/process'
import type { PythonRun } from '../alembic/python-run'
import { Reader } from '../alembic/reader'
import { PrintOut } from '../log'
import { onlyBind, type Step } from './surroundings'
import type { Watched } from './trust'

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
  readonly dryRun: Printing<DryRun>
  #onlineRun: Printing<OnlineRun> | undefined

  constructor(
    private readonly step: Step,
    /** What may be loaded from the checkout; undefined where that is not asked. */
    readonly trusted: Watched | undefined,
  ) {
    const { inputs, surroundings } = step
    const printed = new PrintOut()
    this.#options = optionsOf(step, trusted)
    if (process.platform === 'linux') {
      const forking = new ForkingPython(this.#options, text => printed.add(text))
      surroundings.atEnd.defer(() => forking.end())
      this.#forking = forking
    }
    this.dryRun = this.#start(DryRun, { twice: inputs.mode !== 'apply', printed })
    if (inputs.mode !== 'preview') this.#onlineRun = this.#startOnline()
    this.reader = new Reader(this.#options)
    surroundings.atEnd.defer(() => this.reader.kill())
  }

  /** The process that migrates, a new one for each try: the one that was started ahead, at first. */
  takeOnlineRun(): Printing<OnlineRun> {
    const online = this.#onlineRun ?? this.#startOnline()
    this.#onlineRun = undefined
    return online
  }

  /** Asks for something, and shows what the user's code has printed meanwhile under that title. */
  async dry<T>(title: string, ask: (run: DryRun) => Promise<T>): Promise<T> {
    const { run, printed } = this.dryRun
    try {
      return await ask(run)
    } finally {
      printed.show(this.step.surroundings.log, title)
    }
  }

  #startOnline(): Printing<OnlineRun> {
    return this.#start(OnlineRun, { twice: false, printed: new PrintOut() })
  }

  #start<Run extends PythonRun>(
    Purpose: new (...run: ConstructorParameters<typeof PythonRun>) => Run,
    { twice, printed }: { twice: boolean; printed: PrintOut },
  ): Printing<Run> {
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
