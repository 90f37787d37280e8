import { readFileSync, statSync } from 'node:fs'

/** What the runner tells about the event, the run and the repository. */
export interface Event {
  name: string
  /** `owner/name`; empty outside of GitHub. */
  repository: string
  sha: string
  runId: string
  /** The web page of this run; empty outside of GitHub. */
  runUrl: string
  payload: Payload
}

/** The fields of GitHub's event payloads that are used here. */
export interface Payload {
  pull_request?: { number: number; base?: { sha: string } }
  issue?: { number: number; pull_request?: object }
  merge_group?: { head_ref: string }
  workflow_run?: WorkflowRun
}

interface WorkflowRun {
  /** What started the run. */
  event: string
  head_sha: string
  head_branch: string | null
  /** Missing when the fork is gone. */
  head_repository?: { full_name: string; owner: { login: string } } | null
  /** Empty for a pull request from a fork. */
  pull_requests: { number: number }[]
}

/** Reads the event; without an event file (a run by hand) the payload is empty. */
export function readEvent(environment: NodeJS.ProcessEnv): Event {
  const { GITHUB_EVENT_NAME, GITHUB_REPOSITORY = '', GITHUB_SHA, GITHUB_RUN_ID = '' } = environment
  const server = environment.GITHUB_SERVER_URL ?? 'https://github.com'
  return {
    name: GITHUB_EVENT_NAME ?? '',
    repository: GITHUB_REPOSITORY,
    sha: GITHUB_SHA ?? '',
    runId: GITHUB_RUN_ID,
    runUrl: GITHUB_REPOSITORY && GITHUB_RUN_ID ? `${server}/${GITHUB_REPOSITORY}/actions/runs/${GITHUB_RUN_ID}` : '',
    payload: readPayload(environment.GITHUB_EVENT_PATH),
  }
}

/** GitHub cuts a payload at 25 MB. */
const largest = 100_000_000

/** What cannot be read counts as a payload that says nothing: whom to trust, the event's name tells. */
function readPayload(path: string | undefined): Payload {
  if (!path) return {}
  try {
    const file = statSync(path)
    return file.isFile() && file.size <= largest ? payloadOf(JSON.parse(readFileSync(path, 'utf8'))) : {}
  } catch {
    return {}
  }
}

/** The fields of a payload that are what GitHub documents. */
function payloadOf(value: unknown): Payload {
  const { pull_request, issue, merge_group, workflow_run } = fieldsOf(value)
  const { number, base } = fieldsOf(pull_request)
  const { sha } = fieldsOf(base)
  const { head_ref } = fieldsOf(merge_group)
  return {
    ...(Number.isInteger(number) && {
      pull_request: { number: number as number, ...(typeof sha === 'string' && { base: { sha } }) },
    }),
    ...(Number.isInteger(fieldsOf(issue).number) && { issue: issue as NonNullable<Payload['issue']> }),
    ...(typeof head_ref === 'string' && { merge_group: { head_ref } }),
    ...(isRun(workflow_run) && { workflow_run }),
  }
}

function isRun(value: unknown): value is WorkflowRun {
  const { event, head_sha, head_branch = null, head_repository, pull_requests = [] } = fieldsOf(value)
  const { full_name, owner } = fieldsOf(head_repository)
  return (
    typeof event === 'string' &&
    typeof head_sha === 'string' &&
    (head_branch === null || typeof head_branch === 'string') &&
    (!head_repository || (typeof full_name === 'string' && typeof fieldsOf(owner).login === 'string')) &&
    Array.isArray(pull_requests) &&
    pull_requests.every(each => Number.isInteger(fieldsOf(each).number))
  )
}

const fieldsOf = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}

/** A pull request by its number, or by a commit: the one whose merge made it, or the one that proposes it. */
export type PullRequest =
  | { number: number }
  | { mergedAs: string }
  /** `from` is `owner:branch` in a fork; empty within the repository. */
  | { head: string; from: string }

/** The pull request that the event is about; undefined where it is about none. */
export function pullRequestOf({ name, sha, repository, payload }: Event): PullRequest | undefined {
  const { pull_request, issue, merge_group, workflow_run } = payload
  if (pull_request) return { number: pull_request.number }
  if (issue) return issue.pull_request && { number: issue.number }
  if (merge_group) return queued(merge_group.head_ref)
  if (workflow_run) return pullRequestOfRun(workflow_run, repository)
  return name === 'push' && sha ? { mergedAs: sha } : undefined
}

/** What a run that follows another one is about: what the other one was about. */
function pullRequestOfRun(run: WorkflowRun, repository: string): PullRequest | undefined {
  const { event, head_sha: sha, head_branch: branch, head_repository: head } = run
  // GitHub lists a pull request that leads from the pushed branch elsewhere, such as from main to production.
  if (event === 'push') return { mergedAs: sha }
  if (event === 'merge_group') return queued(branch ?? '')
  const [listed] = run.pull_requests ?? []
  if (listed) return { number: listed.number }
  if (!event.startsWith('pull_request')) return undefined
  const from = head && branch && head.full_name !== repository ? `${head.owner.login}:${branch}` : ''
  return { head: sha, from }
}

/** A merge queue names its branches `gh-readonly-queue/BASE/pr-NUMBER-SHA`. */
function queued(branch: string): PullRequest | undefined {
  const number = /\/pr-(\d+)-[0-9a-f]+$/.exec(branch)?.[1]
  return number ? { number: Number(number) } : undefined
}

/**
 * Events that a stranger can start and that have secrets; source: GitHub's page "Events that trigger workflows". In all
 * of them GITHUB_SHA is the tip of the default branch, or of a pull request's base.
 */
const startedByStrangers = new Set([
  ...['pull_request_target', 'issue_comment', 'workflow_run', 'issues', 'discussion', 'discussion_comment'],
  ...['fork', 'watch', 'gollum', 'status', 'check_run', 'check_suite'],
])

/** Whether the checkout may be a stranger's while the job has secrets. */
export const mayHoldForeignScripts = ({ name }: Event): boolean => startedByStrangers.has(name)

/**
 * Commits that are on a branch of this repository for sure, in an event of those: the default branch's tip, the base's.
 * Other commits of a payload (a check's head, a status's, that of a run before this one) may be a fork's.
 */
export const baseTips = ({ sha, payload }: Event): string[] =>
  [sha, payload.pull_request?.base?.sha ?? ''].filter(Boolean)
