import type { AddressInfo } from 'node:net'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { createDatabase, secondProject, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'

const commit = Buffer.from('COMMIT\0')
let proxy: Server
afterEach(() => proxy.close())

/**
 * A TCP proxy before PostgreSQL that cuts the connection at the COMMIT: before the server gets it, or when its answer
 * comes. With `gone`, nobody gets through any more after that.
 */
async function cutting(url: string, when: 'before' | 'after', { gone = false } = {}): Promise<string> {
  const { hostname, port } = new URL(url)
  let cut = false
  proxy = createServer(client => {
    if (cut && gone) return void client.destroy()
    const server = connect(Number(port), hostname)
    const both: Socket[] = [client, server]
    const end = () => {
      for (const socket of both) socket.destroy()
    }
    let asked = false
    client.on('data', chunk => {
      if (!cut && chunk.includes(commit)) {
        cut = asked = true
        if (when === 'before') return end()
      }
      server.write(chunk)
    })
    server.on('data', chunk => (asked ? end() : client.write(chunk)))
    for (const socket of both) socket.on('close', end).on('error', end)
  })
  await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
  return url.replace(`:${port}/`, `:${(proxy.address() as AddressInfo).port}/`)
}

test('the answer to the COMMIT is lost, and PostgreSQL has committed: applied', async () => {
  const url = await createDatabase()
  const step = await start(secondProject, await cutting(url, 'after'), { mode: 'apply' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'failure-reason': '', 'new-head': 'b7e0aa41d9c3' })
  expect(step.exitCode).toBe(0)
  expect(await contents(url)).toContain('b7e0aa41d9c3')
  expect(await leftovers(url)).toEqual([])
})

test('the COMMIT never arrives: rolled back, and a plain second run applies', async () => {
  const url = await createDatabase()
  const before = await contents(url)
  const step = await start(secondProject, await cutting(url, 'before'), { mode: 'apply' })
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'rolled-back',
    'failure-reason': 'commit-failed',
    'new-head': '',
  })
  expect(step.exitCode).toBe(1)
  expect(await contents(url)).toBe(before)
  expect((await start(secondProject, url, { mode: 'apply' })).outputs.outcome).toBe('applied')
})
