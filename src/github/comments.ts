import { messageOf } from '../failure'
import { client, deadline } from './client'
import type { Event, PullRequest } from './event'
import { numberOf } from './pull-request'

/** One sticky comment of ours on a pull request. */
export interface StickyComment {
  /** As it stands there; undefined where there is none yet. */
  readonly body: string | undefined
  /** Writes the comment when it differs from what stands there. Returns its web address. */
  write(body: string): Promise<string>
}

export interface Search {
  pullRequest: PullRequest
  token: string
  marker: string
  /** Aborted when the step is cancelled. */
  cancelled: AbortSignal
}

/**
 * Finds the comment of this marker: by the marker and by its author, over all pages, for anybody can write a marker.
 * Returns undefined where there is no such pull request. Throws what GitHub answers.
 */
export async function findComment(
  event: Event,
  { pullRequest, token, marker, cancelled }: Search,
): Promise<StickyComment | undefined> {
  const octokit = await client(token)
  const [owner = '', repo = ''] = event.repository.split('/')
  const signal = deadline(cancelled)
  const number = await numberOf(pullRequest, octokit, { owner, repo }, signal)
  if (number === undefined) return undefined
  const { viewer } = await octokit.graphql<{ viewer: { login: string } }>('query { viewer { login } }', {
    request: { signal },
  })
  const comments = await octokit.paginate(octokit.rest.issues.listComments, {
    owner,
    repo,
    issue_number: number,
    per_page: 100,
    request: { signal },
  })
  let existing = comments.find(comment => comment.user?.login === viewer.login && comment.body?.startsWith(marker))
  return {
    get body() {
      return existing && (existing.body ?? '')
    },
    async write(body) {
      if (existing?.body && normalized(existing.body) === normalized(body)) return existing.html_url
      const request = { signal: deadline(cancelled) }
      const { data } = existing
        ? await octokit.rest.issues.updateComment({ owner, repo, body, comment_id: existing.id, request })
        : // Without a second try: GitHub may have taken the first one, and there shall be one comment.
          await octokit.rest.issues.createComment({
            owner,
            repo,
            body,
            issue_number: number,
            request: { ...request, retries: 0 },
          })
      existing = data
      return data.html_url
    },
  }
}

/** GitHub stores line ends and a last empty line its own way. */
const normalized = (body: string): string => body.replaceAll('\r\n', '\n').trimEnd()

/** Why the comment could not be written, and what would help, in words. */
export function commentProblem(error: unknown): string {
  const { status, response } = error as { status?: number; response?: object }
  const message = messageOf(error)
  // A server that cannot be reached has status 500 with Octokit, and no response.
  const problem = `The comment on the pull request could not be written (${response ? `${status}: ` : ''}${message}).`
  if (status === 404 || (status === 403 && /not accessible/i.test(message))) {
    return `${problem} The job needs \`permissions: { contents: read, pull-requests: write }\`; on a pull request from a fork the token is read-only whatever the workflow says.`
  }
  return problem
}
