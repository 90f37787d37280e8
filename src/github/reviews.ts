import { messageOf } from '../failure'
import { client, deadline, type Octokit, type Repository } from './client'

/** A file, the commit that last changed it, and the names that git has for its bytes. */
export interface Changed {
  path: string
  commit: string
  blobs: string[]
}

/** What is missing of a file's review, in words. */
export interface Missing {
  /** The pull request that came closest; undefined where there is none. */
  pullRequest?: number
  what: string
}

/**
 * Who may approve: those with a role in the repository or its organization. Anybody can review a public one; a private
 * one only they, whatever the workflow's token is told of members who conceal that they are.
 */
const reviewers = new Set(['OWNER', 'MEMBER', 'COLLABORATOR'])

/** Looks up reviews, each pull request once. */
export class Reviews {
  readonly #client: Promise<Octokit>
  readonly #problems = new Map<number, Promise<string>>()
  readonly #files = new Map<number, Promise<Map<string, string | null>>>()

  constructor(
    token: string,
    private readonly repository: Repository,
    private readonly cancelled: AbortSignal,
  ) {
    this.#client = client(token)
    // It is awaited later, if ever.
    this.#client.catch(() => {})
  }

  /**
   * What is missing for a file to have been reviewed: a merged pull request that brought it, approved in its final head
   * commit by somebody else than its author, with these very bytes in that head. undefined: nothing.
   * Throws what GitHub answers.
   */
  async missing({ path, commit, blobs }: Changed): Promise<Missing | undefined> {
    const octokit = await this.#client
    const { data: pulls } = await octokit.rest.repos.listPullRequestsAssociatedWithCommit({
      ...this.repository,
      commit_sha: commit,
      request: this.#request(),
    })
    const merged = pulls.filter(pull => pull.merged_at)
    if (merged.length === 0) {
      const what = `no merged pull request has brought it (it was last changed by commit ${commit.slice(0, 12)})`
      return pulls[0] ? { pullRequest: pulls[0].number, what } : { what }
    }
    let closest: Missing | undefined
    for (const { number } of merged) {
      const what = await this.#problemWith(number, path, blobs)
      if (!what) return undefined
      closest ??= { pullRequest: number, what }
    }
    return closest
  }

  async #problemWith(number: number, path: string, blobs: string[]): Promise<string> {
    const blob = (await remembered(this.#files, number, () => this.#filesOf(number))).get(path)
    if (blob === undefined) return 'it does not change this script'
    if (blob === null || !blobs.includes(blob)) return 'its final head has another version of this script than will run'
    return remembered(this.#problems, number, () => this.#approvalProblem(number))
  }

  async #approvalProblem(number: number): Promise<string> {
    const at = { ...this.repository, pull_number: number, request: this.#request() }
    const octokit = await this.#client
    const { data: pull } = await octokit.rest.pulls.get(at)
    const reviews = await octokit.paginate(octokit.rest.pulls.listReviews, { ...at, per_page: 100 })
    const [author, head] = [pull.user?.login, pull.head.sha]
    // Oldest first; a comment takes no opinion back.
    const latest = new Map(
      reviews
        .filter(({ state }) => !['COMMENTED', 'PENDING'].includes(state))
        .map(review => [review.user?.login ?? '', review]),
    )
    const approvals = [...latest.values()].filter(({ state }) => state === 'APPROVED')
    if (approvals.length === 0) return 'it has no approval'
    const byOthers = approvals.filter(({ user }) => user && user.login !== author)
    if (byOthers.length === 0) return 'nobody but its author has approved it'
    const isMember = (association?: string) => pull.base?.repo?.private || !association || reviewers.has(association)
    const byMembers = byOthers.filter(review => isMember(review.author_association))
    if (byMembers.length === 0) return 'it is approved only by people without a role in this repository'
    const ofHead = byMembers.filter(review => review.commit_id === head)
    return ofHead.length > 0 ? '' : `its approval is not of its final head commit ${head.slice(0, 12)}`
  }

  /** The blobs of a pull request's files, by path; null for one that it removes. */
  async #filesOf(number: number): Promise<Map<string, string | null>> {
    const octokit = await this.#client
    const files = await octokit.paginate(octokit.rest.pulls.listFiles, {
      ...this.repository,
      pull_number: number,
      per_page: 100,
      request: this.#request(),
    })
    return new Map(files.map(({ filename, sha, status }) => [filename, status === 'removed' ? null : sha]))
  }

  #request(): { signal: AbortSignal } {
    return { signal: deadline(this.cancelled) }
  }
}

function remembered<T>(known: Map<number, Promise<T>>, number: number, find: () => Promise<T>): Promise<T> {
  const found = known.get(number) ?? find()
  known.set(number, found)
  return found
}

/** Why GitHub could not be asked, and what would help, in words. */
export function reviewProblem(error: unknown): string {
  const { status } = error as { status?: number }
  const problem = `GitHub could not be asked for the reviews: ${messageOf(error)}.`
  return status === 403 || status === 404
    ? `${problem} The job needs \`permissions: { contents: read, pull-requests: read }\`.`
    : problem
}
