import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { join, resolve } from 'node:path'
import { PassThrough, type Readable, type Writable } from 'node:stream'
import { Failure } from '../failure'
import { readAnswer } from './answer'
import { cannotStart, endedEarly, failureFrom } from './failures'
import { readLines, textsOf } from './lines'
import { shownPath } from './shown-path'

/** How to start the user's Python. */
export interface InterpreterOptions {
  /** The words of the command, such as `["poetry", "run", "python"]`. */
  python: string[]
  workingDirectory: string
  /** The environment of the child, already without credentials. */
  environment: Record<string, string>
  /** Whether the project is a Flask app's. */
  withFlask: boolean
  /** Given where Python may load nothing from these folders but these files, by the names of their blobs; with the PYTHONPATH that `environment` lacks. */
  trusted?: { roots: string[]; files: Record<string, string>; links: Record<string, string>; pythonPath: string }
}

/** A process of the user's Python with our driver in it. */
export interface RunningPython {
  /** What begins each line of its answers. */
  nonce: string
  requests: Writable
  answers: Readable
  /** What the app, Alembic and the wrapper command print. */
  prints: Readable[]
  /** Why no further answer will come, as soon as it is known. */
  gone: Promise<Failure>
  /** Ends it, and everything that it started. */
  kill(): void
}

/** How long the last words of a process that has ended may take, in milliseconds. */
const lastWords = 100

/** How long an interpreter may take to end what it has forked, in milliseconds. */
const patience = 1_000

/** The driver's modules, each behind those that it imports. */
const modules = [
  'lifeline',
  'failures',
  'channel',
  'trusted',
  'forks',
  'asked',
  'connections',
  'reader',
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

type Child = ChildProcessByStdio<Writable, Readable, Readable>

function spawnPython({ python, environment, workingDirectory }: InterpreterOptions): Child {
  const [command = 'python', ...args] = python
  // A process group of its own, so that wrappers and whatever the app forks end with it.
  const child = spawn(command, [...args, '-c', bootstrap], {
    cwd: workingDirectory,
    env: environment,
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: process.platform !== 'win32',
  })
  child.stdin.on('error', () => {})
  child.stdin.write(sources())
  return child
}

/** What the driver is told first. */
function greeting({ trusted }: InterpreterOptions, nonce: string, more: object): string {
  const { roots, files, links, pythonPath: python_path } = trusted ?? {}
  const watched = trusted && { trusted: { roots, files, links, python_path } }
  return `${JSON.stringify({ nonce, ...watched, ...more })}\n`
}

function goneOf(child: Child, { python, workingDirectory }: InterpreterOptions): Promise<Failure> {
  return new Promise(resolve => {
    child.on('error', error => resolve(cannotStart(python, workingDirectory, error)))
    // The last words of one that ended by itself may still be in the pipe.
    child.on('exit', (code, signal) => setTimeout(() => resolve(endedEarly(python, code, signal)), lastWords))
  })
}

function end(child: Child): void {
  const { pid } = child
  // What was forked from it ends when nobody can ask for anything any more.
  child.stdin.destroy()
  if (pid === undefined) return
  try {
    if (process.platform === 'win32') child.kill('SIGKILL')
    else process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
  child.stdout.destroy()
  child.stderr.destroy()
}

const newNonce = () => randomBytes(12).toString('hex')

/** An interpreter for one run. */
export function startPython(options: InterpreterOptions): RunningPython {
  const nonce = newNonce()
  const child = spawnPython(options)
  child.stdin.write(greeting(options, nonce, {}))
  return {
    nonce,
    requests: child.stdin,
    answers: child.stdout,
    prints: [child.stderr],
    gone: goneOf(child, options),
    kill: () => end(child),
  }
}

/** A run that is forked, until its connections have come. */
interface Fork {
  token: string
  requests: PassThrough
  answers: PassThrough
  prints: PassThrough
  sockets: Socket[]
  leave: (why: Failure) => void
}

/** An interpreter that has imported what the commands themselves import, and is forked for each run. */
export class ForkingPython {
  readonly #child: Child
  readonly #nonce = newNonce()
  readonly #server: Server = createServer(socket => this.#connected(socket))
  readonly #listening: Promise<number>
  readonly #forks: Fork[] = []
  /** Why there will be no further fork. */
  #gone: Failure | undefined

  /** `print` gets what the interpreter and the wrapper command print themselves. */
  constructor(
    private readonly options: InterpreterOptions,
    private readonly print: (text: string) => void,
  ) {
    this.#child = spawnPython(options)
    this.#child.stdin.write(greeting(options, this.#nonce, { forks: { with_flask: options.withFlask } }))
    this.#listening = new Promise((resolve, reject) => {
      this.#server.on('error', reject)
      this.#server.listen(0, '127.0.0.1', () => {
        const address = this.#server.address()
        resolve(typeof address === 'object' && address ? address.port : 0)
      })
    })
    void goneOf(this.#child, options).then(why => this.#leave(why))
    const show = (text: string) => text !== '' && this.print(text)
    readLines(
      this.#child.stderr,
      () => 0,
      line => textsOf(line).forEach(show),
    )
    readLines(
      this.#child.stdout,
      () => 0,
      line => {
        const text = line.bytes.toString('utf8')
        if (text.startsWith(this.#nonce)) this.#hear(text.slice(this.#nonce.length))
        else textsOf(line).forEach(show)
      },
    )
  }

  /** Another run, as fresh as the first one. */
  fork(): RunningPython {
    const [nonce, token, run] = [newNonce(), newNonce(), this.#forks.length]
    const [requests, answers, prints] = [new PassThrough(), new PassThrough(), new PassThrough()]
    const gone = new Promise<Failure>(leave => {
      this.#forks.push({ token, requests, answers, prints, sockets: [], leave })
      if (this.#gone) leave(this.#gone)
    })
    void this.#listening.then(port => this.#ask({ fork: { run, port, token, nonce } }))
    return { nonce, requests, answers, prints: [prints], gone, kill: () => this.#kill(run) }
  }

  /** Ends the interpreter and all that was forked from it. */
  async end(): Promise<void> {
    for (const run of this.#forks.keys()) this.#kill(run)
    this.#server.close()
    // It ends when it has read everything.
    this.#child.stdin.end()
    const { exitCode, signalCode, pid } = this.#child
    if (pid !== undefined && exitCode === null && signalCode === null) {
      const ended = new Promise(resolve => this.#child.once('exit', resolve))
      await Promise.race([ended, new Promise(resolve => setTimeout(resolve, patience).unref())])
    }
    end(this.#child)
  }

  #kill(run: number): void {
    this.#ask({ kill: run })
    for (const socket of this.#forks[run]?.sockets ?? []) socket.destroy()
  }

  #ask(request: object): void {
    if (this.#child.stdin.writable) this.#child.stdin.write(`${JSON.stringify(request)}\n`)
  }

  /** A fork says first whose it is, and what it is for. */
  #connected(socket: Socket): void {
    socket.setNoDelay()
    socket.on('error', () => {})
    socket.once('data', start => {
      const [, token, purpose] = /^(\w+) (answers|prints)\n/.exec(start.toString('latin1', 0, 64)) ?? []
      const fork = this.#forks.find(each => each.token === token)
      if (!fork || !token || !purpose) return socket.destroy()
      fork.sockets.push(socket)
      socket.unshift(start.subarray(token.length + purpose.length + 2))
      if (purpose === 'prints') return socket.pipe(fork.prints)
      fork.requests.pipe(socket)
      return socket.pipe(fork.answers)
    })
  }

  #hear(json: string): void {
    const { ended, failed } = readAnswer(json) ?? {}
    const failure = failed && failureFrom(failed, undefined, path => this.#shown(path))
    if (failure instanceof Failure) this.#leave(failure)
    if (!ended) return
    const why = endedEarly(this.options.python, ended.code, ended.signal)
    setTimeout(() => this.#forks[ended.run]?.leave(why), lastWords)
  }

  #leave(why: Failure): void {
    this.#gone ??= why
    for (const { leave } of this.#forks) leave(this.#gone)
  }

  #shown(path: string): string {
    return shownPath(resolve(this.options.workingDirectory, path))
  }
}
