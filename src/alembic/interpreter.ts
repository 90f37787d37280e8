import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import type { Failure } from '../failure'
import { type AtWork, cannotStart, endedEarly } from './failures'

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

/** Why no further answer will come, told with the script that was at work. */
export type WhyGone = (at: AtWork | undefined) => Failure

/** A process of the user's Python with our driver in it. */
export interface RunningPython {
  /** What begins each line of its answers. */
  nonce: string
  requests: Writable
  answers: Readable
  /** What the app, Alembic and the wrapper command print. */
  prints: Readable[]
  /** As soon as it is known. */
  gone: Promise<WhyGone>
  /** Ends it, and everything that it started. */
  kill(): void
}

/** How long the last words of a process that has ended may take, in milliseconds. */
export const lastWords = 100

/** The driver's modules, each behind those that it imports. */
const modules = [
  'lifeline',
  'failures',
  'channel',
  'trusted',
  'forks',
  'asked',
  'clock',
  'connections',
  'reader',
  'alembic_patches',
  'scripts',
  'graph',
  'environment',
  'forbidden',
  'literals',
  'sqlalchemy_patches',
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
  const read = (name: string) => readFileSync(join(__dirname, 'atomic_upgrade', `${name}.py`), 'utf8')
  const bytes = Buffer.from(JSON.stringify(Object.fromEntries(modules.map(name => [name, read(name)]))))
  return Buffer.concat([Buffer.from(String(bytes.length).padStart(10, '0')), bytes])
}

export type Child = ChildProcessByStdio<Writable, Readable, Readable>

/** Starts the command, which then reads the driver. */
export function spawnPython({ python, environment, workingDirectory }: InterpreterOptions): Child {
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
export function greeting({ trusted }: InterpreterOptions, nonce: string, more: object): string {
  const { roots, files, links, pythonPath: python_path } = trusted ?? {}
  const watched = trusted && { trusted: { roots, files, links, python_path } }
  return `${JSON.stringify({ nonce, ...watched, ...more })}\n`
}

/** Why there is no such process any more, as soon as it is known. */
export function goneOf(child: Child, { python, workingDirectory }: InterpreterOptions): Promise<WhyGone> {
  return new Promise(resolve => {
    child.on('error', error => resolve(() => cannotStart(python, workingDirectory, error)))
    // The last words of one that ended by itself may still be in the pipe.
    child.on('exit', (code, signal) => setTimeout(() => resolve(at => endedEarly(python, code, signal, at)), lastWords))
  })
}

/** Ends a process and its group. */
export function end(child: Child): void {
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

/** Nobody can guess it. */
export const newNonce = () => randomBytes(12).toString('hex')

/** An interpreter for one run. */
export function startPython(options: InterpreterOptions, nonce = newNonce()): RunningPython {
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
