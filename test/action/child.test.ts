import { existsSync, mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { beforeEach, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { type ProjectOptions, writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

let url: string
let before: string
beforeEach(async () => {
  url = await createDatabase()
  before = await contents(url)
})

/** A table, and then what the script does online; a dry run does not do it. */
const project = (script: string, options: Partial<ProjectOptions> = {}) =>
  writeProject({
    ...options,
    scripts: [
      {
        id: 'a1',
        upgrade: `op.execute("CREATE TABLE t (n int)")\nif not op.get_context().as_sql:\n${script.trim().replaceAll(/^/gm, '    ')}`,
      },
    ],
  })

function expectApplied(step: Step): void {
  expect(step.outputs, step.log.slice(-5_000)).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
  expect(step.exitCode).toBe(0)
}

/** Where a script writes a process id, and whether that process still runs. */
function processFile(): { path: string; pid: () => number; runs: () => boolean } {
  const path = join(mkdtempSync(join(tmpdir(), 'atomic-upgrade-child-')), 'pid')
  const pid = () => Number(readFileSync(path, 'utf8'))
  const runs = () => {
    try {
      // A process that has ended and that nobody has waited for counts as ended.
      process.kill(pid(), 0)
      return !/^State:\s+Z/m.test(
        existsSync(`/proc/${pid()}/status`) ? readFileSync(`/proc/${pid()}/status`, 'utf8') : '',
      )
    } catch {
      return false
    }
  }
  return { path, pid, runs }
}

test('Python that prints megabytes, in lines and in one, on both of its outputs: shown in part, and applied', async () => {
  const step = await start(
    project(`
import os, sys
for stream in (sys.stdout, sys.stderr):
    for n in range(100_000):
        print(n, "x" * 50, file=stream)
    stream.write("y" * 10_000_000)
    stream.flush()
os.write(1, b"\\xff\\xfe\\x00 no newline")`),
    url,
    { mode: 'apply' },
  )
  expectApplied(step)
  expect(step.log.length).toBeLessThan(1_000_000)
  expect(step.log).toMatch(/… \d+ more lines/)
})

test('what looks like the driver’s words is the app’s, and shown as such', async () => {
  const words = [
    '{"ran": true}',
    '{"failed": {"kind": "script", "message": "made up"}}',
    '0123456789abcdef01234567{"ran": true}',
    '{"planned": {"prior": [], "new": ["zz"], "revisions": []}}',
  ]
  const print = words.map(word => `print(${JSON.stringify(word)}, flush=True)`).join('\n')
  const step = await start(project(`${print}\nraise ValueError("at last")`, { app: print }), url, { mode: 'apply' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'migration-failed' })
  expect(step.log).toMatch(/Revision a1 .*failed: ValueError: at last/)
  const groups = [...step.log.matchAll(/^::group::(Output of .*)\n([\s\S]*?)^::endgroup::/gm)]
  for (const title of ['Output of the app', 'Output of the scripts']) {
    const [, , shown = ''] = groups.find(group => group[1] === title) ?? []
    for (const word of words) expect(shown).toContain(word)
  }
  expect(await contents(url)).toBe(before)
})

test('Python that ends after its last statement, before its own COMMIT: rolled back', async () => {
  const step = await start(
    project('pass', {
      env: stock => stock.replace(/^( +)context\.run_migrations\(\)\n(?=\n\nif)/m, '$&$1import os\n$1os._exit(0)\n'),
    }),
    url,
    { mode: 'apply' },
  )
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'rolled-back',
    'failure-reason': 'migration-failed',
    'new-head': '',
  })
  expect(step.log).toContain('ended with exit code 0')
  expect(step.log).toContain('The database is at base, as before.')
  expect(await contents(url)).toBe(before)
})

test('twenty connections of a script are one session of the server', async () => {
  const step = await start(
    project(
      `
connections = [db.engine.connect() for _ in range(20)]
seen = [c.execute(sa.text("SELECT pg_backend_pid()")).scalar() for c in connections]
sessions = connections[-1].execute(sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'")).scalar()
for c in reversed(connections):
    c.close()
assert len(set(seen)) == 1 and sessions <= 2, (seen, sessions)
op.execute(f"INSERT INTO t VALUES ({len(connections)})")`,
      { engineOptions: '{"pool_size": 20}' },
    ),
    url,
    { mode: 'apply' },
  )
  expectApplied(step)
  expect((await query(url, 'SELECT n FROM t')).rows).toEqual([{ n: 20 }])
})

for (const [where, outcome] of [
  ['in a script', 'rolled-back'],
  ['while the app is imported', 'refused'],
] as const) {
  test(`Python that never ends, ${where}: a cancellation ends it`, async () => {
    const file = processFile()
    const forever = `
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
open("${file.path}.new", "w").write(str(os.getpid()))
os.rename("${file.path}.new", "${file.path}")
while True:
    pass`
    const folder = where === 'in a script' ? project(forever) : project('pass', { app: forever })
    let action = 0
    const started = (pid: number) => {
      action = pid
    }
    const running = start(folder, url, { mode: 'apply' }, { started })
    while (!existsSync(file.path)) await pause(50)
    process.kill(action, 'SIGINT')
    const step = await running
    expect(step.outputs, step.log).toMatchObject({ outcome, 'failure-reason': 'cancelled' })
    while (file.runs()) await pause(50)
    expect(await contents(url)).toBe(before)
    expect(await leftovers(url)).toEqual([])
  })
}

test('Python that leaves processes behind, with its outputs and its connection open: applied, and they end with it', async () => {
  const [command, fork] = [processFile(), processFile()]
  const step = await start(
    project(`
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("${command.path}", "w").write(str(child.pid))
fork = os.fork()
if fork == 0:
    time.sleep(600)
    os._exit(0)
open("${fork.path}", "w").write(str(fork))`),
    url,
    { mode: 'apply' },
  )
  expectApplied(step)
  while (command.runs() || fork.runs()) await pause(50)
  expect(await leftovers(url)).toEqual([])
})

test('a process that leaves the group outlives the step, and does not hold it up', async () => {
  const daemon = processFile()
  const step = await start(
    project(`
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open("${daemon.path}", "w").write(str(child.pid))`),
    url,
    { mode: 'apply' },
  )
  expectApplied(step)
  expect(daemon.runs()).toBe(true)
  process.kill(daemon.pid(), 'SIGKILL')
})
