/** What several connections do that one transaction cannot say: the batch fails, and this is why. */
import { Failure } from '../../failure'
import type { Deed } from './layers'

const oneConnection =
  'Let the script do both on one connection, such as op.get_bind(), or end the first transaction before the other one begins.'

/** A transaction is rolled back after another one has written. */
export const cannotUndo = (undone: Deed, written: Deed, revision: string | null): Failure =>
  conflict(
    `${phrase(undone)} was rolled back after ${phrase(written)} in a transaction of its own. Both are part of the one transaction of the batch, where the first cannot be undone without the second.`,
    [undone, written],
    revision,
  )

/** A transaction reads rows that another one has changed and not committed. */
export const readsUncommitted = (reader: Deed, writer: Deed, table: string, revision: string | null): Failure =>
  conflict(
    `${phrase(reader)} has to do with rows of ${table} that ${phrase(writer)} has changed and not committed. Two connections of their own would not see that of each other; in the one transaction of the batch they do.`,
    [reader, writer],
    revision,
  )

/** The same where nothing tells what was read. */
export const readsUncounted = (reader: Deed, writer: Deed, revision: string | null): Failure =>
  conflict(
    `${phrase(reader)} runs while ${phrase(writer)} is not committed. Two connections of their own would not see each other's rows; in the one transaction of the batch they do, and since the setting track_counts is off, PostgreSQL does not tell who reads what.`,
    [reader, writer],
    revision,
    'Set track_counts to on for the database or the role, as it is by default, and take it out of scripts; or let the script do both on one connection.',
  )

/** A transaction with a snapshot reads what has been changed since then. */
export const readsSinceSnapshot = (reader: Deed, table: string, revision: string | null): Failure =>
  conflict(
    `${phrase(reader)} has to do with rows of ${table}, which another connection has changed since the first statement of this one's transaction. At REPEATABLE READ and SERIALIZABLE it would see them as they were, by its snapshot; the one transaction of the batch is at READ COMMITTED and sees the change.`,
    [reader],
    revision,
    'Read what is needed before the other connection writes, or let the transaction be at READ COMMITTED.',
  )

/** Rows are asked for unless they are locked, and another connection has locked some of them. */
export const meetsLockedRows = (reader: Deed, locker: Deed, revision: string | null): Failure =>
  conflict(
    `${phrase(reader)} passes rows by that are locked, and ${phrase(locker)} may have locked some of them. Locks of the one transaction of the batch are not in its own way.`,
    [reader, locker],
    revision,
  )

/** An advisory lock is asked for, or given back, that another connection has taken. */
export const sharesAdvisoryLock = (reader: Deed, holder: Deed, revision: string | null): Failure =>
  conflict(
    `${phrase(reader)} asks for an advisory lock, or gives one back, that ${holder.who} holds. To the one session of the batch it is its own.`,
    [reader, holder],
    revision,
  )

/** A thread has waited for the open transaction of another one. */
export const waitedInVain = (waiting: Deed, open: Deed, milliseconds: number, revision: string | null): Failure =>
  conflict(
    `${phrase(waiting)} waited for the transaction of another thread, ${phrase(open)}, which is still open and has sent nothing for ${milliseconds / 1_000} s. In the one transaction of the batch, threads that write take turns.`,
    [waiting, open],
    revision,
    'Let each thread end its transaction before it waits for another one, or raise lock-timeout.',
  )

/** A COPY waits for data that will not come before another connection has its answer. */
export const waitedForCopy = (waiting: Deed, copy: Deed, milliseconds: number, revision: string | null): Failure =>
  conflict(
    `${phrase(waiting)} waited for ${phrase(copy)}, whose COPY has got no data for ${milliseconds / 1_000} s. In the one transaction of the batch, nothing else can run during a COPY.`,
    [waiting, copy],
    revision,
    'Read what is to be copied before the COPY begins, or raise lock-timeout.',
  )

/** A statement names a table of which another connection has a temporary one: to all of them it is that one. */
export const meetsTemporaryTable = (reader: Deed, owner: Deed, table: string, revision: string | null): Failure =>
  conflict(
    `${phrase(reader)} names ${table}, and ${owner.who} has a temporary table of that name. In the one session of the batch all connections would mean the temporary one.`,
    [reader, owner],
    revision,
    'Give the temporary table a name of its own, or drop it before another connection is used.',
  )

/** currval() and lastval() are what the session has drawn last. */
export const sharesSequence = (reader: Deed, other: Deed, revision: string | null): Failure =>
  conflict(
    `${phrase(reader)} asks for the value that its session has drawn last, and ${other.who} has written as well. In the one session of the batch that may be the other one's value.`,
    [reader, other],
    revision,
    'Use RETURNING in place of currval() and lastval().',
  )

/** What is told when a connection looks into the catalog, where no counter tells what it has seen. */
export const seesUncommitted = (reader: Deed, writer: Deed): string =>
  `${phrase(reader)} looks into the catalog while ${phrase(writer)} is not committed, and sees it; two connections of their own would not.`

function conflict(message: string, deeds: Deed[], revision: string | null, advice = oneConnection): Failure {
  const place = deeds.find(deed => deed.place)?.place
  return new Failure('migration-failed', message, {
    advice,
    quotes: deeds.map(({ sql }) => ({ of: 'statement', text: shortened(sql) })),
    ...(revision !== null && { revision }),
    ...(place && { place }),
  })
}

const phrase = ({ who, sql }: Deed): string => `“${shortened(sql)}” by ${who}`

const shortened = (sql: string): string => {
  const text = sql.replace(/\s+/g, ' ').trim()
  return text.length > 200 ? `${text.slice(0, 200)} …` : text
}
