import type { Octokit, Repository } from './client'
import type { PullRequest } from './event'

/** The pull request's number; undefined where there is none, such as for a commit that was pushed without one. */
export async function numberOf(
  pullRequest: PullRequest,
  octokit: Octokit,
  repository: Repository,
  signal: AbortSignal,
): Promise<number | undefined> {
  if ('number' in pullRequest) return pullRequest.number
  const request = { signal }
  const sha = 'head' in pullRequest ? pullRequest.head : pullRequest.mergedAs
  const { data: known } = await octokit.rest.repos.listPullRequestsAssociatedWithCommit({
    ...repository,
    commit_sha: sha,
    request,
  })
  if ('mergedAs' in pullRequest) {
    const merged = known.filter(each => each.merged_at)
    return (merged.find(each => each.merge_commit_sha === sha) ?? merged[0])?.number
  }
  const proposed = known.find(each => each.head.sha === sha)
  if (proposed || !pullRequest.from) return proposed?.number
  // GitHub does not always know a fork's commits in the repository that they are proposed to.
  const { data: fromFork } = await octokit.rest.pulls.list({
    ...repository,
    head: pullRequest.from,
    state: 'all',
    request,
  })
  return fromFork.find(each => each.head.sha === sha)?.number
}
