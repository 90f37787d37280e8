import type { Digested, DigestedBatch } from '../plan/digest'
import { sameHeads } from '../plan/plan'
import { nameHeads } from '../plan/result'

/** What differs between the plan that was expected and the one at hand, a clause each; and the revisions whose scripts do. */
export function changesBetween(expected: Digested, now: Digested): { clauses: string[]; changed: string[] } {
  const [was, is] = [byBind(expected), byBind(now)]
  const several = was.size > 1 || is.size > 1
  const clauses: string[] = []
  const changed = new Set<string>()
  if (expected.direction !== now.direction)
    clauses.push(
      now.direction === 'upgrade' ? 'it is an upgrade and not a downgrade' : 'it is a downgrade and not an upgrade',
    )
  for (const bind of new Set([...was.keys(), ...is.keys()])) {
    const [before, after] = [was.get(bind), is.get(bind)]
    if (!before || !after) {
      clauses.push(`the database ${bind} ${after ? 'has come to it' : 'is no part of it any more'}`)
      continue
    }
    const scripts = changedScripts(before, after)
    for (const id of scripts) changed.add(id)
    clauses.push(...clausesOf(before, after, scripts).map(clause => (several ? `in ${bind} ${clause}` : clause)))
  }
  return { clauses, changed: [...changed] }
}

const byBind = ({ databases }: Digested): Map<string, DigestedBatch> =>
  new Map(databases.map(database => [database.bind, database]))

function changedScripts(before: DigestedBatch, after: DigestedBatch): string[] {
  const digests = new Map(before.revisions)
  return after.revisions.flatMap(([id, digest]) => ((digests.get(id) ?? digest) === digest ? [] : [id]))
}

function clausesOf(before: DigestedBatch, after: DigestedBatch, changed: string[]): string[] {
  const [was, is] = [before, after].map(({ revisions }) => revisions.map(([id]) => id)) as [string[], string[]]
  const [removed, added] = [was.filter(id => !is.includes(id)), is.filter(id => !was.includes(id))]
  const heads = (which: 'prior-heads' | 'new-heads') =>
    !sameHeads(before[which], after[which]) && `${nameHeads(after[which])} and not ${nameHeads(before[which])}`
  const [prior, target] = [heads('prior-heads'), heads('new-heads')]
  const clauses = [
    changed.length > 0 && `the ${changed.length === 1 ? 'script' : 'scripts'} of ${listed(changed)} changed`,
    added.length > 0 && `${listed(added)} came to it`,
    removed.length > 0 && `${listed(removed)} went from it`,
    prior && `it starts from ${prior}`,
    target && `it leads to ${target}`,
  ].filter(clause => clause !== false)
  return clauses.length === 0 && was.join() !== is.join() ? ['the revisions run in another order'] : clauses
}

/** The most revisions that are named. */
const most = 20

/** Revisions for people, in words. */
export function listed(ids: string[]): string {
  const named = ids.length > most ? [...ids.slice(0, most), `${ids.length - most} more`] : ids
  const words = named.length > 1 ? `${named.slice(0, -1).join(', ')} and ${named.at(-1)}` : named.join()
  return `revision${ids.length === 1 ? '' : 's'} ${words}`
}
