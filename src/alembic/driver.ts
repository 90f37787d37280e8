import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { delimiter, dirname, join, relative, resolve, sep } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { Failure, type FailureReason, type Place } from '../failure'
import { explainHeads } from '../plan/heads'
import type { Direction, Plan, RenderedStatement, Script } from '../plan/plan'
import { type Answer, readAnswer } from './answer'
import { type Line, readLines, textsOf } from './lines'

/** How to start the user's Python and what it shall load. */
export interface DriverOptions {
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

/** A script as it was read before any of them runs. */
export interface ReadScript {
  /** Its path as Alembic lists it. */
  file: string
  bytes: Buffer
  /** SHA-256 of the bytes, their line ends taken as LF; hexadecimal. */
  digest: string
  /** What Alembic takes from it; undefined where only running it tells. */
  values: ScriptValues | undefined
  doc: string
}

/** The names at the top of a script. */
export interface ScriptValues {
  revision: string
  down_revision: string | string[] | null
  branch_labels?: string | string[] | null
  depends_on?: string | string[] | null
}

/** Reads the files of scripts. */
export type ReadFiles = (files: string[]) => Promise<ReadScript[]>

/** What the project looks like once it is loaded, before any script is imported but those that only an import can read. */
export interface Project {
  scripts: Map<string, Script>
  heads: string[]
  /** The databases that env.py migrates, in its order; one named `default` for a project of one database. */
  databases: { bind: string; versionTable: string; versionTableSchema: string | null }[]
}

/** What each database, by bind, is to be brought to. */
export interface Request<Database> {
  direction: Direction
  target: string
  databases: Record<string, Database>
}

/** One for which scripts are imported: these, by their ids. Of the others Alembic is told what was read. */
export interface Importing<Database> extends Request<Database> {
  imported: Set<string>
}

export interface PriorHeads {
  /** Full ids as the database has them, or what the user named. */
  heads: string[]
}

/** What is to be rendered: a plan without its SQL. */
export interface Unrendered {
  plan: Plan
  versionTableExists: boolean
}

export interface Batch {
  /** Their ids, as they were planned. */
  revisions: string[]
  gate: { host: string; port: number; user: string; password: string; database: string }
}

/** The error of a script while it ran; the gate's tape knows what PostgreSQL said. */
export class ScriptError extends Error {
  constructor(
    message: string,
    /** The database whose migrations ran; null before the first one. */
    readonly bind: string | null,
    readonly revision: string | null,
    readonly place: Place | undefined,
    /** Whether the script failed because the database refused something. */
    readonly fromDatabase: boolean,
  ) {
    super(message)
  }
}

/** Who hears what Python tells while the batch runs. */
export interface Listener {
  /** A revision is about to start. */
  revision(bind: string, id: string): void
  /** Alembic runs the scripts on the connection of that number. */
  own(connection: number): void
  /** From now on the connection is used by that thread, and task, and was taken at that place of the user's. */
  speaker(connection: number, speaker: { thread: string; task: string | null; place: Place | null }): void
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
  'clock',
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

/**
 * The user's Python with our driver in it: started once, asked for the project, the plan and the run in turn.
 * Every method throws a Failure (or, while the batch runs, a ScriptError) in words for the user.
 */
export class Driver {
  readonly #child: ChildProcess
  readonly #nonce = randomBytes(12).toString('hex')
  #answers: Answer[] = []
  /** Bytes since the last request. */
  #answered = 0
  #wake: (() => void) | undefined
  /** The script that is at work. */
  #at: { file: string; id?: string } | undefined
  /** Why no further answer will come. */
  #gone: Failure | undefined
  #killed = false
  #project: Project | undefined
  /** The scripts' places among those that were read, by their ids. */
  #numbers = new Map<string, number>()

  constructor(private readonly options: DriverOptions) {
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
    this.#child.on('error', error => this.#leave(cannotStart(options, error)))
    this.#child.on('exit', (code, signal) => {
      const leave = () => this.#leave(endedEarly(options, this.#at, code, signal))
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
    this.#send({
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

  /** Waits until the app is imported; `read` is called for the scripts, of which this Python then knows what it returns. */
  async project(read: ReadFiles): Promise<Project> {
    const known: ReadScript[] = []
    let answer = await this.#answer()
    for (; answer.files; answer = await this.#answer()) {
      const scripts = await read(answer.files)
      known.push(...scripts)
      const told = scripts.map(({ bytes, values = null, doc }) => ({ source: bytes.toString('base64'), values, doc }))
      this.#send({ scripts: told })
    }
    const { loaded } = answer
    if (!loaded) throw this.#unexpected()
    this.#numbers = new Map(loaded.revisions.map(({ id, file }) => [id, file]))
    this.#project = {
      heads: loaded.heads,
      databases: loaded.databases.map(({ bind, version_table, version_table_schema }) => {
        return { bind, versionTable: version_table, versionTableSchema: version_table_schema }
      }),
      scripts: new Map(
        loaded.revisions.map(({ id, down, depends_on: dependsOn, labels, message, path, file, created }) => {
          const script = known[file]
          if (!script || (script.values && script.values.revision !== id)) throw this.#unexpected()
          const title = message.split('\n')[0]!.trim()
          const { digest } = script
          return [
            id,
            { id, down, dependsOn, labels, message: title, path: this.#file(path), file: script.file, digest, created },
          ]
        }),
      ),
    }
    return this.#project
  }

  /** Resolves the target by Alembic's rules: the batch of each database, without its SQL. */
  async resolve({ direction, target, databases }: Request<PriorHeads>): Promise<Map<string, Plan>> {
    this.#send({ resolve: { direction, target, databases } })
    const { resolved } = await this.#answer()
    if (!resolved) throw this.#unexpected()
    const plans = Object.entries(resolved).map(([bind, { prior, new: newHeads, revisions: ids }]): [string, Plan] => {
      const revisions = ids.map(({ id, heads }) => {
        const script = this.#project?.scripts.get(id)
        if (!script) throw this.#unexpected()
        return { ...script, heads }
      })
      return [bind, { direction, target, priorHeads: prior, newHeads, revisions }]
    })
    return new Map(plans)
  }

  /** Imports the scripts, and renders the batch of each database: the same plans with their SQL. */
  async render({ direction, target, databases, imported }: Importing<Unrendered>): Promise<Map<string, Plan>> {
    const asked = Object.entries(databases).map(([bind, { plan, versionTableExists: version_table_exists }]) => {
      return [bind, { heads: plan.priorHeads, version_table_exists, revisions: plan.revisions.map(({ id }) => id) }]
    })
    const plan = { direction, target, databases: Object.fromEntries(asked) }
    this.#send({ plan, import: this.#numbersOf(imported) })
    const statements: RenderedStatement[] = []
    let answer = await this.#answer()
    for (; answer.statement; answer = await this.#answer()) statements.push(answer.statement)
    const { planned } = answer
    if (!planned) throw this.#unexpected()
    const plans = Object.entries(databases).map(([bind, { plan }]): [string, Plan] => {
      const rendered = new Map(planned[bind]?.revisions.map(each => [each.id, each]))
      const revisions = plan.revisions.map(revision => {
        const found = rendered.get(revision.id)
        if (!found) throw this.#unexpected()
        const {
          id: _,
          statements: [from, to],
          reason,
          line,
          ...source
        } = found
        if (reason === null) return { ...revision, statements: statements.slice(from, to) }
        return { ...revision, notRenderable: { reason, line }, ...source }
      })
      return [bind, { ...plan, revisions }]
    })
    return new Map(plans)
  }

  /** Runs the batches online through the gates. */
  async run({ imported, ...run }: Importing<Batch>, listener: Listener): Promise<void> {
    const left = new Map(Object.entries(run.databases).map(([bind, { revisions }]) => [bind, [...revisions]]))
    this.#send({ run, import: this.#numbersOf(imported) })
    try {
      for (;;) {
        const { ran, revision, own, speaker } = await this.#answer()
        // What was printed before is in the pipe.
        if (ran) return await setImmediate()
        if (own !== undefined) listener.own(own)
        else if (speaker) {
          const { connection, thread, task, place } = speaker
          listener.speaker(connection, { thread, task, place: place && { ...place, file: this.#file(place.file) } })
        } else if (revision && left.get(revision.bind)?.shift() === revision.id) {
          const script = this.#project?.scripts.get(revision.id)
          this.#at = script && { file: script.path, id: script.id }
          listener.revision(revision.bind, revision.id)
        } else throw this.#unexpected()
        this.#send({ go: true })
      }
    } catch (error) {
      if (!(error instanceof Failure) || error !== this.#gone) throw error
      throw new Failure('migration-failed', error.message, error.details)
    }
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

  #numbersOf(ids: Set<string>): number[] {
    return [...this.#numbers].flatMap(([id, number]) => (ids.has(id) ? [number] : []))
  }

  #send(request: object): void {
    this.#answered = 0
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`)
  }

  #print(line: Line): void {
    for (const text of textsOf(line)) if (text !== '') this.options.print(text)
  }

  #read({ bytes, size }: Line): void {
    this.#answered += size
    const isTooLong = size > bytes.length || this.#answered > mostInAll
    const answer = isTooLong ? undefined : readAnswer(bytes.toString('utf8', this.#nonce.length))
    if (answer?.at !== undefined) this.#at = answer.at === null ? undefined : this.#scriptAt(answer.at)
    else if (answer) this.#answers.push(answer)
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

  async #answer(): Promise<Answer> {
    while (this.#answers.length === 0) {
      if (this.options.signal.aborted) throw new Failure('cancelled', 'The step was cancelled.')
      if (this.#gone) throw this.#gone
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
    const answer = this.#answers.shift()!
    if (answer.failed) throw this.#failure(answer.failed)
    return answer
  }

  #failure(failed: NonNullable<Answer['failed']>): Error {
    const { kind, message, quoted, frames = [], bind = null, revision = null, line = null, database, path } = failed
    if (kind === 'multiple-heads' && this.#project) return severalHeads(message, this.#project)
    const script = revision === null ? undefined : this.#project?.scripts.get(revision)
    const last = frames.at(-1)
    const place: Place | undefined =
      script && line !== null
        ? { file: script.path, line }
        : last
          ? { file: this.#file(last.file), line: last.line }
          : path
            ? { file: this.#file(path), line: null }
            : script && { file: script.path, line: null }
    if (kind === 'script') return new ScriptError(message, bind, revision, place, database === true)
    if (!kinds.has(kind)) return this.#unexpected()
    const quotes = quoted ? [{ of: 'python', text: quoted } as const] : []
    const at = kind === 'render-failed' ? this.#at : undefined
    const told = at ? `${nameOf(at)} does not import: ${message}` : message
    return new Failure(kind as FailureReason, told, {
      ...(at && { place: { file: at.file, line: null } }),
      ...(at?.id !== undefined && { revision: at.id }),
      ...(place && { place }),
      quotes,
      ...adviceFor(kind),
    })
  }

  #unexpected(): Failure {
    return this.#distrust('was not asked for')
  }

  #scriptAt(path: string): { file: string; id?: string } {
    const file = this.#file(path)
    const script = [...(this.#project?.scripts.values() ?? [])].find(each => each.file === path || each.path === file)
    return { file, ...(script && { id: script.id }) }
  }

  #file(path: string): string {
    return shownPath(resolve(this.options.workingDirectory, path))
  }
}

/** How the driver itself says that something failed. */
const kinds = new Set([
  'invalid-input',
  'unknown-revision',
  'multiple-heads',
  'render-failed',
  'migration-failed',
  'not-transactional',
  'drift',
  'plan-changed',
  'untrusted',
])
/**
 * What of PYTHONPATH lies outside of the checkout. A `sitecustomize` or a module of the standard library's name within it
 * would run before anything of ours: our driver adds the rest once it watches.
 */
function pathOutside({ environment: { PYTHONPATH = '' }, workingDirectory }: DriverOptions, roots: string[]): string {
  // Also what a link in the checkout leads out of it to.
  const isInside = (path: string): boolean => {
    const real = existsSync(path) ? realpathSync(path) : path
    if (roots.some(root => `${real}${sep}`.startsWith(`${root}${sep}`))) return true
    return dirname(path) !== path && isInside(dirname(path))
  }
  const outside = PYTHONPATH.split(delimiter).filter(entry => !isInside(resolve(workingDirectory, entry)))
  return outside.join(delimiter)
}

/** A file for people: relative to the workspace where it lies inside it. */
export function shownPath(absolute: string): string {
  const inside = relative(process.env.GITHUB_WORKSPACE ?? process.cwd(), absolute)
  return inside.startsWith('..') ? absolute : inside.replaceAll('\\', '/')
}

function adviceFor(kind: string): { advice?: string } {
  switch (kind) {
    case 'render-failed':
      return {
        advice:
          'Check that the inputs python, working-directory and flask-app lead to the app, and that its dependencies are installed in this job.',
      }
    case 'unknown-revision':
      return {
        advice:
          'Check the input revision, and that the checkout holds the scripts that the database has already run (a branch behind the deployed one does not).',
      }
    case 'untrusted':
      return {
        advice:
          'Commit what Python needs to the base branch, install it in an earlier step as a package (not editable), or show pull requests in an event without secrets (pull_request). If you trust what lies there with all that this job can reach, set allow-untrusted: true.',
      }
    case 'plan-changed':
      return {
        advice:
          'See to it that nothing writes into the scripts while they run, and that each says the same of itself every time.',
      }
    default:
      return {}
  }
}

function severalHeads(message: string, { scripts, heads }: Project): Failure {
  const { told, advice, newest } = explainHeads(scripts, heads)
  return new Failure('multiple-heads', `${message}. ${told}`, { advice, place: { file: newest.path, line: null } })
}

function cannotStart({ python, workingDirectory }: DriverOptions, error: Error): Failure {
  const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
  const what = missing ? 'was not found' : `could not be started (${error.message})`
  return new Failure('render-failed', `The command “${python[0]}” ${what} (input python, in ${workingDirectory}).`, {
    advice: 'Set up Python in an earlier step (actions/setup-python), or name its command in the input python.',
    cause: error,
  })
}

/** A script, as a sentence begins with it. */
const nameOf = ({ file, id }: { file: string; id?: string }): string =>
  id === undefined ? `The script ${file}` : `Revision ${id} (${file})`

function endedEarly(
  { python }: DriverOptions,
  at: { file: string; id?: string } | undefined,
  code: number | null,
  signal: string | null,
): Failure {
  const how = signal ? `was ended by ${signal}` : `ended with exit code ${code}`
  const where = at ? ` ${nameOf(at)} was at work.` : ''
  return new Failure('render-failed', `“${python.join(' ')}” ${how} before it answered.${where}`, {
    ...(at && { place: { file: at.file, line: null } }),
    ...(at?.id !== undefined && { revision: at.id }),
    advice: 'What it printed is in the log above.',
  })
}
