import type { Place } from '../../failure'

/** Who speaks on a connection, as far as the driver has told. */
export interface Speaker {
  /** The thread, and the task of an event loop, from which the connection is used. */
  thread: string
  task: string | null
  /** Where in the user's code it was taken. */
  place: Place | null
}

interface Numbered {
  readonly number: number | undefined
}

/** Who uses the connections, by the numbers that the driver has given them. */
export class Speakers {
  readonly #known = new Map<number, Speaker>()
  #own: number | undefined

  tell(number: number, speaker: Speaker): void {
    this.#known.set(number, speaker)
  }

  /** The connection that Alembic itself runs the scripts on. */
  tellOwn(number: number): void {
    this.#own = number
  }

  isOwn({ number }: Numbered): boolean {
    return number !== undefined && number === this.#own
  }

  #of({ number }: Numbered): Speaker | undefined {
    return number === undefined ? undefined : this.#known.get(number)
  }

  /** Whether the two are used at the same time. In one thread, or one task, what waits for the other would wait for ever. */
  areConcurrent(one: Numbered, other: Numbered): boolean {
    const [a, b] = [this.#of(one), this.#of(other)]
    if (!a || !b || this.isOwn(one) || this.isOwn(other)) return false
    return a.thread !== b.thread || (a.task !== null && b.task !== null && a.task !== b.task)
  }

  nameOf(session: Numbered): string {
    const { file, line } = this.#of(session)?.place ?? {}
    if (this.isOwn(session)) return 'Alembic’s own connection'
    return file ? `the connection that was opened at ${file}:${line}` : 'another connection'
  }

  /** Where it was taken; for Alembic's own that is env.py, which nobody wants to be sent to. */
  placeOf(session: Numbered): Place | undefined {
    return this.isOwn(session) ? undefined : (this.#of(session)?.place ?? undefined)
  }
}
