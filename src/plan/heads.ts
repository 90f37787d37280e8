import type { Script } from './plan'

/** What makes a script's place in the graph. */
export interface Node {
  id: string
  down: string[]
  /** Ids or branch labels. */
  dependsOn: string[]
  labels: string[]
}

/**
 * The heads that a database has when all of these scripts have run, sorted. As in Alembic's version table, a revision
 * that another one depends on is not among them.
 */
export function headsOf(nodes: Node[]): string[] {
  const byLabel = new Map(nodes.flatMap(node => node.labels.map(label => [label, node.id] as const)))
  const covered = new Set(
    nodes.flatMap(node => [...node.down, ...node.dependsOn.map(name => byLabel.get(name) ?? name)]),
  )
  return nodes
    .map(node => node.id)
    .filter(id => !covered.has(id))
    .sort()
}

/** Says which heads there are and the two ways to have one again; `newest` is the script to look at. */
export function explainHeads(
  scripts: Map<string, Script>,
  heads: string[],
): { told: string; advice: string; newest: Script } {
  const byAge = heads
    .flatMap(id => scripts.get(id) ?? [])
    .sort((a, b) => compare(a.created, b.created) || compare(a.id, b.id))
  const [newest, other] = [byAge.at(-1), byAge.at(-2)]
  if (!newest || !other) throw new Error('There is one head')
  const named = byAge.map(({ id, message, path }) => `${id} (${message ? `${message}, ` : ''}${path})`)
  const first = firstOfBranch(scripts, newest, other)
  const rebase = `put the newer one after the other, with down_revision = "${other.id}" in ${first.path}`
  const merge = `flask db merge -m "merge heads" ${byAge.map(({ id }) => id).join(' ')}`
  return {
    told: `The heads are ${named.join(' and ')}.`,
    advice: `Either ${rebase}; or merge them: ${merge}. To run them all as they are, set revision: heads.`,
    newest,
  }
}

/** These revisions and all below them, by `down_revision` and `depends_on`. */
export function below(scripts: Map<string, Script>, ids: string[]): Set<string> {
  const found = new Set<string>()
  const rest = [...ids]
  for (let id = rest.pop(); id !== undefined; id = rest.pop()) {
    if (found.has(id)) continue
    found.add(id)
    const { down = [], dependsOn = [] } = scripts.get(id) ?? {}
    rest.push(...down, ...dependsOn)
  }
  return found
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** The first revision of `head`'s branch that is not also below `other`. */
function firstOfBranch(scripts: Map<string, Script>, head: Script, other: Script): Script {
  const others = below(scripts, [other.id])
  let first = head
  for (;;) {
    const [next] = first.down.flatMap(id => (others.has(id) ? [] : (scripts.get(id) ?? [])))
    if (!next) return first
    first = next
  }
}
