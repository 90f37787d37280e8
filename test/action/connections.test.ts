import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { secondProject, start } from '../support/action.mts'
import { issue } from '../support/certificates.mts'
import { contents } from '../support/database.mts'
import { query, type Server, startServer } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

const applied = { outcome: 'applied', 'failure-reason': '', 'new-head': 'b7e0aa41d9c3' }

function expectRefused(step: Step, reason: string, ...words: (string | RegExp)[]): void {
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': reason })
  expect(step.exitCode).toBe(1)
  const errors = step.commands.filter(({ name }) => name === 'error')
  expect(errors).toHaveLength(1)
  for (const word of words) expect(errors[0]!.text).toMatch(word)
}

/** Everything that can go wrong between a password and a server: shells, URLs, SQL, libpq, JSON, SASLprep. */
const awkward = `p@ss:w/o?r#d% %41+&=;,'"\\\`$(x){y}[z]<>|^~!* é€`

let server: Server
let url: string
let databases = 0
const { authority, server: certified } = issue('localhost')

beforeAll(async () => {
  server = await startServer([`listen_addresses = '127.0.0.1,::1'`, 'ssl = on', 'max_connections = 10'], {
    'server.crt': certified.certificate,
    'server.key': certified.key,
    // Everybody may come as they like, but for one who has to use TLS.
    'pg_hba.conf':
      'hostssl all careful all scram-sha-256\nhost all careful all reject\nlocal all all scram-sha-256\nhost all all all scram-sha-256\n',
  })
  for (const role of ['careful', 'awkward'])
    await query(server.url('postgres'), `CREATE ROLE ${role} LOGIN PASSWORD ${literal(awkward)}`)
})
afterAll(() => server.stop())
beforeEach(async () => {
  url = await server.create(`connections_${++databases}`)
  await query(url, 'GRANT CREATE ON SCHEMA public TO PUBLIC')
})

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
const as = (role: string) => server.url(new URL(url).pathname.slice(1), { user: role, password: awkward })

test('a password with every awkward character, and none of it in the log', async () => {
  const step = await start(secondProject, as('awkward'), { mode: 'apply' })
  expect(step.outputs, step.log).toMatchObject(applied)
  const shown = step.log.replaceAll(/^::add-mask::.*$/gm, '')
  for (const form of [awkward, encodeURIComponent(awkward)]) expect(shown + step.summary).not.toContain(form)
})

test('IPv6', async () => {
  const step = await start(secondProject, url.replace('127.0.0.1', '[::1]'), { mode: 'apply' })
  expect(step.outputs, step.log).toMatchObject(applied)
})

test('a Unix socket, as libpq and as SQLAlchemy write it', async () => {
  const folder = encodeURIComponent(server.socketDirectory)
  const asLibpq = url.replace(`127.0.0.1:${server.port}`, `${folder}:${server.port}`)
  const step = await start(secondProject, asLibpq, { mode: 'apply', revision: '3f1a9c07be21' })
  expect(step.outputs, step.log).toMatchObject({ ...applied, 'new-head': '3f1a9c07be21' })
  const asSqlAlchemy = `${url.replace(`127.0.0.1:${server.port}`, '')}?host=${folder}&port=${server.port}`
  expect((await start(secondProject, asSqlAlchemy, { mode: 'apply' })).outputs).toMatchObject(applied)
})

describe('TLS with a private CA', () => {
  const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-ca-'))
  const ca = join(folder, 'ca.pem')
  writeFileSync(ca, authority.certificate)
  const stranger = join(folder, 'stranger.pem')
  writeFileSync(stranger, issue('localhost').authority.certificate)
  const secured = (query: string, host = 'localhost') => `${as('careful').replace('127.0.0.1', host)}?${query}`

  test('verify-full: applied, by a role that may come with TLS only', async () => {
    const step = await start(secondProject, secured(`sslmode=verify-full&sslrootcert=${ca}`), { mode: 'apply' })
    expect(step.outputs, step.log).toMatchObject(applied)
  })

  test('without sslmode, TLS is used where the server has it', async () => {
    const step = await start(secondProject, secured(''), { mode: 'apply' })
    expect(step.outputs, step.log).toMatchObject(applied)
  })

  test('another host than the certificate’s, another CA, none, and no TLS at all: refused, with what to do', async () => {
    const before = await contents(url)
    const attempt = (query: string, host?: string) => start(secondProject, secured(query, host), { mode: 'apply' })
    const byAddress = await attempt(`sslmode=verify-full&sslrootcert=${ca}`, '127.0.0.1')
    expectRefused(byAddress, 'connection-failed', /127\.0\.0\.1/, /use the host name that is in its certificate/)
    const byStranger = await attempt(`sslmode=verify-full&sslrootcert=${stranger}`)
    expectRefused(byStranger, 'connection-failed', /certificate/, /sslrootcert=PATH/)
    expectRefused(await attempt('sslmode=verify-full'), 'connection-failed', /certificate/, /sslrootcert=PATH/)
    expectRefused(
      await attempt('sslmode=disable'),
      'connection-failed',
      /no encryption|pg_hba\.conf/,
      /sslmode=require/,
    )
    expect(await contents(url)).toBe(before)
  })
})

describe('max_connections', () => {
  const others: pg.Client[] = []
  /** Leaves so many connections to those who are not superusers; three are the superusers'. */
  const leave = async (free: number) => {
    while (others.length < 7 - free) {
      const other = new pg.Client({ connectionString: as('awkward'), ssl: false })
      others.push(other)
      await other.connect()
    }
  }
  const close = () => Promise.all(others.splice(0).map(other => other.end()))

  test('reached: refused, with what to do', async () => {
    await leave(0)
    const step = await start(secondProject, as('awkward'), { mode: 'apply' })
    await close()
    expectRefused(step, 'connection-failed', /reserved|too many/, /no free connection/)
  })

  test('one is enough, to apply and to fail and to read the heads again', async () => {
    await leave(1)
    const scripts = [{ id: 'a1', upgrade: 'op.execute("CREATE TABLE t (id int)")' }]
    const step = await start(writeProject({ scripts }), as('awkward'), { mode: 'apply' })
    const broken = [...scripts, { id: 'b2', upgrade: 'op.execute("SELECT 1 / 0")' }]
    const failed = await start(writeProject({ scripts: broken }), as('awkward'), { mode: 'apply' })
    await close()
    expect(step.outputs, step.log).toMatchObject({ ...applied, 'new-head': 'a1' })
    expect(step.log).toMatch(/No second connection: .*(reserved|too many)/)
    expect(step.log).not.toContain('not re-read')
    expect(failed.outputs, failed.log).toMatchObject({ outcome: 'rolled-back', 'prior-head': 'a1', 'new-head': 'a1' })
    expect(failed.log).not.toContain('not re-read')
  })
})

test('a real standby: previewed, and an apply is not permitted', async () => {
  const own = await startServer()
  try {
    const shop = await own.create('shop')
    await start(secondProject, shop, { mode: 'apply', revision: '3f1a9c07be21' })
    await own.crash()
    await own.restart({ standby: true })
    const heads = { 'prior-head': '3f1a9c07be21' }
    expect((await start(secondProject, shop, {})).outputs).toMatchObject({ outcome: 'previewed', ...heads })
    for (const mode of ['rehearse', 'apply']) {
      const step = await start(secondProject, shop, { mode })
      expectRefused(step, 'not-permitted', 'The server is a standby', 'Let database-url lead to the primary')
      expect(step.outputs).toMatchObject({ ...heads, 'new-head': '3f1a9c07be21' })
    }
  } finally {
    await own.stop()
  }
})
