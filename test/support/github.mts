import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Comment {
  id: number
  body: string
  user: { login: string }
  html_url: string
}

/** A local HTTP server in GitHub's place, as far as the action leans on its API. */
export interface GitHub {
  url: string
  comments: Map<number, Comment[]>
  /** The pull requests of a commit, by its sha. */
  pulls: Map<string, { number: number; merged_at: string | null; merge_commit_sha: string }[]>
  /** Every request that came, as `METHOD path`. */
  requests: string[]
  /** Answers some requests with an error; by default none. */
  fails: (method: string, path: string) => number | undefined
  /** Adds a comment as somebody else would. */
  add(pullRequest: number, login: string, body: string): Comment
  stop(): Promise<void>
}

export const bot = 'github-actions[bot]'

export async function startGitHub(): Promise<GitHub> {
  let ids = 100
  const server = createServer(async (request, response) => {
    const url = new URL(request.url ?? '/', github.url)
    const { method = 'GET' } = request
    github.requests.push(`${method} ${url.pathname}`)
    const answer = (status: number, body: unknown, headers: Record<string, string> = {}) =>
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
    const failure = github.fails(method, url.pathname)
    const sent = await read(request)
    if (failure)
      return answer(failure, { message: failure === 403 ? 'Resource not accessible by integration' : 'Failed' })
    if (url.pathname === '/graphql') return answer(200, { data: { viewer: { login: bot } } })
    const issue = /^\/repos\/acme\/shop\/issues\/(\d+)\/comments$/.exec(url.pathname)?.[1]
    const comment = /^\/repos\/acme\/shop\/issues\/comments\/(\d+)$/.exec(url.pathname)?.[1]
    const commit = /^\/repos\/acme\/shop\/commits\/(\w+)\/pulls$/.exec(url.pathname)?.[1]
    if (issue && method === 'GET') {
      const all = github.comments.get(Number(issue)) ?? []
      const size = Number(url.searchParams.get('per_page') ?? 30)
      const page = Number(url.searchParams.get('page') ?? 1)
      const more = page * size < all.length
      const next = `<${github.url}${url.pathname}?per_page=${size}&page=${page + 1}>; rel="next"`
      return answer(200, all.slice((page - 1) * size, page * size), more ? { link: next } : {})
    }
    if (issue && method === 'POST') return answer(201, github.add(Number(issue), bot, body(sent)))
    if (comment && method === 'PATCH') {
      const found = [...github.comments.values()].flat().find(each => each.id === Number(comment))
      if (!found) return answer(404, { message: 'Not Found' })
      found.body = body(sent)
      return answer(200, found)
    }
    if (commit) return answer(200, github.pulls.get(commit) ?? [])
    if (url.pathname === '/repos/acme/shop/pulls') {
      const open = [...github.pulls].flatMap(([sha, pulls]) => pulls.map(pull => ({ ...pull, head: { sha } })))
      return answer(200, open)
    }
    answer(404, { message: 'Not Found' })
  })
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  const github: GitHub = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    comments: new Map(),
    pulls: new Map(),
    requests: [],
    fails: () => undefined,
    add(pullRequest, login, text) {
      const id = ++ids
      const html_url = `https://github.com/acme/shop/pull/${pullRequest}#issuecomment-${id}`
      const added = { id, body: text, user: { login }, html_url }
      github.comments.set(pullRequest, [...(github.comments.get(pullRequest) ?? []), added])
      return added
    },
    stop: () => new Promise(done => server.close(() => done())),
  }
  return github
}

/** GitHub refuses a comment of more than 65,536 characters. */
function body(sent: string): string {
  const { body: text } = JSON.parse(sent) as { body: string }
  if (text.length > 65_536) throw new Error('Body is too long (maximum is 65536 characters)')
  return text
}

async function read(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
