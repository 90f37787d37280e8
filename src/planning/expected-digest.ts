import { Failure } from '../failure'
import { type Digested, digestOf } from '../plan/digest'
import { nameHeads } from '../plan/result'
import { changesBetween, listed } from '../report/changes'
import { planHiddenIn } from '../report/hidden'
import type { Planned } from './plan'

/**
 * Throws a Failure `plan-changed` unless the plan has that digest. It says what differs where the comment on the pull
 * request still keeps the plan that was expected, else what the plan is now.
 */
export async function requireDigest(
  { digested: now, databases }: Planned,
  expected: string,
  comment: () => Promise<string>,
): Promise<void> {
  if (digestOf(now) === expected) return
  const known = planHiddenIn(await comment(), expected)
  const { clauses, changed } = known ? changesBetween(known, now) : { clauses: [], changed: [] }
  const told = clauses.length > 0 ? `: ${clauses.join('; ')}.` : `. ${nowIs(now)}`
  const script = databases.flatMap(({ plan }) => plan.revisions).find(({ id }) => id === changed[0])
  throw new Failure('plan-changed', `The batch is not the one that was expected${told}`, {
    advice: `Have the batch reviewed as it is now; its digest is ${digestOf(now)}.`,
    ...(script && { place: { file: script.path, line: null } }),
  })
}

function nowIs({ direction, databases }: Digested): string {
  const batches = databases.map(({ bind, revisions, ...heads }) => {
    const ids = revisions.map(([id]) => id)
    const where = databases.length > 1 ? `in ${bind} ` : ''
    const by = ids.length > 0 ? ` by ${listed(ids)}` : ''
    return `${where}from ${nameHeads(heads['prior-heads'])} to ${nameHeads(heads['new-heads'])}${by}`
  })
  return `It is now the ${direction} ${batches.join(', ')}.`
}
