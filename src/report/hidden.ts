import { type Digested, digestOf } from '../plan/digest'

const name = 'atomic-upgrade-plan'

/** What a comment keeps of a plan, for a later run to compare with: one line that GitHub does not show. */
export const hiddenPlan = (digested: Digested): string => `<!-- ${name} ${inComment(JSON.stringify(digested))} -->`

/** The plan of that digest, if the comment keeps it. Nobody can forge it: it is hashed anew. */
export function planHiddenIn(body: string, digest: string): Digested | undefined {
  const json = new RegExp(`^<!-- ${name} (.*) -->\\s*$`, 'm').exec(body)?.[1]
  try {
    const digested = JSON.parse(json ?? '') as Digested
    return digestOf(digested) === digest ? digested : undefined
  } catch {
    return undefined
  }
}

/** None of these is part of JSON's own syntax, so each stands in a string, where it can be escaped. */
const inComment = (json: string): string =>
  json.replaceAll(/[^\x20-\x7e]|[<>@#&]|(?<=-)-/g, unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
