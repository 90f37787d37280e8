import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, inject, test } from 'vitest'
import { createDatabase, seedProject, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { superuser } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

let url: string
beforeAll(async () => {
  url = await createDatabase()
})

/** One clear error, the right words in the outputs, and nothing that a reader should not see. */
function expectRefused(step: Step, reason: string, ...words: (string | RegExp)[]): void {
  expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': reason })
  expect(step.exitCode).toBe(1)
  const errors = step.commands.filter(({ name }) => name === 'error')
  expect(errors).toHaveLength(1)
  for (const word of words) expect(errors[0]!.text).toMatch(word)
  const shown = step.log.replaceAll(/^::add-mask::.*$/gm, '')
  expect(shown).not.toMatch(/Traceback|^\s+at .*\.js:\d+/m)
  for (const form of [superuser.password, encodeURIComponent(superuser.password)]) {
    expect(shown).not.toContain(form)
    expect(step.summary).not.toContain(form)
  }
}

for (const mode of ['preview', 'apply']) {
  describe(`mode: ${mode}`, () => {
    const attempt = (inputs: Record<string, string>, workspace = seedProject, database = url) =>
      start(workspace, database, { mode, ...inputs })

    test('a broken URL', async () => {
      expectRefused(
        await attempt({}, seedProject, 'localhost/shop'),
        'invalid-input',
        /database-url: this is not a URL/,
      )
      const mysql = 'mysql://root:hunter2hunter2@localhost/shop'
      const step = await attempt({}, seedProject, mysql)
      expectRefused(step, 'invalid-input', /scheme mysql is not PostgreSQL/)
      expect(step.log).not.toContain('hunter2')
    })

    test('Python is missing', async () => {
      expectRefused(
        await attempt({ python: 'python-of-nowhere' }),
        'render-failed',
        /“python-of-nowhere” was not found/,
      )
    })

    test('no app', async () => {
      const empty = mkdtempSync(join(tmpdir(), 'atomic-upgrade-empty-'))
      expectRefused(await attempt({}, empty), 'render-failed', /Flask app was not found/)
      expectRefused(await attempt({ 'flask-app': 'nowhere:app' }), 'render-failed', /nowhere/)
    })

    test('an app, an env.py and a script that cannot be imported', async () => {
      const scripts = [{ id: 'a1', upgrade: 'pass' }]
      const app = writeProject({ scripts, app: 'import no_such_module' })
      expectRefused(await attempt({}, app), 'render-failed', /No module named 'no_such_module'/)
      const eager = writeProject({ scripts, app: 'with app.app_context():\n    db.create_all()' })
      expectRefused(await attempt({}, eager), 'render-failed', /connects to the database while it is imported/)
      const env = writeProject({ scripts, env: stock => `${stock}\nraise ValueError("env is broken")` })
      const step = await attempt({}, env)
      expectRefused(step, 'render-failed', /ValueError: env is broken/)
      expect(step.commands.find(({ name }) => name === 'error')!.properties.file).toBe('migrations/env.py')
      const script = writeProject({ scripts: [{ id: 'a1', upgrade: 'this is broken(' }] })
      expectRefused(await attempt({}, script), 'render-failed', /SyntaxError/)
    })

    test('an unreachable server', async () => {
      const nowhere = url.replace(/:\d+\//, ':9/')
      expectRefused(
        await attempt({}, seedProject, nowhere),
        'connection-failed',
        /ECONNREFUSED/,
        /that the server is up/,
      )
    })

    test('a wrong password, an unknown database, TLS that the server has not', async () => {
      const wrong = url.replace(encodeURIComponent(superuser.password), 'not-the-password')
      const step = await attempt({}, seedProject, wrong)
      expectRefused(step, 'connection-failed', /password authentication failed/, /Check user and password/)
      expect(step.log.replaceAll(/^::add-mask::.*$/gm, '')).not.toContain('not-the-password')
      const unknown = await attempt({}, seedProject, url.replace(/\/\w+$/, '/no_such_database'))
      expectRefused(unknown, 'connection-failed', /no_such_database/)
      const tls = await attempt({}, seedProject, `${url}?sslmode=require`)
      expectRefused(tls, 'connection-failed', /TLS switched off/)
    })

    test('an unknown revision, and a head that the scripts do not have', async () => {
      expectRefused(
        await attempt({ revision: 'abc123' }),
        'unknown-revision',
        /Can't locate revision identified by 'abc123'/,
      )
      const other = await createDatabase()
      await start(writeProject({ scripts: [{ id: 'f00d', upgrade: 'pass' }] }), other, { mode: 'apply' })
      const before = await contents(other)
      const step = await attempt({}, seedProject, other)
      expectRefused(step, 'unknown-revision', /f00d/, /checkout/)
      expect(step.outputs).toMatchObject({ 'prior-head': 'f00d', 'new-head': 'f00d' })
      expect(await contents(other)).toBe(before)
    })

    test('several heads where one is asked for', async () => {
      const forked = writeProject({
        scripts: [
          { id: 'a1', upgrade: 'pass' },
          { id: 'b1', down: 'a1', upgrade: 'pass' },
          { id: 'b2', down: 'a1', upgrade: 'pass' },
        ],
      })
      expectRefused(await attempt({}, forked), 'multiple-heads', /Multiple head revisions/)
    })
  })
}

test('an unknown mode, and all mistakes together', async () => {
  expectRefused(
    await start(seedProject, url, { mode: 'aply' }),
    'invalid-input',
    /mode is “aply”; it can be preview, rehearse or apply/,
  )
  const step = await start(seedProject, '', { mode: 'apply', direction: 'sideways', 'from-revision': 'base' })
  expectRefused(
    step,
    'invalid-input',
    /direction is “sideways”/,
    /from-revision is only for mode: preview/,
    /database-url is missing/,
  )
})

test('a timeout that is none', async () => {
  expectRefused(
    await start(seedProject, url, { mode: 'apply', 'lock-timeout': 'soon' }),
    'invalid-input',
    /lock-timeout: “soon”/,
  )
})

test('a read-only database is somebody’s guard', async () => {
  const step = await start(seedProject, `${url}?options=-cdefault_transaction_read_only%3Don`, { mode: 'apply' })
  expectRefused(step, 'not-permitted', /read-only/)
  const preview = await start(seedProject, `${url}?options=-cdefault_transaction_read_only%3Don`, {})
  expect(preview.outputs.outcome).toBe('previewed')
})

test('nothing is left of any refusal', async () => {
  expect(await contents(url)).toBe(await contents(await createDatabase()))
  expect(inject('postgres')).toBeTruthy()
})
