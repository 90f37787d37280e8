import { Failure, type Place } from '../failure'
import type { Importing } from './project'
import { PythonRun } from './python-run'

export interface Batch {
  /** Their ids, as they were planned. */
  revisions: string[]
  gate: { host: string; port: number; user: string; password: string; database: string }
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

/** The run that migrates, through gates. */
export class OnlineRun extends PythonRun {
  /** Runs the batches. Throws a Failure, or a ScriptError. */
  async run({ imported, ...run }: Importing<Batch>, listener: Listener): Promise<void> {
    const left = new Map(Object.entries(run.databases).map(([bind, { revisions }]) => [bind, [...revisions]]))
    this.process.send({ run, import: this.numbersOf(imported) })
    try {
      for (;;) {
        const { ran, revision, own, speaker } = await this.process.answer()
        if (ran) return
        if (own !== undefined) listener.own(own)
        else if (speaker) {
          const { connection, thread, task, place } = speaker
          listener.speaker(connection, {
            thread,
            task,
            place: place && { ...place, file: this.process.shown(place.file) },
          })
        } else if (revision && left.get(revision.bind)?.shift() === revision.id) {
          this.process.begins(revision.id)
          listener.revision(revision.bind, revision.id)
        } else throw this.process.unexpected()
        this.process.send({ go: true })
      }
    } catch (error) {
      if (!this.process.hasGone(error)) throw error
      throw new Failure('migration-failed', error.message, error.details)
    }
  }
}
