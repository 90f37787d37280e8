import { existsSync, mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query } from '../support/postgres.mts'
import { type ProjectOptions, python, writeProject } from '../support/project.mts'
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

describe('Output without an end, or without a line end:', () => {
  test('700 MB in one line on either of the outputs: cut with a count, in little memory, and applied', async () => {
    const line = (where: string) => `head -c 700000000 /dev/zero${where}; echo${where}`
    const inputs = { mode: 'apply', python: `sh -c '${line('')}; ${line(' >&2')}; exec "$0" "$@"' ${python}` }
    const peak = mkdtempSync(join(tmpdir(), 'atomic-upgrade-peak-'))
    // Node's own words at the end of the process; the kernel's measure is in KiB.
    const measure = `import { writeFileSync } from 'node:fs'; process.on('exit', () => writeFileSync('${peak}/rss', String(process.resourceUsage().maxRSS)))`
    const environment = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(measure)}` }
    const step = await start(project('print("as ever")'), url, inputs, { environment })
    expectApplied(step)
    expect(step.log).toContain('as ever')
    expect(step.log.match(/ … \(700000000 bytes\)$/gm)).toHaveLength(2)
    expect(step.log.length).toBeLessThan(100_000)
    expect(Number(readFileSync(join(peak, 'rss'), 'utf8')) / 1024).toBeLessThan(400)
  })

  test('for ever, from threads, with lines and without, and what is no text: the batch is applied all the same', async () => {
    const forever = (bytes: string) => `
def forever():
    while True:
        os.write(1, ${bytes})
threading.Thread(target=forever, daemon=True).start()`
    const garbage = 'os.write(1, b"\\xff\\xfe\\x80\\xc3" * 10_000_000)'
    const script = `import atexit, os, threading\natexit.register(os.write, 1, b"goodbye")\n${garbage}${forever('b"x" * 10_000')}${forever('b"line\\n"')}`
    const step = await start(project(script), url, { mode: 'apply' })
    expectApplied(step)
    expect(step.log.length).toBeLessThan(1_000_000)
  })
})

test('a statement that is too long to be shown is no reason against it', async () => {
  const scripts = [
    { id: 'a1', upgrade: 'op.execute("CREATE TABLE t (n int)")' },
    { id: 'b2', upgrade: `op.execute("INSERT INTO t VALUES (length('" + "é" * 12_000_000 + "'))")` },
    { id: 'c3', upgrade: 'op.execute("INSERT INTO t VALUES (1)")' },
  ]
  const step = await start(writeProject({ scripts }), url, { mode: 'apply' })
  expect(step.outputs, step.log.slice(-5_000)).toMatchObject({ outcome: 'applied', 'new-head': 'c3', 'sql-file': '' })
  expect(step.log).toContain(
    'b2 b2 (migrations/versions/b2.py): not rendered, one of its statements is longer than 64 MB',
  )
  expect(step.summary).toContain('one of its statements is longer than 64 MB')
  expect((await query(url, 'SELECT n FROM t ORDER BY n')).rows).toEqual([{ n: 1 }, { n: 12_000_000 }])
})

describe('Words in the driver’s own channel that are not the driver’s:', () => {
  const channel = 'from atomic_upgrade.channel import channel\nimport os\n'
  const raw = (text: string) =>
    `${channel}os.write(channel.output.fileno(), b"\\n" + channel.nonce.encode() + ${text})\n`
  const words: Record<string, string> = {
    'no JSON': raw('b"{broken \\xff\\x00\\n"'),
    'another shape': `${channel}channel.send(loaded={"revisions": [{}], "heads": "x"}, revision={"bind": 1}, planned=[])\n`,
    'an answer out of turn': `${channel}channel.send(read=[])\n`,
    'a failure of a kind that there is not': `${channel}channel.send(failed={"kind": "applied", "message": "x"})\n`,
    'a flood of answers': `${channel}for _ in range(25):\n    channel.send(statement={"sql": "x" * 10_000_000, "line": None, "own": False})\n`,
  }
  async function beforehand(words: string): Promise<void> {
    const step = await start(project('pass', { app: words }), url, { mode: 'apply' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'render-failed' })
    expect(step.exitCode).toBe(1)
    await expectNoticed(step)
  }
  async function meanwhile(words: string): Promise<void> {
    const script = `op.execute("CREATE TABLE u (n int)")\n${words}`
    const step = await start(project(script), url, { mode: 'apply' })
    expect(step.outputs, step.log).toMatchObject({
      outcome: 'rolled-back',
      'failure-reason': 'migration-failed',
      'new-head': '',
    })
    await expectNoticed(step)
  }
  async function expectNoticed(step: Step): Promise<void> {
    expect(step.log).toContain('Python said something in the driver’s place')
    expect(await contents(url)).toBe(before)
    expect(await leftovers(url)).toEqual([])
  }
  // Read in one place: the first words at both times, the others in turns.
  test.each(Object.entries(words).map(([name, text], at) => [name, text, at] as const))('%s', async (_, text, at) => {
    if (at === 0 || at % 2 === 1) await beforehand(text)
    if (at % 2 === 0) await meanwhile(text)
  })

  test.each([
    ['a revision that is not the next one', 'channel.send(revision={"bind": "default", "id": "a1"})'],
    ['that the batch has run, when it has not', 'channel.send(ran=True)\nimport time\ntime.sleep(600)'],
    ['a line that is longer than any answer', 'channel.send(ran="x" * 110_000_000)'],
  ])('%s', async (_, words) => {
    const step = await start(project(channel + words), url, { mode: 'apply' })
    expect(step.outputs, step.log).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'migration-failed' })
    expect(await contents(url)).toBe(before)
  })
})

describe('When the action is killed, Python ends, whatever it does, and what it has started:', () => {
  const ignoring =
    'for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n    signal.signal(each, signal.SIG_IGN)\n'
  const doings: Record<string, [script: string, python: string]> = {
    'it sleeps, in a shell': ['time.sleep(600)', `sh -c '"$0" "$@"; true' ${python}`],
    'it computes without a break, in C': ['sum(range(10**12))', python],
    'it has forked, and heeds no signal': [`${ignoring}os.fork()\nwhile True:\n    time.sleep(1)`, python],
  }
  test.each(Object.entries(doings))('%s', async (_, [doing, command]) => {
    const [own, child] = [processFile(), processFile()]
    const script = `
import os, signal, subprocess, sys, time
op.execute("CREATE TABLE u (n int)")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("${child.path}", "w").write(str(child.pid))
open("${own.path}.new", "w").write(str(os.getpid()))
os.rename("${own.path}.new", "${own.path}")
${doing}`
    let action = 0
    const inputs = { mode: 'apply', comment: 'false', python: command }
    const running = start(project(script), url, inputs, { started: pid => (action = pid) })
    while (!existsSync(own.path)) await pause(50)
    expect([own.runs(), child.runs()]).toEqual([true, true])
    process.kill(action, 'SIGKILL')
    await running
    while (own.runs() || child.runs()) await pause(50)
    while ((await leftovers(url)).length > 0) await pause(50)
    expect(await contents(url)).toBe(before)
    if (command === python) return
    expectApplied(await start(project('pass'), url, { mode: 'apply', comment: 'false' }))
  })

  test('and while the action lives, what a script starts and waits for is its own', async () => {
    const step = await start(
      project(`
import multiprocessing, os, threading
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
if os.fork() == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
try:
    os.wait()
except ChildProcessError:
    op.execute("INSERT INTO t VALUES (%d)" % threading.active_count())`),
      url,
      { mode: 'apply' },
    )
    expectApplied(step)
    expect((await query(url, 'SELECT n FROM t')).rows).toEqual([{ n: 1 }])
  })
})
