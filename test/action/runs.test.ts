import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { query } from '../support/postgres.mts'
import { python, writeProject } from '../support/project.mts'

test('an app that lets no second one run beside it has each run to itself', async () => {
  const url = await createDatabase()
  const app = `import fcntl
lock = open("app.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)`
  const folder = writeProject({ scripts: [{ id: 'a1', upgrade: 'op.execute("CREATE TABLE t (n int)")' }], app })
  const step = await start(folder, url, { mode: 'apply', comment: 'false' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
  expect((await query(url, 'SELECT FROM t')).rowCount).toBe(0)
})

test('what the app prints is told once, though it is loaded for each run', async () => {
  const url = await createDatabase()
  const app = 'print("the app is here")'
  const folder = writeProject({ scripts: [{ id: 'a1', upgrade: 'pass' }], app })
  const step = await start(folder, url, { mode: 'apply', comment: 'false' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied' })
  expect(step.log.match(/the app is here/g)).toHaveLength(1)
})

const scripts = [{ id: 'a1', upgrade: 'op.execute("CREATE TABLE t (n int)")' }]

describe('What an app takes while it is imported, and has until Python ends, is free for the next run:', () => {
  test.each([
    [
      'a lock that is waited for without end',
      'import fcntl\nlock = open("app.lock", "w")\nfcntl.flock(lock, fcntl.LOCK_EX)',
    ],
    [
      'a file that is removed at exit',
      'import atexit\nos.close(os.open("app.pid", os.O_CREAT | os.O_EXCL))\natexit.register(os.remove, os.path.abspath("app.pid"))',
    ],
  ])('%s', async (_, app) => {
    const url = await createDatabase()
    const step = await start(writeProject({ scripts, app }), url, { mode: 'apply', comment: 'false' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
  })

  test('in another try as well', async () => {
    const url = await createDatabase()
    const app = 'import fcntl\nlock = open("app.lock", "w")\nfcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)'
    const upgrade = `
import os
if not op.get_context().as_sql and not os.path.exists("tried"):
    open("tried", "w").close()
    op.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")`
    const folder = writeProject({ scripts: [{ id: 'a1', upgrade }], app })
    const step = await start(folder, url, { mode: 'apply', comment: 'false' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
    expect(step.log).toContain('Try 1 of 4 was rolled back')
  })
})

describe('A Python that is changed before the first import:', () => {
  const changed = (customized: string) => {
    const folder = writeProject({ scripts })
    mkdirSync(join(folder, 'site'))
    writeFileSync(join(folder, 'site', 'sitecustomize.py'), customized)
    return [folder, { environment: { PYTHONPATH: join(folder, 'site') } }] as const
  }
  test.each([
    ['sockets have a timeout', 'import socket\nsocket.setdefaulttimeout(2)'],
    ['connections are forbidden', 'import socket\ndef no(*_): raise OSError("no")\nsocket.create_connection = no'],
    ['no process can be forked', 'import os\ndef no(): raise BlockingIOError(11, "no")\nos.fork = no'],
  ])('%s', async (_, customized) => {
    const url = await createDatabase()
    const [folder, options] = changed(customized)
    const step = await start(folder, url, { mode: 'apply', comment: 'false' }, options)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
  })

  test('a preview needs no network', async () => {
    const [folder, options] = changed(`import _socket
class Nowhere(_socket.socket):
    __slots__ = ()
    def connect(self, address):
        raise OSError(101, "Network is unreachable")
_socket.socket = Nowhere`)
    const step = await start(folder, '', { 'from-revision': 'base', comment: 'false' }, options)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'previewed', 'new-head': 'a1' })
  })
})

describe('A command that starts Python', () => {
  const command = (folder: string, script: string) => {
    const path = join(folder, 'wrapper')
    writeFileSync(path, `#!/bin/sh\n${script}\n`)
    chmodSync(path, 0o755)
    return `${path} ${python}`
  }

  test('and fails has its words in the log', async () => {
    const folder = writeProject({ scripts })
    const inputs = {
      mode: 'apply',
      comment: 'false',
      python: command(folder, 'echo the lock file is stale >&2\nexit 3'),
    }
    const step = await start(folder, await createDatabase(), inputs)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'render-failed' })
    expect(step.log).toMatch(/^the lock file is stale$/m)
  })

  test('and has not come so far yet is ended by a cancellation', async () => {
    const folder = writeProject({ scripts })
    const inputs = { mode: 'apply', comment: 'false', python: command(folder, 'touch begun\nsleep 600\nexec "$@"') }
    let action = 0
    const running = start(folder, await createDatabase(), inputs, { started: pid => (action = pid) })
    while (!existsSync(join(folder, 'begun'))) await pause(50)
    // All else is done by then, and Python is what is waited for.
    await pause(1_500)
    process.kill(action, 'SIGINT')
    const step = await running
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'cancelled' })
  })
})
