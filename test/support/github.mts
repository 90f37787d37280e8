import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { components } from '@octokit/openapi-types'

type Schemas = components['schemas']
type User = Pick<Schemas['simple-user'], 'login' | 'id' | 'type'>

/** The fields of GitHub's answers that matter here, as its API description has them. */
export type Comment = Pick<
  Schemas['issue-comment'],
  'id' | 'node_id' | 'html_url' | 'created_at' | 'updated_at' | 'author_association'
> & { body: string; user: User }
export type PullRequest = Pick<
  Schemas['pull-request-simple'],
  'number' | 'state' | 'title' | 'merged_at' | 'merge_commit_sha'
> & {
  head: Pick<Schemas['pull-request-simple']['head'], 'label' | 'ref' | 'sha'>
  base: { repo: Pick<Schemas['pull-request']['base']['repo'], 'private'> }
  user: User
}
export type File = Pick<Schemas['diff-entry'], 'filename' | 'sha' | 'status'>
export type Review = Pick<Schemas['pull-request-review'], 'id' | 'state' | 'commit_id' | 'author_association'> & {
  user: User
}

/** A local HTTP server in GitHub's place, as far as the action leans on its API. */
export interface GitHub {
  url: string
  comments: Map<number, Comment[]>
  /** The pull requests that GitHub knows a commit of, by its sha. */
  pulls: Map<string, PullRequest[]>
  /** The pull requests that are proposed from a branch, by `owner:branch`. */
  proposed: Map<string, PullRequest[]>
  /** The files of a pull request, and its reviews, oldest first. */
  files: Map<number, File[]>
  reviews: Map<number, Review[]>
  /** Every request that came, as `METHOD path`. */
  requests: string[]
  /** Every text that the action has written into a comment. */
  written: string[]
  /** Answers some requests with an error, or never; by default none. */
  fails: (method: string, path: string) => number | 'never' | undefined
  /** Adds a comment as somebody else would. */
  add(pullRequest: number, login: string, body: string): Comment
  /** Throws when the action asked for what it must not lean on. */
  stop(): Promise<void>
}

export const bot = 'github-actions[bot]'

export const pullRequest = (number: number, change: Partial<PullRequest> = {}): PullRequest => ({
  number,
  state: 'open',
  title: `Change number ${number}`,
  merged_at: null,
  merge_commit_sha: null,
  head: { label: 'acme:feature', ref: 'feature', sha: 'a'.repeat(40) },
  base: { repo: { private: false } },
  user: { login: 'author', id: 1, type: 'User' },
  ...change,
})

/** Starts it; `root` is where its API begins, such as /api/v3 on GitHub Enterprise Server. */
export async function startGitHub({ root = '', graphql = '/graphql' } = {}): Promise<GitHub> {
  const strange: string[] = []
  let ids = 100
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', github.url)
    const { method = 'GET' } = request
    const asked = `${method} ${pathname}`
    github.requests.push(asked)
    const sent = await read(request)
    const answer = (status: number, body: unknown, headers: Record<string, string> = {}) =>
      response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', ...headers }).end(json(body))
    const failure = github.fails(method, pathname)
    if (failure === 'never') return
    if (failure) return answer(failure, { message: messages[failure] ?? 'Server Error', status: String(failure) })
    if (request.headers.authorization !== 'token ghs_standin') return answer(401, { message: 'Bad credentials' })
    if (asked === `POST ${graphql}` && JSON.parse(sent).query === 'query { viewer { login } }')
      return answer(200, { data: { viewer: { login: bot } } })

    const path = pathname.startsWith(`${root}/repos/acme/shop/`) ? pathname.slice(`${root}/repos/acme/shop`.length) : ''
    const issue = Number(/^\/issues\/(\d+)\/comments$/.exec(path)?.[1])
    const comment = Number(/^\/issues\/comments\/(\d+)$/.exec(path)?.[1])
    const commit = /^\/commits\/([0-9a-f]{40})\/pulls$/.exec(path)?.[1]
    if (issue && method === 'GET') {
      const all = github.comments.get(issue) ?? []
      const size = Number(searchParams.get('per_page') ?? 30)
      const page = Number(searchParams.get('page') ?? 1)
      const next = `<${github.url}${pathname}?per_page=${size}&page=${page + 1}>; rel="next"`
      return answer(200, all.slice((page - 1) * size, page * size), page * size < all.length ? { link: next } : {})
    }
    if ((issue && method === 'POST') || (comment && method === 'PATCH')) {
      const { body, ...rest } = JSON.parse(sent) as { body: string }
      if (Object.keys(rest).length > 0) strange.push(`${asked} with ${Object.keys(rest)}`)
      // So GitHub answers.
      if (body.length > 65_536) {
        const error = { resource: 'IssueComment', code: 'unprocessable', field: 'data' }
        const message = 'Body is too long (maximum is 65536 characters)'
        return answer(422, { message: 'Validation Failed', errors: [{ ...error, message }] })
      }
      github.written.push(body)
      if (issue) return answer(201, github.add(issue, bot, body))
      const found = [...github.comments.values()].flat().find(each => each.id === comment)
      if (!found) return answer(404, { message: 'Not Found' })
      if (found.user.login !== bot) return answer(403, { message: 'Resource not accessible by integration' })
      found.body = body
      return answer(200, found)
    }
    const pull = /^\/pulls\/(\d+)(\/files|\/reviews)?$/.exec(path)
    if (pull && method === 'GET') {
      const number = Number(pull[1])
      if (pull[2] === '/files') return answer(200, github.files.get(number) ?? [])
      if (pull[2] === '/reviews') return answer(200, github.reviews.get(number) ?? [])
      const found = [...github.pulls.values()].flat().find(each => each.number === number)
      return found ? answer(200, found) : answer(404, { message: 'Not Found' })
    }
    if (commit && method === 'GET') return answer(200, github.pulls.get(commit) ?? [])
    if (asked === `GET ${root}/repos/acme/shop/pulls`)
      return answer(200, github.proposed.get(searchParams.get('head') ?? '') ?? [])
    strange.push(asked)
    answer(404, { message: 'Not Found' })
  })
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  const github: GitHub = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    comments: new Map(),
    pulls: new Map(),
    proposed: new Map(),
    files: new Map(),
    reviews: new Map(),
    requests: [],
    written: [],
    fails: () => undefined,
    add(number, login, body) {
      const id = ++ids
      const now = new Date(0).toISOString()
      const added: Comment = {
        id,
        node_id: `IC_${id}`,
        html_url: `https://github.com/acme/shop/pull/${number}#issuecomment-${id}`,
        body,
        user: { login, id: login.length, type: login.endsWith('[bot]') ? 'Bot' : 'User' },
        created_at: now,
        updated_at: now,
        author_association: 'NONE',
      }
      github.comments.set(number, [...(github.comments.get(number) ?? []), added])
      return added
    },
    async stop() {
      server.closeAllConnections()
      await new Promise(done => server.close(done))
      if (strange.length > 0) throw new Error(`The action asked GitHub for more than it may: ${strange.join(', ')}`)
    },
  }
  return github
}

const messages: Record<number, string> = {
  401: 'Bad credentials',
  403: 'Resource not accessible by integration',
  404: 'Not Found',
}

const json = (body: unknown): string => JSON.stringify(body)

async function read(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
