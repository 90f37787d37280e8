import { getOctokit } from '@actions/github'
import { retry } from '@octokit/plugin-retry'
import { throttling } from '@octokit/plugin-throttling'
import { messageOf } from '../failure'
import type { Event } from './event'

/** One sticky comment of ours on a pull request. */
export interface StickyComment {
  /** Writes the comment when it differs from what stands there. Returns its web address. */
  write(body: string): Promise<string>
}

/** How long GitHub may take for one look-up or one change before the step goes on without it, in milliseconds. */
const patience = 60_000

type Octokit = ReturnType<typeof client>

/**
 * Finds the comment of this marker: by the marker and by its author, over all pages, for anybody can write a marker.
 * Returns undefined when the event belongs to no pull request. Throws what GitHub answers.
 */
export async function findComment(
  event: Event,
  { token, marker, pullRequest }: { token: string; marker: string; pullRequest?: number },
): Promise<StickyComment | undefined> {
  const octokit = client(token)
  const request = { signal: AbortSignal.timeout(patience) }
  const [owner = '', repo = ''] = event.repository.split('/')
  const number =
    pullRequest ??
    (event.name === 'push'
      ? await mergedPullRequest(octokit, { owner, repo, commit_sha: event.sha, request })
      : undefined)
  if (number === undefined) return undefined
  const { viewer } = await octokit.graphql<{ viewer: { login: string } }>('query { viewer { login } }', { request })
  const comments = await octokit.paginate(octokit.rest.issues.listComments, {
    owner,
    repo,
    issue_number: number,
    per_page: 100,
    request,
  })
  let existing = comments.find(comment => comment.user?.login === viewer.login && comment.body?.startsWith(marker))
  return {
    async write(body) {
      // GitHub stores line ends and a last empty line its own way.
      if (existing?.body && normalized(existing.body) === normalized(body)) return existing.html_url
      const change = { owner, repo, body, request: { signal: AbortSignal.timeout(patience) } }
      const { data } = existing
        ? await octokit.rest.issues.updateComment({ ...change, comment_id: existing.id })
        : await octokit.rest.issues.createComment({ ...change, issue_number: number })
      existing = data
      return data.html_url
    },
  }
}

const normalized = (body: string): string => body.replaceAll('\r\n', '\n').trimEnd()

async function mergedPullRequest(
  octokit: Octokit,
  commit: { owner: string; repo: string; commit_sha: string; request: object },
): Promise<number | undefined> {
  if (!commit.commit_sha) return undefined
  const { data } = await octokit.rest.repos.listPullRequestsAssociatedWithCommit(commit)
  const merged = data.filter(each => each.merged_at)
  return (merged.find(each => each.merge_commit_sha === commit.commit_sha) ?? merged[0])?.number
}

function client(token: string) {
  return getOctokit(
    token,
    {
      throttle: {
        onRateLimit: (wait: number, _options: object, _octokit: object, tries: number) => tries < 2 && wait < 60,
        onSecondaryRateLimit: (wait: number, _options: object, _octokit: object, tries: number) =>
          tries < 2 && wait < 60,
      },
    },
    retry,
    throttling,
  )
}

/** Why the comment could not be written, and what would help, in words. */
export function commentProblem(error: unknown): string {
  const { status } = error as { status?: number }
  if (status === 403 || status === 404 || status === 401) {
    return `The pull request could not be commented on (${status}: ${messageOf(error)}). Give the job the permission:\n\n  permissions:\n    contents: read\n    pull-requests: write\n\nOn a pull request from a fork the token is read-only whatever the workflow says. The job summary has the same text.`
  }
  return `The pull request could not be commented on: ${messageOf(error)}. The job summary has the same text.`
}
