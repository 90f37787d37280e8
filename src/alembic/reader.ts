import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { Failure } from '../failure'
import type { Node } from '../plan/heads'
import type { InterpreterOptions } from './interpreter'
import { readLines } from './lines'
import type { ScriptValues } from './project'

/** What a script says of itself where it is read and not run. */
export interface Reading {
  /** Those of its values that are literal. */
  values: Partial<ScriptValues>
  /** The names of those that only running it tells. */
  computed: (keyof ScriptValues)[]
  doc: string
}

/** In bytes; of a script only its values and its docstring are told. */
const mostOfAnswer = 100_000_000

/**
 * An interpreter of the user's that imports nothing but Python itself (`-I -S`): no package, nothing of the project, no
 * PYTHONPATH. It parses scripts.
 */
export class Reader {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #nonce = randomBytes(12).toString('hex')
  /** Who waits for the answer; undefined is said of one that ends, or says too much. */
  #hear: (answer: Reading[] | undefined) => void = () => {}
  #gone = false

  constructor({
    python,
    workingDirectory,
    environment,
    signal,
  }: Pick<InterpreterOptions, 'python' | 'workingDirectory' | 'environment'> & { signal: AbortSignal }) {
    const [command = 'python', ...args] = python
    const program = readFileSync(join(__dirname, 'atomic_upgrade', 'reader.py'), 'utf8')
    this.#child = spawn(command, [...args, '-I', '-S', '-c', program, this.#nonce], {
      cwd: workingDirectory,
      env: environment,
      stdio: ['pipe', 'pipe', 'ignore'],
      detached: process.platform !== 'win32',
    })
    const gone = () => {
      this.#gone = true
      this.#hear(undefined)
    }
    // The driver's Python, which is started by the same command, says better what is wrong with it.
    this.#child.on('error', gone)
    this.#child.on('close', gone)
    this.#child.stdin.on('error', () => {})
    const isAnswer = (start: Buffer) => start.toString('latin1', 0, this.#nonce.length) === this.#nonce
    readLines(
      this.#child.stdout,
      start => (isAnswer(start) ? mostOfAnswer : 0),
      ({ bytes, size }) => {
        if (isAnswer(bytes))
          this.#hear(size > bytes.length ? undefined : readingsIn(bytes.toString('utf8', this.#nonce.length)))
      },
    )
    signal.addEventListener('abort', () => this.kill())
  }

  /** Reads scripts. Throws a Failure where there is no such interpreter, or it ends. */
  async read(sources: Buffer[]): Promise<Reading[]> {
    const readings = await new Promise<Reading[] | undefined>(resolve => {
      this.#hear = resolve
      if (this.#gone) return resolve(undefined)
      this.#child.stdin.write(`${JSON.stringify(sources.map(source => source.toString('base64')))}\n`)
    })
    if (readings) return readings
    throw new Failure('render-failed', 'The scripts could not be read by python -I -S.', {
      advice: 'Check that the command in the input python passes its arguments on.',
    })
  }

  kill(): void {
    const { pid } = this.#child
    if (pid === undefined) return
    try {
      if (process.platform === 'win32') this.#child.kill('SIGKILL')
      else process.kill(-pid, 'SIGKILL')
    } catch {
      // It has ended by itself.
    }
    this.#child.stdout.destroy()
  }
}

function readingsIn(json: string): Reading[] | undefined {
  try {
    return JSON.parse(json) as Reading[]
  } catch {
    return undefined
  }
}

/** A script's place in the graph; undefined of what is no script, or does not say it. */
export function nodeOf({ values }: Reading): Node | undefined {
  const { revision: id, down_revision: down, depends_on: dependsOn, branch_labels: labels } = values
  if (id === undefined || down === undefined) return undefined
  return { id, down: asNames(down), dependsOn: asNames(dependsOn), labels: asNames(labels) }
}

const asNames = (value: string | string[] | null | undefined): string[] =>
  typeof value === 'string' ? [value] : [...(value ?? [])].sort()
