import { mkdtempSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents, leftovers } from '../support/database.mts'
import { query, superuser } from '../support/postgres.mts'
import { type ProjectOptions, type Script, writeProject } from '../support/project.mts'
import { severing } from '../support/proxy.mts'
import { root, type StepOptions } from '../support/runner.mts'

/**
 * What each situation gives. Every row is arranged anew for every mode, on a database that revision `a1` has run on and
 * a project whose next one is `b2`, unless the row says otherwise.
 */
interface Situation {
  /** Further inputs. */
  inputs?: Record<string, string>
  /** The project, when it is not the standard one. */
  project?: Partial<ProjectOptions>
  /** Where the step runs, when that is no project at all. */
  workspace?: () => string
  /** Done to the database beforehand; what it returns is the URL that the step gets, and what is to be done afterwards. */
  database?: (url: string) => Promise<{ url?: string; end?: () => void }>
  /** More about the step: its environment, or what to do once it runs. */
  options?: () => Partial<StepOptions>
  preview?: Ending
  apply?: Ending
}

interface Ending {
  outcome: string
  reason?: string
  /** `a1` unless said otherwise. */
  prior?: string
  new?: string
  /** Of the one error, or of the log where there is none. */
  words?: (string | RegExp)[]
  /** Outputs that are something else than in the other rows. */
  outputs?: Record<string, string>
}

const a1: Script = { id: 'a1', upgrade: 'op.execute("CREATE TABLE first (id int)")' }
const b2: Script = { id: 'b2', message: 'the second', upgrade: 'op.execute("CREATE TABLE second (id int)")' }
const then = (upgrade: string): Partial<ProjectOptions> => ({ scripts: [a1, { ...b2, upgrade }] })

const refused = (reason: string, ...words: (string | RegExp)[]): Ending => ({ outcome: 'refused', reason, words })
/** Refused before the database could be asked for its heads. */
const refusedBlind = (reason: string, ...words: (string | RegExp)[]): Ending => ({
  ...refused(reason, ...words),
  prior: '',
  new: '',
})
const rolledBack = (reason: string, ...words: (string | RegExp)[]): Ending => ({
  outcome: 'rolled-back',
  reason,
  words,
})
const previewed: Ending = { outcome: 'previewed', new: 'b2' }
const applied: Ending = { outcome: 'applied', new: 'b2' }
const both = (ending: Ending) => ({ preview: ending, apply: ending })

const asBefore = 'The database is at a1, as before.'
const withQuery = (more: string) => async (url: string) => ({ url: `${url}?${more}` })

/** A database in which that was done. */
const having = (sql: string) => async (url: string) => {
  await query(url, sql)
  return { url }
}

/** Another session that holds something until the step has ended. */
const holding = (sql: string) => async (url: string) => {
  const { default: pg } = await import('pg')
  const client = new pg.Client({ connectionString: url, application_name: 'somebody else' })
  await client.connect()
  await client.query(sql)
  return { end: () => void client.end() }
}

/** Interrupts the step as soon as its log says so. */
const interrupted = (at: RegExp) => (): Partial<StepOptions> => {
  let [pid, log] = [0, '']
  return {
    started: child => {
      pid = child
    },
    output: text => {
      log += text
      if (pid && at.test(log)) {
        process.kill(pid, 'SIGINT')
        pid = 0
      }
    },
  }
}

const situations: Record<string, Situation> = {
  'nothing to do': {
    project: { scripts: [a1] },
    ...both({ outcome: 'up-to-date', words: ['The database is at a1'] }),
  },

  // ── Bad input, no server, no right: told before the mode matters, so that the modes take turns ──
  'an unknown mode': {
    inputs: { mode: 'aply' },
    preview: refusedBlind('invalid-input', 'mode is “aply”; it can be preview, rehearse or apply'),
  },
  'several mistakes, told together': {
    inputs: { direction: 'sideways', 'pull-request': 'seven', retries: 'many', comment: 'maybe' },
    preview: refusedBlind(
      'invalid-input',
      'direction is “sideways”; it can be upgrade or downgrade',
      'pull-request is “seven”',
      'retries is “many”',
      'comment is “maybe”',
    ),
  },
  'a URL that is none': {
    database: async () => ({ url: 'localhost/shop' }),
    apply: refusedBlind('invalid-input', 'database-url: this is not a URL', 'Write postgresql://user:password@'),
  },
  'a URL of another kind of database': {
    database: async () => ({ url: 'mysql://root:hunter2hunter2@localhost/shop' }),
    preview: refusedBlind('invalid-input', 'the scheme mysql is not PostgreSQL’s'),
  },
  'no URL': {
    database: async () => ({ url: '' }),
    inputs: { 'from-revision': 'a1' },
    preview: previewed,
    apply: refusedBlind(
      'invalid-input',
      'database-url is missing; mode: apply needs it',
      'from-revision is only for mode: preview; mode is apply',
    ),
  },
  'a range as the target': {
    inputs: { revision: 'a1:b2' },
    apply: refusedBlind('invalid-input', 'name the target alone'),
  },
  'a timeout that is none': {
    inputs: { 'lock-timeout': 'soon' },
    preview: previewed,
    apply: refused('invalid-input', 'lock-timeout: “soon”', '500ms, 5s or 2min', asBefore),
  },
  'empty inputs, which mean their defaults': {
    inputs: { mode: '', direction: '', revision: '', directory: '', 'lock-timeout': '', retries: '', label: '' },
    preview: previewed,
  },
  'an alembic.ini that is not there': {
    inputs: { 'alembic-config': 'nowhere/alembic.ini' },
    preview: refusedBlind('invalid-input', 'alembic-config: there is no nowhere/alembic.ini'),
  },
  'a directory that is not there': {
    inputs: { directory: 'nowhere' },
    apply: refusedBlind('invalid-input', /directory: there is no nowhere.alembic\.ini/),
  },

  // ── No server ──
  'an unreachable server': {
    database: async url => ({ url: url.replace(/:\d+\//, ':9/') }),
    preview: refusedBlind('connection-failed', 'ECONNREFUSED', 'that the server is up'),
  },
  'a wrong password': {
    database: async url => ({ url: url.replace(encodeURIComponent(superuser.password), 'not-the-password') }),
    apply: refusedBlind('connection-failed', 'password authentication failed', 'Check user and password'),
  },
  'an unknown database': {
    database: async url => ({ url: url.replace(/\/\w+$/, '/no_such_database') }),
    preview: refusedBlind('connection-failed', 'database "no_such_database" does not exist'),
  },
  'TLS that the server has not': {
    database: withQuery('sslmode=require'),
    apply: refusedBlind('connection-failed', 'TLS switched off'),
  },

  // ── No right ──
  'a read-only role or database': {
    database: withQuery('options=-cdefault_transaction_read_only%3Don'),
    preview: previewed,
    apply: refused('not-permitted', 'read-only', 'a guard of somebody’s', asBefore),
  },
  'no right to write the version table': {
    database: async url => {
      const role = `r${url.slice(-12)}`
      await query(url, `CREATE ROLE ${role} LOGIN PASSWORD 'reader'; GRANT SELECT ON alembic_version TO ${role}`)
      return { url: url.replace(/\/\/[^@]*@/, `//${role}:reader@`) }
    },
    preview: previewed,
    apply: refused('not-permitted', 'GRANT SELECT, INSERT, UPDATE, DELETE ON "alembic_version"', asBefore),
  },
  'no right to read the version table': {
    database: async url => {
      const role = `n${url.slice(-12)}`
      await query(url, `CREATE ROLE ${role} LOGIN PASSWORD 'nobody'`)
      return { url: url.replace(/\/\/[^@]*@/, `//${role}:nobody@`) }
    },
    apply: refusedBlind('not-permitted', 'cannot be read', 'GRANT SELECT'),
  },

  // ── Python and the app ──
  'Python is missing': {
    inputs: { python: 'python-of-nowhere' },
    preview: refusedBlind('render-failed', '“python-of-nowhere” was not found', 'actions/setup-python'),
  },
  'no app': {
    workspace: () => mkdtempSync(join(tmpdir(), 'atomic-upgrade-empty-')),
    apply: refusedBlind('render-failed', 'The Flask app was not found'),
  },
  'an app that does not import': {
    project: { app: 'import no_such_module' },
    apply: refusedBlind('render-failed', "No module named 'no_such_module'"),
  },
  'an app that connects while it is imported': {
    project: { app: 'with app.app_context():\n    db.create_all()' },
    preview: refusedBlind('render-failed', 'connects to the database while it is imported'),
  },
  'an env.py that fails': {
    project: { env: stock => `${stock}\nraise ValueError("env is broken")` },
    apply: refusedBlind('render-failed', 'ValueError: env is broken'),
  },
  'a script that is no Python': {
    project: then('this is broken('),
    preview: refusedBlind('render-failed', 'SyntaxError'),
  },

  // ── The dry run ──
  'a script that cannot be rendered': {
    project: then('op.execute(f"CREATE TABLE t{len(op.get_bind().execute(sa.text(\'SELECT 1\')).all())} (id int)")'),
    preview: { ...previewed, outputs: { 'sql-file': '' }, words: ['it reads the result of a statement'] },
    apply: { ...applied, outputs: { 'sql-file': '' } },
  },
  'a statement that PostgreSQL forbids in a transaction, seen beforehand': {
    project: then('op.create_index("i", "first", ["id"], postgresql_concurrently=True)'),
    preview: { ...previewed, words: ['CREATE INDEX CONCURRENTLY cannot run inside a transaction block'] },
    apply: refused(
      'not-transactional',
      'Revision b2 (the second)',
      'CREATE INDEX CONCURRENTLY cannot run inside a transaction block',
      'without `CONCURRENTLY`',
      asBefore,
    ),
  },
  'the same in a script that cannot be rendered': {
    project: then(
      'op.get_bind().execute(sa.text("SELECT 1")).all()\nop.create_index("i", "first", ["id"], postgresql_concurrently=True)',
    ),
    preview: { ...previewed, outputs: { 'sql-file': '' }, words: ['CONCURRENTLY cannot run inside a transaction'] },
    apply: {
      ...refused('not-transactional', 'postgresql_concurrently=True', asBefore),
      outputs: { 'sql-file': '' },
    },
  },
  'the same, met in the gate': {
    project: then('op.execute("DO $$ BEGIN EXECUTE \'CREATE INDEX CONCURRENTLY i ON first (id)\'; END $$")'),
    preview: previewed,
    apply: rolledBack('not-transactional', 'ERROR 25001', 'without `CONCURRENTLY`', asBefore),
  },
  'a COMMIT inside of a DO block': {
    project: then('op.execute("DO $$ BEGIN CREATE TABLE second (id int); COMMIT; END $$")'),
    apply: rolledBack('not-transactional', 'ERROR 2D000', asBefore),
  },
  'a new value of an enum, used in the same batch': {
    project: {
      scripts: [
        a1,
        {
          id: 'b1',
          upgrade:
            'with op.get_context().autocommit_block():\n    op.execute("ALTER TYPE mood ADD VALUE IF NOT EXISTS \'calm\'")',
        },
        { id: 'b2', upgrade: 'op.execute("ALTER TABLE first ADD COLUMN mood mood DEFAULT \'calm\'")' },
      ],
    },
    database: having("CREATE TYPE mood AS ENUM ('sad')"),
    preview: { ...previewed, words: ['must be committed before it can be used'] },
    apply: refused('not-transactional', "the value 'calm' is new in the enum mood", asBefore),
  },

  // ── The target and the heads ──
  'an unknown target': {
    inputs: { revision: 'abc123' },
    preview: refused('unknown-revision', "Can't locate revision identified by 'abc123'", asBefore),
  },
  'a head that the scripts do not have': {
    database: having("UPDATE alembic_version SET version_num = 'f00d'"),
    apply: { ...refused('unknown-revision', 'f00d', 'the checkout'), prior: 'f00d', new: 'f00d' },
  },
  'several heads where one is asked for': {
    project: { scripts: [a1, { ...b2, down: 'a1' }, { id: 'b3', down: 'a1', upgrade: 'pass' }] },
    preview: refused('multiple-heads', 'The heads are b2', 'flask db merge -m "merge heads" b2 b3', asBefore),
  },
  'heads that moved, not to the target, while the step waited': {
    database: async url => {
      const { default: pg } = await import('pg')
      const client = new pg.Client({ connectionString: url })
      await client.connect()
      await client.query(`BEGIN; SELECT pg_advisory_xact_lock(${0x61746f6d6963})`)
      const asks = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_try_advisory_xact_lock%'
        AND query NOT LIKE '%pg_stat_activity%'`
      const watch = setInterval(async () => {
        if ((await query(url, asks)).rowCount === 0) return
        clearInterval(watch)
        await client.query("UPDATE alembic_version SET version_num = 'a0'; COMMIT").catch(() => {})
      }, 100)
      return {
        end: () => {
          clearInterval(watch)
          void client.end()
        },
      }
    },
    apply: { ...refused('drift', 'has moved from a1 to a0', 'Run the step again'), prior: 'a0', new: 'a0' },
  },

  // ── The plan ──
  'a digest that is not the plan’s': {
    inputs: { 'expected-digest': `sha256:${'0'.repeat(64)}` },
    ...both({
      ...refused(
        'plan-changed',
        'It is now the upgrade from a1 to b2 by revision b2.',
        /its digest is sha256:/,
        asBefore,
      ),
    }),
  },
  'nothing to do, whatever the digest': {
    project: { scripts: [a1] },
    inputs: { 'expected-digest': `sha256:${'0'.repeat(64)}` },
    apply: { outcome: 'up-to-date', words: ['The database is at a1'] },
  },

  // ── The run: a preview does not come to it, whatever would happen there ──
  'a statement that fails': {
    project: then('op.execute("CREATE TABLE second (id int)")\nop.execute("INSERT INTO nowhere VALUES (1)")'),
    preview: previewed,
    apply: rolledBack('migration-failed', 'Revision b2', 'ERROR 42P01', 'relation "nowhere" does not exist', asBefore),
  },
  'a script that fails': {
    project: then(
      'op.execute("CREATE TABLE second (id int)")\nif not op.get_context().as_sql:\n    raise ValueError("no")',
    ),
    preview: { ...previewed, outputs: { 'sql-file': '' } },
    apply: { ...rolledBack('migration-failed', 'ValueError: no', asBefore), outputs: { 'sql-file': '' } },
  },
  'a deferred constraint that is violated': {
    project: then(
      'op.execute("CREATE TABLE pair (id int PRIMARY KEY, other int REFERENCES pair DEFERRABLE INITIALLY DEFERRED)")\nop.execute("INSERT INTO pair VALUES (1, 2)")',
    ),
    apply: rolledBack('migration-failed', 'violates foreign key constraint', asBefore),
  },
  'Python that ends without having migrated': {
    project: { ...then('pass'), env: stock => stock.replace(/else:\n\s+run_migrations_online\(\)/, 'else:\n    pass') },
    apply: rolledBack('migration-failed', 'Python ended without an error, but the heads are a1 and not b2', asBefore),
  },
  'a statement that runs too long': {
    inputs: { 'statement-timeout': '300ms' },
    project: then('op.execute("SELECT pg_sleep(60)")'),
    apply: rolledBack('migration-failed', 'ERROR 57014', 'statement timeout', asBefore),
  },
  'a server that is out of memory': {
    project: then("op.execute(\"DO $$ BEGIN RAISE 'out of shared memory' USING ERRCODE = '53200'; END $$\")"),
    apply: rolledBack('migration-failed', 'ERROR 53200: out of shared memory', asBefore),
  },
  'a table lock that is not had': {
    inputs: { 'lock-timeout': '2s', retries: '0' },
    project: then('op.execute("ALTER TABLE first ADD COLUMN name text")'),
    database: holding('BEGIN; LOCK TABLE first IN SHARE MODE'),
    preview: previewed,
    apply: rolledBack(
      'lock-timeout',
      'did not get a lock',
      'It waited for somebody else (pid',
      'raise `lock-timeout`',
      asBefore,
    ),
  },
  'a server session that is ended': {
    project: then(
      'op.execute("CREATE TABLE second (id int)")\nop.execute("SELECT pg_terminate_backend(pg_backend_pid())")',
    ),
    apply: rolledBack('connection-failed', /connection to PostgreSQL was lost[\s\S]*terminating connection/, asBefore),
  },
  'a database that is gone when something has failed': {
    project: then('op.execute("CREATE TABLE second (id int)")\nop.execute("SELECT \'goodbye\'")'),
    database: url => severing(url, 'goodbye', { gone: true }),
    apply: rolledBack('connection-failed', 'The database is at a1, as before (not re-read: it could not be reached).'),
  },

  // ── The COMMIT ──
  'a COMMIT that PostgreSQL does not carry out': {
    database: url => severing(url, 'COMMIT\0', { passOn: false }),
    apply: rolledBack('commit-failed', 'PostgreSQL has rolled back', 'Run the step again', asBefore),
  },
  'a COMMIT whose answer is lost': {
    database: url => severing(url, 'COMMIT\0', { passOn: true }),
    apply: applied,
  },
  'a COMMIT that nothing is heard of any more': {
    database: url => severing(url, 'COMMIT\0', { passOn: true, gone: true }),
    // A cancelled step asks for two seconds more, and not for a minute.
    options: interrupted(/asking the database what became of it/),
    apply: {
      outcome: 'in-doubt',
      reason: 'commit-failed',
      new: '',
      words: [
        'no answer came',
        /SELECT pg_catalog\.pg_xact_status\('\d+'::xid8\)/,
        'The database is wholly at a1 or wholly at b2',
      ],
    },
  },

  // ── Cancelled, untrusted ──
  cancelled: {
    project: {
      ...then('op.execute("SELECT pg_sleep(60)")'),
      app: 'import sys, time\nprint("importing", file=sys.stderr)',
    },
    options: interrupted(/Running 1 revision in one transaction/),
    apply: rolledBack('cancelled', 'The step was cancelled', asBefore),
  },
  'cancelled before anything ran': {
    database: holding(`BEGIN; SELECT pg_advisory_xact_lock(${0x61746f6d6963})`),
    options: interrupted(/Waiting for another deploy/),
    apply: refused('cancelled', 'The step was cancelled', asBefore),
  },
  'scripts that may be a stranger’s, in an event that has secrets': {
    options: () => ({ event: { name: 'pull_request_target', payload: { pull_request: { number: 7 } } } }),
    ...both(refusedBlind('untrusted', 'there is no git checkout', 'allow-untrusted: true')),
  },

  // ── GitHub ──
  'GitHub is down': {
    inputs: { comment: 'true' },
    options: () => ({ event: { name: 'pull_request', payload: { pull_request: { number: 7 } } } }),
    apply: { ...applied, words: ['The comment on the pull request could not be written'] },
  },
}

const outputNames = Object.keys(
  (createRequire(import.meta.url)('yaml') as typeof import('yaml')).parse(
    readFileSync(join(root, 'action.yml'), 'utf8'),
  ).outputs,
)

for (const mode of ['preview', 'apply'] as const) {
  describe(`mode: ${mode}`, () => {
    for (const [name, situation] of Object.entries(situations)) {
      const ending = situation[mode]
      if (!ending) continue
      test(name, async () => {
        const real = await createDatabase()
        await query(
          real,
          `CREATE TABLE first (id int); CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
           INSERT INTO alembic_version VALUES ('a1')`,
        )
        const arranged = await situation.database?.(real)
        const before = await contents(real)
        const workspace = situation.workspace?.() ?? writeProject({ scripts: [a1, b2], ...situation.project })
        const inputs = { mode, comment: 'false', ...situation.inputs }
        const step = await start(workspace, arranged?.url ?? real, inputs, situation.options?.())
        arranged?.end?.()

        expect(step.outputs, step.log).toMatchObject({
          outcome: ending.outcome,
          'failure-reason': ending.reason ?? '',
          'prior-head': ending.prior ?? 'a1',
          'new-head': ending.new ?? 'a1',
          'comment-url': '',
          ...ending.outputs,
        })
        expect(Object.keys(step.outputs).sort()).toEqual([...outputNames].sort())
        expect(step.exitCode).toBe(ending.reason ? 1 : 0)
        const errors = step.commands.filter(command => command.name === 'error')
        expect(errors).toHaveLength(ending.reason ? 1 : 0)
        for (const word of ending.words ?? []) expect(errors[0]?.text ?? step.log).toMatch(word)
        const after = await contents(real)
        if (ending.outcome === 'applied') expect(after).toContain('alembic_version: {"version_num": "b2"}')
        else if (ending.outcome !== 'in-doubt' && ending.reason !== 'drift') expect(after).toBe(before)
        if (!situation.database) expect(await leftovers(real)).toEqual([])

        const shown = step.log.replaceAll(/^::add-mask::.*$/gm, '') + step.summary
        expect(shown).not.toMatch(/Traceback|^\s+at .*\.js:\d+/m)
        for (const secret of [
          superuser.password,
          encodeURIComponent(superuser.password),
          'hunter2',
          'not-the-password',
        ])
          expect(shown).not.toContain(secret)
      })
    }
  })
}
