import { readFileSync } from 'node:fs'

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
  workflow_run?: { pull_requests?: { number: number }[]; head_sha?: string }
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

function readPayload(path: string | undefined): Payload {
  if (!path) return {}
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Payload
  } catch {
    return {}
  }
}

/** The pull request that the event itself names. */
export function pullRequestOf({ payload }: Event): number | undefined {
  const queued = /\/pr-(\d+)-/.exec(payload.merge_group?.head_ref ?? '')?.[1]
  return (
    payload.pull_request?.number ??
    (payload.issue?.pull_request && payload.issue.number) ??
    payload.workflow_run?.pull_requests?.[0]?.number ??
    (queued ? Number(queued) : undefined)
  )
}

/** Events that have secrets while the checkout may be a pull request's; source: GitHub's page "Events that trigger workflows". */
export const mayHoldForeignScripts = ({ name }: Event): boolean =>
  ['pull_request_target', 'issue_comment', 'workflow_run'].includes(name)

/** Commits that are on a branch of this repository for sure, in an event of those: the default branch's tip, the base's. */
export const baseTips = ({ sha, payload }: Event): string[] =>
  [sha, payload.pull_request?.base?.sha ?? ''].filter(Boolean)
