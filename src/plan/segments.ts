import { type KnownEnum, NewEnumValues } from './new-enum-values'
import type { Plan, RenderedStatement, Revision } from './plan'
import { effectOf } from './statements'
import { findingsIn, type Obstacle, obstacleIn, treesOf } from './transactional'

/** A part of the batch that happens wholly or not at all: a transaction, or one statement outside of any. */
export interface Segment {
  /** The ids of the revisions that run in it, wholly or in part. */
  revisions: string[]
  /** The statement that runs alone. */
  alone?: Pick<Obstacle, 'line' | 'text'>
}

/** A script of which a part is committed before its version row moves, and that cannot run again from its start. */
export interface Half {
  revision: Revision
  line: number | null
  /** What would stand. */
  statements: string[]
}

/** The batch as the fewest transactions that PostgreSQL allows. */
export interface Segmentation {
  segments: Segment[]
  /** What cannot run in segments either. */
  obstacles: Obstacle[]
  /** Revisions that use what an earlier one has added to an enum: the transaction ends before them. */
  endsBefore: string[]
  /** Values that a script itself uses behind its autocommit_block: the transaction ends behind what adds them. */
  endsBehind: { revision: string; value: string }[]
  halves: Half[]
}

/**
 * Divides the batch. A statement that PostgreSQL refuses in a transaction stands alone, where the script runs it outside
 * of its own one (`autocommit_block`); a new enum value needs a COMMIT before its first use, as late as possible.
 * `known`: the enums that the database has, as far as they are known. Needs the parser to be loaded.
 */
export function segmentsOf(plan: Plan, known?: ReadonlyMap<string, KnownEnum>): Segmentation {
  const division = new Division(new NewEnumValues('committed', known))
  for (const revision of plan.revisions) division.read(revision)
  return division.end()
}

/** Whether the batch cannot be one transaction. */
export const isDivided = ({ segments }: Segmentation): boolean => segments.length > 1 || !!segments[0]?.alone

/** Where the database is when the batch ends behind a segment: the heads, and what stands of a revision beside them. */
export function stopBehind({ priorHeads, revisions }: Plan, segments: Pick<Segment, 'revisions'>[], at: number) {
  const later = new Set(segments.slice(at + 1).flatMap(segment => segment.revisions))
  const begun = new Set(segments.slice(0, at + 1).flatMap(segment => segment.revisions))
  const last = revisions.findLast(({ id }) => begun.has(id) && !later.has(id))
  const half = revisions.find(({ id }) => begun.has(id) && later.has(id))?.id
  return { heads: last ? (last.heads ?? []) : priorHeads, half }
}

class Division {
  readonly #segments: Segment[] = []
  readonly #obstacles: Obstacle[] = []
  readonly #endsBefore: string[] = []
  readonly #endsBehind: Segmentation['endsBehind'] = []
  readonly #halves: Half[] = []
  /** Where the values come from that are added and not committed. */
  readonly #added = new Map<string, { revision: string; outside: boolean; standing: number }>()
  /** The revisions of the transaction that is open. */
  #open: string[] = []
  /** What the revision at hand has done so far, and how many of that stood as its last COMMIT came. */
  #done: RenderedStatement[] = []
  #standing = 0

  constructor(private readonly values: NewEnumValues) {}

  read(revision: Revision): void {
    this.#done = []
    this.#standing = 0
    if (revision.notRenderable) this.#readSource(revision)
    let outside = false
    for (const statement of revision.statements ?? []) {
      if (statement.own) continue
      const kind = controlOf(statement.sql)
      if (kind) outside = kind !== 'begin'
      else this.#statement(revision, statement, outside)
    }
    this.#touch(revision)
    const standing = this.#done.slice(0, this.#standing)
    if (standing.every(({ sql }) => revision.notRenderable || canRunAgain(sql))) return
    const line = standing.at(-1)?.line ?? null
    this.#halves.push({ revision, line, statements: standing.map(({ sql }) => sql) })
  }

  /** A script without SQL, by what its source says: what it may do outside of its transaction, it does there. */
  #readSource(revision: Revision): void {
    const { concurrently = [], strings = [] } = revision
    const calls = concurrently.map(place => ({ ...place, isCall: true }))
    const places = [...calls, ...strings.map(place => ({ ...place, isCall: false }))]
    for (const { line, text, isCall } of places.sort((a, b) => a.line - b.line)) {
      const statement = { sql: text, line, own: false }
      if (isCall) this.#alone(revision, statement)
      else this.#string(revision, statement)
    }
  }

  #string(revision: Revision, statement: RenderedStatement): void {
    const { sql } = statement
    const mentioned = this.values.mentionedIn(sql)
    const [finding] = findingsIn(sql, this.values)
    if (finding?.kind === 'forbidden' && standsAlone(finding.form)) return this.#alone(revision, statement)
    if (finding?.kind === 'adds') {
      this.#added.set(finding.value, { revision: revision.id, outside: true, standing: this.#done.length + 1 })
      this.#done.push(statement)
      this.#touch(revision)
    } else if (mentioned !== undefined) this.#commitBefore(mentioned, revision)
  }

  end(): Segmentation {
    this.#commit()
    return {
      segments: this.#segments,
      obstacles: this.#obstacles,
      endsBefore: this.#endsBefore,
      endsBehind: this.#endsBehind,
      halves: this.#halves,
    }
  }

  #statement(revision: Revision, statement: RenderedStatement, outside: boolean): void {
    const findings = findingsIn(statement.sql, this.values)
    const [finding] = findings
    if (outside && finding?.kind === 'forbidden' && standsAlone(finding.form) && treesOf(statement.sql).length === 1)
      return this.#alone(revision, statement)
    for (const each of findings) {
      if (each.kind === 'adds') {
        const before = each.was === undefined ? undefined : this.#added.get(each.was)
        const now = { revision: revision.id, outside, standing: this.#done.length + 1 }
        this.#added.set(each.value, before && before.revision !== revision.id ? before : now)
      } else if (each.kind === 'may-use') this.#commitBefore(each.value, revision)
      else if (each.kind !== 'uses' || !this.#commitBefore(each.value, revision)) {
        const obstacle = obstacleIn(each, { revision, line: statement.line, text: statement.sql })
        if (obstacle) this.#obstacles.push(obstacle)
      }
    }
    this.#done.push(statement)
    this.#touch(revision)
  }

  #alone(revision: Revision, statement: RenderedStatement): void {
    this.#commit()
    this.#done.push(statement)
    this.#standing = this.#done.length
    this.#segments.push({ revisions: [revision.id], alone: { line: statement.line, text: statement.sql } })
  }

  /** Ends the transaction somewhere between a value's ALTER TYPE and its use; false where it cannot end there. */
  #commitBefore(value: string, { id }: Revision): boolean {
    const added = this.#added.get(value)
    if (!added) throw new Error(`Nothing adds ${value}`)
    if (added.revision !== id) {
      this.#open = this.#open.filter(open => open !== id)
      this.#endsBefore.push(id)
    } else if (added.outside) {
      this.#endsBehind.push({ revision: id, value })
      this.#standing = added.standing
    } else return false
    this.#commit()
    return true
  }

  #touch({ id }: Revision): void {
    if (!this.#open.includes(id)) this.#open.push(id)
  }

  #commit(): void {
    if (this.#open.length > 0) this.#segments.push({ revisions: this.#open })
    this.#open = []
    this.values.commit()
    this.#added.clear()
  }
}

/** DISCARD ALL would take from the session what others of the same run have in it. */
export const standsAlone = (form: string | undefined): boolean => form !== undefined && form !== 'DISCARD ALL'

/** BEGIN, COMMIT and ROLLBACK of a script, such as those of an autocommit_block. */
function controlOf(sql: string): 'begin' | 'commit' | 'rollback' | undefined {
  if (!/\b(begin|start|commit|end|rollback|abort)\b/i.test(sql)) return undefined
  const trees = treesOf(sql)
  const [tree] = trees
  if (!tree || trees.length > 1) return undefined
  const { kind } = effectOf(tree)
  return kind === 'begin' || kind === 'commit' || kind === 'rollback' ? kind : undefined
}

/** Whether SQL that has run can run once more: an index that is there already is looked at first. */
export function canRunAgain(sql: string): boolean {
  const trees = treesOf(sql)
  return (
    trees.length > 0 &&
    trees.every(tree => {
      if ('IndexStmt' in tree) return tree.IndexStmt.concurrent || tree.IndexStmt.if_not_exists === true
      if ('DropStmt' in tree) return tree.DropStmt.missing_ok === true
      if ('CreateStmt' in tree) return tree.CreateStmt.if_not_exists === true
      if ('AlterEnumStmt' in tree) return tree.AlterEnumStmt.skipIfNewValExists === true
      if ('AlterTableStmt' in tree) {
        return (tree.AlterTableStmt.cmds ?? []).every(each => 'AlterTableCmd' in each && each.AlterTableCmd.missing_ok)
      }
      if (effectOf(tree).kind === 'read') return true
      return [
        'VacuumStmt',
        'ReindexStmt',
        'ClusterStmt',
        'AlterSystemStmt',
        'VariableSetStmt',
        'VariableShowStmt',
      ].some(kind => kind in tree)
    })
  )
}
