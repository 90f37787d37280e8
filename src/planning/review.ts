import { resolve } from 'node:path'
import { Failure } from '../failure'
import { History, type Versioned } from '../git/history'
import { type Missing, Reviews, reviewProblem } from '../github/reviews'
import { below } from '../plan/heads'
import type { Script } from '../plan/plan'
import type { Scripts } from './load'
import { unchangedSince } from './older'
import { importedWith, type Planned } from './plan'

/**
 * Demands of every script of the batch that it came by a reviewed pull request. Alembic imports the others as well: those
 * that are not as they were when the databases' heads were added have to be reviewed, too. Scripts that are older than
 * the adoption of the rule are exempt as they were then. Throws a Failure `not-reviewed` that names each script, its
 * pull request and what is missing.
 */
export async function requireReview({ inputs, surroundings, databases }: Planned, known: Scripts): Promise<void> {
  const { scripts } = known.project
  const { requireReview: rule, githubToken } = inputs
  if (!rule) return
  const plans = databases.map(({ plan }) => plan)
  const batch = new Set(plans.flatMap(({ revisions }) => revisions.map(({ id }) => id)))
  const exempt = new Set(rule === true ? [] : await olderThan(known, rule.since))
  const ids = new Set([...batch, ...importedWith(databases, known)])
  const asked = [...ids].flatMap(id => scripts.get(id) ?? []).filter(({ file }) => !exempt.has(file))
  const heads = plans.flatMap(({ priorHeads }) => priorHeads)
  const asBefore = asked.every(({ id }) => batch.has(id)) ? new Set<string>() : await unchangedSince(known, heads)
  const [owner = '', repo = ''] = surroundings.repository.split('/')
  const reviews = new Reviews(githubToken, { owner, repo }, surroundings.signal)
  const history = new History(process.env.GITHUB_WORKSPACE ?? process.cwd())
  await history.requireCommitted(resolve(inputs.workingDirectory))
  const lines: string[] = []
  for (const script of asked) {
    if (!batch.has(script.id) && asBefore.has(script.file)) continue
    const missing = await missingOf(script.file, known.sources.bytesOf(script), history, reviews)
    if (missing) lines.push(told(script, batch.has(script.id), missing))
  }
  if (lines.length === 0) return surroundings.log.info('Every script of the batch was reviewed.')
  throw new Failure('not-reviewed', lines.join('\n'), {
    advice:
      'Bring each script by a pull request that somebody else approves in its final state. Scripts older than this rule are exempt with `require-review: since:REVISION`.',
  })
}

async function missingOf(
  file: string,
  bytes: Buffer,
  history: History,
  reviews: Reviews,
): Promise<Missing | undefined> {
  let version: Versioned
  try {
    version = await history.versionOf(file, bytes)
  } catch (error) {
    if (!(error instanceof Failure) || error.reason !== 'not-reviewed') throw error
    return { what: error.message.replace(/\.$/, '') }
  }
  try {
    return await reviews.missing(version)
  } catch (error) {
    throw new Failure('not-reviewed', reviewProblem(error), { cause: error })
  }
}

/** The files of the scripts below a revision that have the bytes which they had wherever it was added. */
async function olderThan(known: Scripts, since: string): Promise<string[]> {
  const { scripts } = known.project
  const [id, ...more] = scripts.has(since) ? [since] : [...scripts.keys()].filter(each => each.startsWith(since))
  if (id === undefined || more.length > 0) {
    throw new Failure('invalid-input', `require-review: there is no revision ${since} among the scripts.`)
  }
  const older = below(scripts, [id])
  older.delete(id)
  const asThen = await unchangedSince(known, [id])
  return [...scripts.values()].filter(script => older.has(script.id) && asThen.has(script.file)).map(({ file }) => file)
}

function told({ id, message, path }: Script, isOfBatch: boolean, { pullRequest, what }: Missing): string {
  const role = isOfBatch ? '' : ', which is not of the batch and is imported with it'
  const by = pullRequest ? `pull request #${pullRequest}: ` : ''
  return `Revision ${id}${message && ` (${message})`}, ${path}${role}: ${by}${what}.`
}
