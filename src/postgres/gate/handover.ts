import type { AdvisoryLocks } from './advisory'
import type { Isolation } from './isolation'
import type { Layers } from './layers'
import { dropTable } from './leavings'
import type { Participant } from './participant'
import { join, statements, syncPoint } from './request'
import type { Savepoints } from './savepoints'
import type { Settings } from './settings'
import { survey, surveyOfChanges } from './survey'
import type { Request, Upstream } from './upstream'
import * as wire from './wire'

/** What is done between two turns: each session finds its own settings, and nothing of those that have gone. */
export class Handover {
  /** Whose settings the connection has now; nobody's after a session has gone. */
  #current: Participant | undefined
  /** Whether a session has left settings, cursors or temporary tables behind. */
  #littered = false

  constructor(
    private readonly upstream: Upstream,
    private readonly savepoints: Savepoints,
    private readonly settings: Settings,
    private readonly layers: Layers,
    private readonly isolation: Isolation,
    private readonly advisory: AdvisoryLocks,
  ) {}

  /** Gives the connection to the session; `begin` gets the reason why it cannot be used, if so. */
  give(session: Participant, begin: (refusal?: string) => void): void {
    if (this.upstream.status === 'T') this.upstream.send(this.layers.settle())
    if (this.#current === session) return begin()
    if (this.upstream.status === 'T') return this.#switchTo(session, begin)
    // In a failed transaction only its ROLLBACK goes through, and that brings back the settings of its start.
    this.#current = session
    begin()
  }

  #switchTo(session: Participant, begin: (refusal?: string) => void): void {
    const leaving = this.#current
    this.#current = session
    if (!leaving && !this.#littered && Object.keys(session.saved).length === 0) return begin()
    this.#littered = false
    const savepoint = this.savepoints.newName()
    // Of one with a snapshot it matters what it reads from now on, and not what others have read.
    const look = session.keepsSnapshot ? survey : surveyOfChanges
    let refused = 'the connection cannot be set up'
    const error = (message: wire.Message) => {
      refused = wire.readFields(message.body).M ?? refused
    }
    this.upstream.send(
      join(
        statements(`SAVEPOINT ${savepoint}`),
        leaving ? this.#save(leaving) : join(),
        this.settings.restore(session.saved, error),
        look(found => {
          if (leaving) this.isolation.leaves(leaving, found)
          this.isolation.returns(session, found)
          this.isolation.begins(found)
        }, error),
        statements(`RELEASE SAVEPOINT ${savepoint}`),
        syncPoint(status => {
          if (status === 'T') return begin()
          this.#current = undefined
          this.#littered = true
          this.savepoints.undo(savepoint, () => begin(refused))
        }),
      ),
    )
  }

  /** The connection is nobody's for a while: whoever had it gets its settings anew. */
  leave(done: () => void): void {
    const leaving = this.#current
    this.#current = undefined
    this.#littered = true
    this.upstream.send(
      join(
        leaving ? this.#save(leaving) : join(),
        syncPoint(status => {
          if (status === 'T') done()
          else this.upstream.abandon(new Error('the settings of a connection could not be read'))
        }),
      ),
    )
  }

  #save(session: Participant): Request {
    return this.settings.save(values => {
      session.saved = values
    })
  }

  /** A client has gone: its transaction is rolled back, and whatever it left is cleared. `others` are still connected. */
  tidyAfter(session: Participant, others: Set<Participant>, done: () => void): void {
    const failed = this.upstream.status === 'E'
    const farewell = session.nested.farewell()
    this.layers.ended(session, { all: true })
    this.advisory.ended(session, { all: true })
    this.isolation.ended(session)
    if (this.upstream.doom) return done()
    const staying = this.#current && others.has(this.#current) ? this.#current : undefined
    this.#current = undefined
    this.#littered = true
    const { reset } = this.settings
    // By now: another client may come while this one is tidied after.
    const isLast = others.size === 0
    const tables = session.statements.leftTables.map(dropTable)
    const tidy = () => {
      if (isLast) this.savepoints.insist(reset, () => this.savepoints.attempt([discard, ['DISCARD TEMP']], done))
      else this.savepoints.attempt(tables.length > 0 ? [reset, tables] : [], done)
    }
    this.upstream.send(
      join(
        staying && !failed
          ? join(
              this.#save(staying),
              surveyOfChanges(found => this.isolation.leaves(staying, found)),
            )
          : join(),
        farewell?.request ?? join(),
        ...session.statements.farewell(),
        syncPoint(status => {
          if (status === 'T') tidy()
          else if (farewell) this.savepoints.undo(farewell.savepoint, tidy)
          // The failed transaction is another session's.
          else done()
        }),
      ),
    )
  }
}

/** What DISCARD ALL does, which PostgreSQL does not allow inside a transaction. */
const discard = ['CLOSE ALL', 'DEALLOCATE ALL', 'UNLISTEN *', 'SELECT pg_catalog.pg_advisory_unlock_all()']
