import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { delimiter, dirname, join, resolve, sep } from 'node:path'
import { Failure } from '../failure'
import { type Answer, readAnswer } from './answer'
import { cannotStart, endedEarly, failureFrom } from './failures'
import { type Line, readLines, textsOf } from './lines'
import type { Project } from './project'
import { shownPath } from './shown-path'

/** How to start the user's Python and what it shall load. */
export interface PythonOptions {
  /** The words of the command, such as `["poetry", "run", "python"]`. */
  python: string[]
  workingDirectory: string
  /** The environment of the child, already without credentials. */
  environment: Record<string, string>
  flaskApp: string
  directory: string
  alembicConfig: string
  versionTable: string
  versionTableSchema: string
  /** The URLs by bind, without passwords: for an app that reads DATABASE_URL, and for sections of an ini file that have none. */
  urls: Record<string, string>
  /** Whether a second process renders the batch as well, since somebody will rely on what is shown. */
  twice: boolean
  /** Gets what the app, Alembic and the wrapper command print. */
  print: (line: string) => void
  signal: AbortSignal
  /** Given where Python may load nothing from these folders but these files, by the names of their blobs. */
  trusted?: { roots: string[]; files: Record<string, string>; links: Record<string, string> }
}

/** The most bytes of one answer, and of all that come without being asked for again; the driver keeps to less (dry_run.py). */
const [mostAtOnce, mostInAll] = [100_000_000, 200_000_000]

/** The driver's modules, each behind those that it imports. */
const modules = [
  'lifeline',
  'failures',
  'channel',
  'trusted',
  'asked',
  'connections',
  'scripts',
  'graph',
  'environment',
  'forbidden',
  'literals',
  'varying',
  'dry_run',
  'online_run',
  'project',
  'twin',
  'main',
]

/**
 * What `python -c` gets: it reads the modules from stdin, whose length would be too much for a command line on Windows.
 * Until they stand, the working directory is not on the path, where Python has put it: a `json.py` there is not ours.
 */
const bootstrap = `import sys
here = [sys.path.pop(0)] if sys.path[:1] == [""] else []
import json, os, types
size, sources = int(os.read(0, 10)), b""
while len(sources) < size:
    sources += os.read(0, size - len(sources))
sys.modules["atomic_upgrade"] = types.ModuleType("atomic_upgrade")
for name, source in json.loads(sources).items():
    module = sys.modules["atomic_upgrade." + name] = types.ModuleType("atomic_upgrade." + name)
    exec(compile(source, "atomic_upgrade/%s.py" % name, "exec"), module.__dict__)
module.main(here)`

/** The modules as JSON, behind its length in ten digits. */
function sources(): Buffer {
  const read = (name: string) => readFileSync(join(__dirname, 'driver', `${name}.py`), 'utf8')
  const bytes = Buffer.from(JSON.stringify(Object.fromEntries(modules.map(name => [name, read(name)]))))
  return Buffer.concat([Buffer.from(String(bytes.length).padStart(10, '0')), bytes])
}

/** The user's Python with our driver in it, which answers one request after another. */
export class PythonProcess {
  readonly #child: ChildProcess
  readonly #nonce = randomBytes(12).toString('hex')
  #answers: Answer[] = []
  /** Bytes since the last request. */
  #answered = 0
  #wake: (() => void) | undefined
  /** Why no further answer will come. */
  #gone: Failure | undefined
  #killed = false
  /** Once it is loaded: failures are told in its words. */
  project: Project | undefined

  constructor(private readonly options: PythonOptions) {
    const [command = 'python', ...args] = options.python
    const { environment, trusted } = options
    const { PYTHONPATH = '' } = environment
    // A process group of its own, so that wrappers and whatever the app forks end with it.
    this.#child = spawn(command, [...args, '-c', bootstrap], {
      cwd: options.workingDirectory,
      env: trusted && PYTHONPATH ? { ...environment, PYTHONPATH: pathOutside(options, trusted.roots) } : environment,
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: process.platform !== 'win32',
    })
    this.#child.on('error', error => this.#leave(cannotStart(options.python, options.workingDirectory, error)))
    this.#child.on('exit', (code, signal) => {
      const leave = () => this.#leave(endedEarly(options.python, code, signal))
      // The last words of one that ended by itself may still be in the pipe.
      if (this.#killed) leave()
      else setTimeout(leave, 100)
    })
    this.#child.stdin!.on('error', () => {})
    const isAnswer = (start: Buffer) => start.toString('latin1', 0, this.#nonce.length) === this.#nonce
    readLines(
      this.#child.stderr!,
      () => 0,
      line => this.#print(line),
    )
    readLines(
      this.#child.stdout!,
      start => (isAnswer(start) ? mostAtOnce : 0),
      line => (isAnswer(line.bytes) ? this.#read(line) : this.#print(line)),
    )
    options.signal.addEventListener('abort', () => this.kill())
    this.#child.stdin!.write(sources())
    const { flaskApp, directory, alembicConfig, versionTable, versionTableSchema, urls, twice } = options
    this.send({
      nonce: this.#nonce,
      ...(trusted && { trusted: { ...trusted, python_path: PYTHONPATH } }),
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

  /** Whether a failure is that Python has gone. */
  hasGone(error: unknown): error is Failure {
    return this.#gone !== undefined && error === this.#gone
  }

  /** Ends Python and everything that it started. */
  kill(): void {
    const { pid } = this.#child
    if (pid === undefined) return
    this.#killed = true
    try {
      if (process.platform === 'win32') this.#child.kill('SIGKILL')
      else process.kill(-pid, 'SIGKILL')
    } catch {
      // It has ended by itself.
    }
    this.#child.stdout?.destroy()
    this.#child.stderr?.destroy()
  }

  /** Sends a request. */
  send(request: object): void {
    this.#answered = 0
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`)
  }

  /**
   * Waits for the next answer. Throws a Failure, or what the driver says of a failure while the batch runs: a
   * ScriptError.
   */
  async answer(): Promise<Answer> {
    while (this.#answers.length === 0) {
      if (this.options.signal.aborted) throw new Failure('cancelled', 'The step was cancelled.')
      if (this.#gone) throw this.#gone
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
    const answer = this.#answers.shift()!
    if (answer.failed) throw failureFrom(answer.failed, this.project, path => this.shown(path)) ?? this.unexpected()
    return answer
  }

  /** An answer that nobody has asked for: Python ends. */
  unexpected(): Failure {
    return this.#distrust('was not asked for')
  }

  /** A path of Python's for people. */
  shown(path: string): string {
    return shownPath(resolve(this.options.workingDirectory, path))
  }

  #print(line: Line): void {
    for (const text of textsOf(line)) if (text !== '') this.options.print(text)
  }

  #read({ bytes, size }: Line): void {
    this.#answered += size
    const isTooLong = size > bytes.length || this.#answered > mostInAll
    const answer = isTooLong ? undefined : readAnswer(bytes.toString('utf8', this.#nonce.length))
    if (answer) this.#answers.push(answer)
    else this.#distrust(isTooLong ? 'is longer than any answer' : 'is none of the driver’s answers')
    this.#wake?.()
  }

  /** Somebody else has spoken in the driver's place: nothing more of it is believed, and Python ends. */
  #distrust(why: string): Failure {
    const told = `Python said something in the driver’s place that ${why}.`
    this.#leave(
      new Failure('render-failed', told, {
        advice: 'See to it that nothing in the app, env.py or the scripts writes into what the driver has opened.',
      }),
    )
    this.#answers = []
    this.kill()
    return this.#gone!
  }

  #leave(failure: Failure): void {
    this.#gone ??= failure
    this.#wake?.()
  }
}

/**
 * What of PYTHONPATH lies outside of the checkout. A `sitecustomize` or a module of the standard library's name within it
 * would run before anything of ours: our driver adds the rest once it watches.
 */
function pathOutside({ environment: { PYTHONPATH = '' }, workingDirectory }: PythonOptions, roots: string[]): string {
  // Also what a link in the checkout leads out of it to.
  const isInside = (path: string): boolean => {
    const real = existsSync(path) ? realpathSync(path) : path
    if (roots.some(root => `${real}${sep}`.startsWith(`${root}${sep}`))) return true
    return dirname(path) !== path && isInside(dirname(path))
  }
  const outside = PYTHONPATH.split(delimiter).filter(entry => !isInside(resolve(workingDirectory, entry)))
  return outside.join(delimiter)
}
