import { Failure } from './failure'
import { versionOf } from './git/history'
import { Reviews, reviewProblem } from './github/reviews'
import type { Script } from './plan/plan'
import type { Step } from './step'

/**
 * Demands of every script of the batch that it came by a reviewed pull request; those that are older than the adoption
 * of the rule are exempt. Throws a Failure `not-reviewed` that names each revision, its pull request and what is missing.
 */
export async function requireReview({ inputs, surroundings, scripts, result }: Step): Promise<void> {
  const { requireReview: rule, githubToken } = inputs
  if (!rule) return
  const exempt = rule === true ? new Set<string>() : olderThan(rule.since, scripts)
  const [owner = '', repo = ''] = surroundings.repository.split('/')
  const reviews = new Reviews(githubToken, { owner, repo }, surroundings.signal)
  const batch = new Map(result.databases.flatMap(({ plan }) => plan?.revisions ?? []).map(each => [each.id, each]))
  const lines: string[] = []
  for (const { id, message, path, file } of batch.values()) {
    if (exempt.has(id)) continue
    const version = await versionOf(file)
    const missing = await reviews.missing(version).catch(error => {
      throw new Failure('not-reviewed', reviewProblem(error), { cause: error })
    })
    if (!missing) continue
    const pullRequest = missing.pullRequest ? `pull request #${missing.pullRequest}: ` : ''
    lines.push(`Revision ${id}${message && ` (${message})`}, ${path}: ${pullRequest}${missing.what}.`)
  }
  if (lines.length === 0) return surroundings.log.info('Every script of the batch was reviewed.')
  throw new Failure('not-reviewed', lines.join('\n'), {
    advice:
      'Bring each script by a pull request that somebody else approves in its final state. Scripts older than this rule are exempt with `require-review: since:REVISION`.',
  })
}

/** The revisions below this one, by `down_revision`. */
function olderThan(since: string, scripts: Map<string, Script>): Set<string> {
  const found = [...scripts.keys()].filter(id => id === since || id.startsWith(since))
  if (found.length !== 1) {
    throw new Failure('invalid-input', `require-review: there is no revision ${since} among the scripts.`)
  }
  const older = new Set<string>()
  const visit = (id: string): void => {
    for (const down of scripts.get(id)?.down ?? []) {
      if (older.has(down)) continue
      older.add(down)
      visit(down)
    }
  }
  visit(found[0]!)
  return older
}
