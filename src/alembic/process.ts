import { resolve } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { Failure } from '../failure'
import { type Answer, readAnswer } from './answer'
import { type AtWork, failureFrom, type Telling } from './failures'
import type { RunningPython } from './interpreter'
import { type Line, readLines, textsOf } from './lines'
import type { Project } from './project'
import { shownPath } from './shown-path'

/** What a run of the user's Python is to load. */
export interface ProjectOptions {
  workingDirectory: string
  flaskApp: string
  directory: string
  alembicConfig: string
  versionTable: string
  versionTableSchema: string
  /** The URLs by bind, without passwords: for an app that reads DATABASE_URL, and for sections of an ini file that have none. */
  urls: Record<string, string>
  /** Whether a second process renders the batch as well, since somebody will rely on what is shown. */
  twice: boolean
  signal: AbortSignal
}

/** The most bytes of one answer, and of all that come without being asked for again; the driver keeps to less (dry_run.py). */
const [mostAtOnce, mostInAll] = [100_000_000, 200_000_000]

/** How long Python may take to end by itself, in milliseconds. */
const farewell = 2_000

/** Everything that other streams have by now is read. */
async function arrived(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await setImmediate()
}

/** The user's Python with our driver in it, which answers one request after another. */
export class PythonProcess {
  #answers: Answer[] = []
  /** Bytes since the last request. */
  #answered = 0
  #wake: (() => void) | undefined
  /** Why no further answer will come. */
  #gone: Failure | undefined
  readonly #first = Promise.withResolvers<void>()
  /** The script that is at work. */
  #at: AtWork | undefined
  /** Once it is loaded: failures are told in its words. */
  project: Project | undefined

  constructor(
    private readonly python: RunningPython,
    private readonly options: ProjectOptions,
    /** Gets what the app, Alembic and the wrapper command print. */
    private readonly print: (line: string) => void,
  ) {
    const { nonce, requests, answers, prints, gone } = python
    void gone.then(why => this.#leave(why(this.#at)))
    requests.on('error', () => {})
    const isAnswer = (start: Buffer) => start.toString('latin1', 0, nonce.length) === nonce
    for (const stream of prints) {
      readLines(
        stream,
        () => 0,
        line => this.#print(line),
      )
    }
    readLines(
      answers,
      start => (isAnswer(start) ? mostAtOnce : 0),
      line => (isAnswer(line.bytes) ? this.#read(line) : this.#print(line)),
    )
    options.signal.addEventListener('abort', () => this.kill())
    const { flaskApp, directory, alembicConfig, versionTable, versionTableSchema, urls, twice } = options
    this.send({
      load: {
        flask_app: flaskApp,
        directory,
        alembic_config: alembicConfig,
        version_table: versionTable,
        version_table_schema: versionTableSchema,
        urls,
        twice,
      },
    })
  }

  /** Resolves with the first answer, or when none will come any more. */
  get hasBegun(): Promise<void> {
    return this.#first.promise
  }

  /** Whether a failure is that Python has gone. */
  hasGone(error: unknown): error is Failure {
    return this.#gone !== undefined && error === this.#gone
  }

  /** Ends Python and everything that it started. */
  kill(): void {
    this.python.kill()
  }

  /** Lets Python end as it does by itself, so that what it has taken until then is given back; `kill` where it does not. */
  async finish(): Promise<void> {
    this.send({ end: true })
    await Promise.race([this.python.gone, new Promise(resolve => setTimeout(resolve, farewell).unref())])
    this.kill()
  }

  /** Sends a request. */
  send(request: object): void {
    this.#answered = 0
    this.python.requests.write(`${JSON.stringify(request)}\n`)
  }

  /**
   * Waits for the next answer. Throws a Failure, or what the driver says of a failure while the batch runs: a
   * ScriptError.
   */
  async answer(): Promise<Answer> {
    let answer = this.#answers.shift()
    while (!answer) {
      if (this.options.signal.aborted) throw new Failure('cancelled', 'The step was cancelled.')
      if (this.#gone) throw this.#gone
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
      answer = this.#answers.shift()
    }
    // What was printed before is on its way, by another stream.
    if (answer.loaded || answer.planned || answer.ran || answer.failed) await arrived()
    if (answer.failed) throw failureFrom(answer.failed, this.#telling) ?? this.unexpected()
    return answer
  }

  /** An answer that nobody has asked for: Python ends. */
  unexpected(): Failure {
    return this.#distrust('was not asked for')
  }

  /** That revision is at work now. */
  begins(id: string): void {
    const script = this.project?.scripts.get(id)
    this.#at = script && { file: script.path, id }
  }

  get #telling(): Telling {
    return { project: this.project, at: this.#at, shown: path => this.shown(path) }
  }

  #scriptAt(path: string): AtWork {
    const file = this.shown(path)
    const script = [...(this.project?.scripts.values() ?? [])].find(each => each.file === path || each.path === file)
    return { file, ...(script && { id: script.id }) }
  }

  /** A path of Python's for people. */
  shown(path: string): string {
    return shownPath(resolve(this.options.workingDirectory, path))
  }

  #print(line: Line): void {
    for (const text of textsOf(line)) if (text !== '') this.print(text)
  }

  #read({ bytes, size }: Line): void {
    this.#answered += size
    const isTooLong = size > bytes.length || this.#answered > mostInAll
    const answer = isTooLong ? undefined : readAnswer(bytes.toString('utf8', this.python.nonce.length))
    if (answer?.at !== undefined) this.#at = answer.at === null ? undefined : this.#scriptAt(answer.at)
    else if (answer) {
      this.#answers.push(answer)
      this.#first.resolve()
    } else this.#distrust(isTooLong ? 'is longer than any answer' : 'is none of the driver’s answers')
    this.#wake?.()
  }

  /** Somebody else has spoken in the driver's place: nothing more of it is believed, and Python ends. */
  #distrust(why: string): Failure {
    const told = `Python said something in the driver’s place that ${why}.`
    const failure = this.#leave(
      new Failure('render-failed', told, {
        advice: 'See to it that nothing in the app, env.py or the scripts writes into what the driver has opened.',
      }),
    )
    this.#answers = []
    this.kill()
    return failure
  }

  /** Returns why it is that no answer will come: what was the reason first. */
  #leave(failure: Failure): Failure {
    this.#gone ??= failure
    this.#first.resolve()
    this.#wake?.()
    return this.#gone
  }
}
