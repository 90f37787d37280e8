import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { Failure, type FailureReason, type Place } from '../failure'
import { explainHeads, type Node } from '../plan/heads'
import type { Direction, PlaceInScript, Plan, RenderedStatement, Revision, Script } from '../plan/plan'

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
}

/** What the project looks like once it is loaded. */
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

export interface PriorHeads {
  /** Full ids as the database has them, or what the user named. */
  heads: string[]
  versionTableExists: boolean
}

export interface Batch {
  /** With the digests of their scripts, as they were planned. */
  revisions: { id: string; digest: string }[]
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

interface Answer {
  loaded?: {
    revisions: {
      id: string
      down: string[]
      depends_on: string[]
      labels: string[]
      message: string
      path: string
      created: string
    }[]
    heads: string[]
    databases: { bind: string; version_table: string; version_table_schema: string | null }[]
  }
  /** Comes before `planned`: one statement of a revision, in their order. */
  statement?: RenderedStatement
  planned?: Record<string, PlannedBatch>
  read?: Node[]
  revision?: { bind: string; id: string }
  ran?: true
  failed?: {
    kind: string
    message: string
    frames?: { file: string; line: number; function: string }[]
    bind?: string | null
    revision?: string | null
    line?: number | null
    database?: boolean
    path?: string
  }
}

interface PlannedBatch {
  prior: string[]
  new: string[]
  revisions: {
    id: string
    digest: string
    /** Which of the statements that came before: from, and up to without that one. */
    statements: [number, number]
    reason: string | null
    line: number | null
    heads: string[]
    concurrently?: PlaceInScript[]
    mentions?: PlaceInScript[]
    strings?: PlaceInScript[]
  }[]
}

/** The driver's modules, each behind those that it imports. */
const modules = [
  'failures',
  'channel',
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

/** What `python -c` gets: it reads the modules from stdin, whose length would be too much for a command line on Windows. */
const bootstrap = `import json, os, sys, types
size, sources = int(os.read(0, 10)), b""
while len(sources) < size:
    sources += os.read(0, size - len(sources))
sys.modules["atomic_upgrade"] = types.ModuleType("atomic_upgrade")
for name, source in json.loads(sources).items():
    module = sys.modules["atomic_upgrade." + name] = types.ModuleType("atomic_upgrade." + name)
    exec(compile(source, "atomic_upgrade/%s.py" % name, "exec"), module.__dict__)
module.main()`

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
  #wake: (() => void) | undefined
  /** Why no further answer will come. */
  #gone: Failure | undefined
  #killed = false
  #project: Project | undefined

  constructor(private readonly options: DriverOptions) {
    const [command = 'python', ...args] = options.python
    // A process group of its own, so that wrappers and whatever the app forks end with it.
    this.#child = spawn(command, [...args, '-c', bootstrap], {
      cwd: options.workingDirectory,
      env: options.environment,
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: process.platform !== 'win32',
    })
    this.#child.on('error', error => this.#leave(cannotStart(options, error)))
    this.#child.on('exit', (code, signal) => {
      const leave = () => this.#leave(endedEarly(options, code, signal))
      // The last words of one that ended by itself may still be in the pipe.
      if (this.#killed) leave()
      else setTimeout(leave, 100)
    })
    this.#child.stdin!.on('error', () => {})
    createInterface({ input: this.#child.stderr! }).on('line', options.print)
    createInterface({ input: this.#child.stdout! }).on('line', line => this.#read(line))
    options.signal.addEventListener('abort', () => this.kill())
    this.#child.stdin!.write(sources())
    const { flaskApp, directory, alembicConfig, versionTable, versionTableSchema, urls, twice } = options
    this.#send({
      nonce: this.#nonce,
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

  /** Waits until the app is imported and the scripts are read. */
  async project(): Promise<Project> {
    const { loaded } = await this.#answer()
    if (!loaded) throw this.#unexpected()
    this.#project = {
      heads: loaded.heads,
      databases: loaded.databases.map(({ bind, version_table, version_table_schema }) => {
        return { bind, versionTable: version_table, versionTableSchema: version_table_schema }
      }),
      scripts: new Map(
        loaded.revisions.map(({ id, down, depends_on: dependsOn, labels, message, path, created }) => [
          id,
          {
            id,
            down,
            dependsOn,
            labels,
            message: message.split('\n')[0]!.trim(),
            path: this.#file(path),
            file: resolve(this.options.workingDirectory, path),
            created,
          },
        ]),
      ),
    }
    return this.#project
  }

  /** Resolves the target by Alembic's rules and renders the batch of each database. */
  async plan({ direction, target, databases }: Request<PriorHeads>): Promise<Map<string, Plan>> {
    const asked = Object.entries(databases).map(([bind, { heads, versionTableExists: version_table_exists }]) => {
      return [bind, { heads, version_table_exists }]
    })
    this.#send({ plan: { direction, target, databases: Object.fromEntries(asked) } })
    const statements: RenderedStatement[] = []
    let answer = await this.#answer()
    for (; answer.statement; answer = await this.#answer()) statements.push(answer.statement)
    const { planned } = answer
    if (!planned) throw this.#unexpected()
    const plans = Object.entries(planned).map(([bind, batch]): [string, Plan] => {
      const revisions = batch.revisions.map(each => this.#revision(each, statements.slice(...each.statements)))
      return [bind, { direction, target, priorHeads: batch.prior, newHeads: batch.new, revisions }]
    })
    return new Map(plans)
  }

  #revision(planned: PlannedBatch['revisions'][number], statements: RenderedStatement[]): Revision {
    const { id, digest, statements: _, reason, line, heads, ...source } = planned
    const script = { ...this.#project!.scripts.get(id)!, digest, heads }
    if (reason === null) return { ...script, statements }
    return { ...script, notRenderable: { reason, line }, ...source }
  }

  /** Reads the graph of scripts from their sources, without running them. */
  async read(sources: string[]): Promise<Node[]> {
    this.#send({ read: sources })
    const { read } = await this.#answer()
    if (!read) throw this.#unexpected()
    return read
  }

  /** Runs the batches online through the gates; `onRevision` is told of each revision before it starts. */
  async run(request: Request<Batch>, onRevision: (bind: string, id: string) => void): Promise<void> {
    this.#send({ run: request })
    for (;;) {
      const answer = await this.#answer().catch(error => {
        if (error !== this.#gone) throw error
        throw new Failure('migration-failed', error.message, { advice: 'What it printed is in the log above.' })
      })
      if (answer.ran) return
      if (!answer.revision) throw this.#unexpected()
      onRevision(answer.revision.bind, answer.revision.id)
      this.#send({ go: true })
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

  #send(request: object): void {
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`)
  }

  #read(line: string): void {
    if (!line.startsWith(this.#nonce)) {
      if (line !== '') this.options.print(line)
      return
    }
    this.#answers.push(JSON.parse(line.slice(this.#nonce.length)))
    this.#wake?.()
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
    const { kind, message, frames = [], bind = null, revision = null, line = null, database, path } = failed
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
    return new Failure(kind as FailureReason, message, { ...(place && { place }), ...adviceFor(kind) })
  }

  #unexpected(): Failure {
    return new Failure('internal', 'The driver in the user’s Python answered out of turn.')
  }

  #file(path: string): string {
    const absolute = resolve(this.options.workingDirectory, path)
    const inside = relative(process.env.GITHUB_WORKSPACE ?? process.cwd(), absolute)
    return inside.startsWith('..') ? absolute : inside.replaceAll('\\', '/')
  }
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
    case 'plan-changed':
      return { advice: 'See to it that nothing writes into the scripts while they run, and run the step again.' }
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

function endedEarly({ python }: DriverOptions, code: number | null, signal: string | null): Failure {
  const how = signal ? `was ended by ${signal}` : `ended with exit code ${code}`
  return new Failure('render-failed', `“${python.join(' ')}” ${how} before it answered.`, {
    advice: 'What it printed is in the log above.',
  })
}
