import type { ReadScript } from '../alembic/project'
import type { Reader } from '../alembic/reader'
import { shownPath } from '../alembic/shown-path'
import { Failure } from '../failure'
import { requireKnown, type Trusted } from '../git/trust'
import type { Inputs } from '../inputs'
import type { Script } from '../plan/plan'
import { readScripts } from './scripts'

/** Every script's file as it was read, once: nothing else is looked at, or run. */
export class Sources {
  readonly #read = new Map<string, ReadScript>()
  #isComplete = false

  constructor(
    readonly reader: Reader,
    private readonly trusted: Trusted | undefined,
    private readonly inputs: Inputs,
  ) {}

  /** In the order they were read. */
  get all(): ReadScript[] {
    return [...this.#read.values()]
  }

  /** A script's bytes as they were read. */
  bytesOf({ file }: Script): Buffer {
    const found = this.#read.get(file)
    if (!found) throw new Error(`${file} was not read`)
    return found.bytes
  }

  /** No other file is read from now on. */
  complete(): void {
    this.#isComplete = true
  }

  /** The files, of which those that were not read yet are. Throws a Failure. */
  async read(files: string[]): Promise<ReadScript[]> {
    const missing = files.filter(file => !this.#read.has(file))
    const [first] = missing
    if (first && this.#isComplete) {
      throw new Failure('plan-changed', `The script ${shownPath(first)} has come since the batch was planned.`)
    }
    // Before it is read, and so before any of it is run.
    if (this.trusted) requireKnown(missing, this.trusted)
    for (const each of first ? await readScripts(missing, this.reader, this.inputs) : [])
      this.#read.set(each.file, each)
    return files.flatMap(file => this.#read.get(file) ?? [])
  }
}
