import { createHash } from 'node:crypto'
import type { Direction, Plan } from './plan'

/** What a digest is made from: where the batch starts and ends, and the scripts that are run, in order. */
export interface Digested {
  format: 'atomic-upgrade/digest'
  version: 1
  direction: Direction
  /** Sorted by bind. */
  databases: DigestedBatch[]
}

export interface DigestedBatch {
  bind: string
  'prior-heads': string[]
  'new-heads': string[]
  /** Each id with the digest of its script. */
  revisions: [string, string][]
}

interface Planned {
  direction: Direction
  databases: { bind: string; plan: Plan }[]
}

/** The planned databases of a step as its digest takes them. The rendered SQL is not part of it. */
export function digestedOf({ direction, databases }: Planned): Digested {
  const planned = databases.flatMap(({ bind, plan }): DigestedBatch[] => {
    const revisions = plan.revisions.map(({ id, digest }): [string, string] => [id, digest])
    return [{ bind, 'prior-heads': plan.priorHeads, 'new-heads': plan.newHeads, revisions }]
  })
  const sorted = planned.sort((a, b) => (a.bind < b.bind ? -1 : 1))
  return { format: 'atomic-upgrade/digest', version: 1, direction, databases: sorted }
}

/** `sha256:` and the hexadecimal digest of the JSON without white space, in UTF-8. */
export const digestOf = (digested: Digested): string =>
  `sha256:${createHash('sha256').update(JSON.stringify(digested)).digest('hex')}`

/** SHA-256 of a script's bytes, hexadecimal. Line ends may differ from checkout to checkout: they are taken as LF. */
export function scriptDigest(bytes: Buffer): string {
  const text = bytes.toString('latin1').replaceAll(/\r\n?/g, '\n')
  return createHash('sha256').update(text, 'latin1').digest('hex')
}
