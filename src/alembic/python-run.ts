import type { RunningPython } from './interpreter'
import { type ProjectOptions, PythonProcess } from './process'
import type { Project, ReadFiles, ReadScript } from './project'

/** One run of the user's Python, in a process of its own. Every method throws a Failure in words for the user. */
export abstract class PythonRun {
  protected readonly process: PythonProcess
  /** The scripts' places among those that were read, by their ids. */
  #numbers = new Map<string, number>()

  /** Python at once imports what the project needs; `print` gets what the app, Alembic and the wrapper command print. */
  constructor(python: RunningPython, options: ProjectOptions, print: (line: string) => void) {
    this.process = new PythonProcess(python, options, print)
  }

  /** Waits until the app is imported; `read` is called for the scripts, of which this Python then knows what it returns. */
  async load(read: ReadFiles): Promise<Project> {
    const known: ReadScript[] = []
    let answer = await this.process.answer()
    for (; answer.files; answer = await this.process.answer()) {
      const scripts = await read(answer.files)
      known.push(...scripts)
      const told = scripts.map(({ bytes, values = null, doc }) => ({ source: bytes.toString('base64'), values, doc }))
      this.process.send({ scripts: told })
    }
    const { loaded } = answer
    if (!loaded) throw this.process.unexpected()
    this.#numbers = new Map(loaded.revisions.map(({ id, file }) => [id, file]))
    const project = {
      heads: loaded.heads,
      databases: loaded.databases.map(({ bind, version_table, version_table_schema }) => {
        return { bind, versionTable: version_table, versionTableSchema: version_table_schema }
      }),
      scripts: new Map(
        loaded.revisions.map(({ id, down, depends_on: dependsOn, labels, message, path, file, created }) => {
          const script = known[file]
          if (!script || (script.values && script.values.revision !== id)) throw this.process.unexpected()
          const [title = ''] = message.split('\n')
          const { digest } = script
          return [
            id,
            {
              id,
              down,
              dependsOn,
              labels,
              message: title.trim(),
              path: this.process.shown(path),
              file: script.file,
              digest,
              created,
            },
          ]
        }),
      ),
    }
    this.process.project = project
    return project
  }

  /** Ends Python and everything that it started. */
  kill(): void {
    this.process.kill()
  }

  /** Lets Python end as it does by itself, with what the app does then. */
  async finish(): Promise<void> {
    await this.process.finish()
  }

  /** Resolves when the app is imported, or is not. */
  get hasImported(): Promise<void> {
    return this.process.hasBegun
  }

  protected numbersOf(ids: Set<string>): number[] {
    return [...this.#numbers].flatMap(([id, number]) => (ids.has(id) ? [number] : []))
  }
}
