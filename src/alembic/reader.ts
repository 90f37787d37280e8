import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Failure } from '../failure'
import type { Node } from '../plan/heads'
import type { DriverOptions, ScriptValues } from './driver'

/** What a script says of itself where it is read and not run. */
export interface Reading {
  /** Those of its values that are literal. */
  values: Partial<ScriptValues>
  /** The names of those that only running it tells. */
  computed: (keyof ScriptValues)[]
  doc: string
}

/**
 * An interpreter of the user's that imports nothing but Python itself (`-I -S`): no package, nothing of the project, no
 * PYTHONPATH. It parses scripts.
 */
export class Reader {
  readonly #child: ChildProcess
  readonly #nonce = randomBytes(12).toString('hex')
  readonly #answers: AsyncIterator<string>
  readonly #failed: Promise<never>

  constructor({
    python,
    workingDirectory,
    environment,
    signal,
  }: Pick<DriverOptions, 'python' | 'workingDirectory' | 'environment' | 'signal'>) {
    const [command = 'python', ...args] = python
    const program = readFileSync(join(__dirname, 'reader.py'), 'utf8')
    this.#child = spawn(command, [...args, '-I', '-S', '-c', program, this.#nonce], {
      cwd: workingDirectory,
      env: environment,
      stdio: ['pipe', 'pipe', 'ignore'],
      detached: process.platform !== 'win32',
    })
    this.#failed = new Promise((_, reject) => this.#child.on('error', reject))
    // The driver's Python, which is started by the same command, says it better.
    this.#failed.catch(() => {})
    this.#child.stdin!.on('error', () => {})
    this.#answers = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
    signal.addEventListener('abort', () => this.kill())
  }

  /** Reads scripts. Throws a Failure where there is no such interpreter, or it ends. */
  async read(sources: Buffer[]): Promise<Reading[]> {
    this.#child.stdin!.write(`${JSON.stringify(sources.map(source => source.toString('base64')))}\n`)
    for (;;) {
      const line = await Promise.race([this.#answers.next(), this.#failed]).catch(error => ({ done: true, error }))
      if (line.done || !('value' in line)) {
        throw new Failure('render-failed', 'The scripts could not be read by python -I -S.', {
          advice: 'Check that the command in the input python passes its arguments on.',
        })
      }
      const text: string = line.value
      if (text.startsWith(this.#nonce)) return JSON.parse(text.slice(this.#nonce.length))
    }
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
    this.#child.stdout?.destroy()
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
