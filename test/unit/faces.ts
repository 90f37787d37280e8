import { Failure } from '../../src/failure'
import { explainHeads } from '../../src/plan/heads'
import type { Plan, Revision, Script } from '../../src/plan/plan'
import type { Result } from '../../src/plan/result'
import { loadParser } from '../../src/plan/statements'
import { failureOf } from '../../src/report/blame'
import { commentLimit, renderReport, type Surroundings, summaryLimit } from '../../src/report/comment'
import { withoutConstants } from '../../src/report/discretion'
import { digestedIn, type Flat, nested } from './result'

await loadParser()

/** Every state of the comment and the summary, as Markdown by name. */
export const faces = new Map<string, string>()

const run = 'https://github.com/acme/shop/actions/runs/4711'

function script(id: string, message: string, down: string[]): Script & { digest: string } {
  const path = `migrations/versions/${id}_${message.replaceAll(/\W+/g, '_')}.py`
  const file = `/work/${path}`
  return {
    id,
    message,
    path,
    file,
    down,
    dependsOn: [],
    labels: [],
    created: '2026-03-02 09:00:00',
    digest: 'd'.repeat(64),
  }
}

const rendered = (of: Script & { digest: string }, ...sql: string[]): Revision => ({
  ...of,
  statements: [
    ...sql.map((each, i) => ({ sql: each, line: 20 + i, own: false })),
    { sql: `UPDATE alembic_version SET version_num='${of.id}' WHERE 1 = 1`, line: null, own: true },
  ],
})

const invoices = rendered(
  script('653d68312991', 'create invoices', ['5a77262c502b']),
  `CREATE TABLE invoices (
    id SERIAL NOT NULL,
    order_id INTEGER NOT NULL,
    total NUMERIC(10, 2) DEFAULT '0' NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(order_id) REFERENCES orders (id)
)`,
  'CREATE INDEX ix_invoices_order_id ON invoices (order_id)',
)
const totals = rendered(
  script('5929dc9c624a', 'copy the totals of paid orders', ['653d68312991']),
  "INSERT INTO invoices (order_id, total) SELECT id, total FROM orders WHERE state = 'paid'",
)
const required = rendered(
  script('8c24d5e6f7a0', 'every order has a state', ['5929dc9c624a']),
  "UPDATE orders SET state = 'open' WHERE state IS NULL",
  'ALTER TABLE orders ALTER COLUMN state SET NOT NULL',
)
const revisions = [invoices, totals, required]

const plan: Plan = {
  direction: 'upgrade',
  target: 'head',
  priorHeads: ['5a77262c502b'],
  newHeads: ['8c24d5e6f7a0'],
  revisions,
}

const base: Flat = {
  mode: 'apply',
  direction: 'upgrade',
  label: '',
  database: 'postgresql://deploy@db.example/shop',
  plan,
  priorHeads: plan.priorHeads,
  newHeads: plan.newHeads,
  runs: [],
  sqlFile: '/home/runner/work/_temp/atomic-upgrade.sql',
}

const runs = [
  { id: invoices.id, duration: 43, statements: 2 },
  { id: totals.id, duration: 1_870, statements: 1 },
  { id: required.id, duration: 12_400, statements: 2 },
]

/** The same result without some of its fields. */
function without<K extends keyof Flat>(result: Flat, ...keys: K[]): Flat {
  const rest = { ...result }
  for (const key of keys) delete rest[key]
  return rest
}

function comment(name: string, result: Flat, surroundings: Surroundings = { run, standing: '' }): void {
  faces.set(name, renderReport(digested(result), surroundings, commentLimit))
}

/** As a step has it once it has planned. */
function digested(result: Flat): Result {
  const whole = nested(result)
  return result.plan ? { ...whole, digested: digestedIn(result) } : whole
}

function summary(name: string, result: Flat, problem = ''): void {
  faces.set(name, renderReport(nested(result), { run: '', problem }, summaryLimit))
}

const previewed: Flat = { ...base, mode: 'preview', outcome: 'previewed' }
comment('previewed', previewed)
comment('previewed-with-label', { ...previewed, label: 'staging' })
comment('previewed-without-database', { ...previewed, database: '' })
comment('previewed-from-base', {
  ...previewed,
  plan: { ...plan, priorHeads: [], newHeads: ['653d68312991'], revisions: [invoices] },
  priorHeads: [],
  newHeads: ['653d68312991'],
})
comment('previewed-not-rendered', {
  ...without(previewed, 'sqlFile'),
  plan: {
    ...plan,
    revisions: [
      invoices,
      {
        ...script('5929dc9c624a', 'copy the totals of paid orders', ['653d68312991']),
        notRenderable: { reason: 'it reads the rows of a query, and without a database there are none', line: 24 },
      },
      required,
    ],
  },
})
const destructions = [
  { revision: required, line: 20, what: 'changes every row of orders' },
  { revision: required, line: 21, what: 'drops the column state of orders' },
]
comment('previewed-destructive', { ...previewed, destructions })
comment('previewed-with-edited-scripts', {
  ...previewed,
  edited: [
    { id: '5a77262c502b', path: 'migrations/versions/5a77262c502b_create_orders.py', isGone: false },
    { id: 'dd7c69423ad9', path: 'migrations/versions/dd7c69423ad9_create_customers.py', isGone: true },
  ],
})
faces.set(
  'previewed-with-literals-hidden',
  renderReport(withoutConstants(digested(previewed)), { run, standing: '' }, commentLimit),
)
comment('previewed-downgrade', {
  ...previewed,
  direction: 'downgrade',
  plan: {
    direction: 'downgrade',
    target: '-1',
    priorHeads: ['653d68312991'],
    newHeads: ['5a77262c502b'],
    revisions: [rendered(invoices, 'DROP INDEX ix_invoices_order_id', 'DROP TABLE invoices')],
  },
  priorHeads: ['653d68312991'],
  newHeads: ['5a77262c502b'],
})
comment('previewed-several-heads', {
  ...previewed,
  plan: {
    ...plan,
    target: 'heads',
    priorHeads: ['1f3a5b7c9d0e', '5a77262c502b'],
    newHeads: ['1f3a5b7c9d0e', '8c24d5e6f7a0'],
  },
  priorHeads: ['1f3a5b7c9d0e', '5a77262c502b'],
  newHeads: ['1f3a5b7c9d0e', '8c24d5e6f7a0'],
})
const nothing: Flat = {
  ...without(base, 'sqlFile'),
  outcome: 'up-to-date',
  plan: { ...plan, priorHeads: plan.newHeads, revisions: [] },
  priorHeads: plan.newHeads,
}
comment('up-to-date', nothing)
comment('up-to-date-without-database', { ...nothing, mode: 'preview', database: '' })
comment('upgrading', base)
comment('rehearsing', { ...base, mode: 'rehearse' })
comment('rehearsed', { ...base, mode: 'rehearse', outcome: 'rehearsed', runs })
comment('applied', { ...base, outcome: 'applied', runs })
const standing = faces.get('previewed')!
const later = 'https://github.com/acme/shop/actions/runs/4712'
comment('previewed-then-applied', { ...base, outcome: 'applied', runs }, { run: later, standing })
comment(
  'previewed-then-applied-otherwise',
  {
    ...base,
    outcome: 'applied',
    plan: { ...plan, priorHeads: ['653d68312991'], revisions: [totals, { ...required, digest: 'e'.repeat(64) }] },
    priorHeads: ['653d68312991'],
    runs: runs.slice(1),
  },
  { run: later, standing },
)
comment('applied-downgrade', {
  ...base,
  direction: 'downgrade',
  outcome: 'applied',
  plan: {
    ...plan,
    direction: 'downgrade',
    priorHeads: plan.newHeads,
    newHeads: plan.priorHeads,
    revisions: [...revisions].reverse(),
  },
  priorHeads: plan.newHeads,
  newHeads: plan.priorHeads,
  runs: [...runs].reverse(),
})

const rolledBack: Flat = { ...base, outcome: 'rolled-back', newHeads: plan.priorHeads, reread: true }
const failedRuns = [runs[0]!, { ...runs[1]!, duration: 12 }]
const place = { file: totals.path, line: 21 }
const told = { message: '', revision: totals.id, place, fromDatabase: true }
const { sql } = totals.statements![0]!
const refused = (error: { code: string; message: string; detail?: string; hint?: string; position?: number }) =>
  failureOf(told, { sql, error }, plan)

comment('rolled-back-by-a-statement', {
  ...rolledBack,
  runs: failedRuns,
  failure: refused({
    code: '42703',
    message: 'column "state" does not exist',
    hint: 'Perhaps you meant to reference the column "orders.stage".',
    position: sql.indexOf('state') + 1,
  }),
})
comment(
  'previewed-then-rolled-back',
  {
    ...rolledBack,
    runs: failedRuns,
    failure: refused({ code: '42703', message: 'column "state" does not exist', position: sql.indexOf('state') + 1 }),
  },
  { run: later, standing },
)
comment('rolled-back-by-the-script', {
  ...rolledBack,
  runs: failedRuns,
  failure: failureOf({ ...told, message: "KeyError: 'PAID_STATE'", fromDatabase: false }, undefined, plan),
})
comment('rolled-back-by-a-constraint', {
  ...rolledBack,
  runs,
  failure: new Failure(
    'migration-failed',
    'A deferred constraint is violated: insert or update on table "invoices" violates foreign key constraint "invoices_order_id_fkey".',
    { advice: 'Mend the data in the migration before the constraint is checked.' },
  ),
})
comment('rolled-back-not-transactional', {
  ...rolledBack,
  runs: failedRuns,
  failure: failureOf(
    told,
    {
      sql: 'CREATE INDEX CONCURRENTLY ix_orders_state ON orders (state)',
      error: { code: '25001', message: 'CREATE INDEX CONCURRENTLY cannot run inside a transaction block' },
    },
    plan,
  ),
})
comment('rolled-back-lock-timeout', {
  ...rolledBack,
  runs: failedRuns,
  failure: refused({
    code: '55P03',
    message: 'canceling statement due to lock timeout',
    position: sql.indexOf('orders') + 1,
  }),
})
comment('rolled-back-commit-failed', {
  ...rolledBack,
  runs,
  failure: new Failure('commit-failed', 'The connection broke during the COMMIT, and PostgreSQL has rolled back.', {
    advice: 'Run the step again.',
  }),
})
comment('rolled-back-connection-lost', {
  ...rolledBack,
  reread: false,
  runs: failedRuns,
  failure: new Failure('connection-failed', 'The connection to PostgreSQL was lost: read ECONNRESET.', {
    advice: 'PostgreSQL rolls an open transaction back when its connection ends. Run the step again.',
    revision: totals.id,
  }),
})
comment('rolled-back-cancelled', {
  ...rolledBack,
  runs: failedRuns,
  failure: new Failure('cancelled', 'The step was cancelled.'),
})
comment('in-doubt', {
  ...without(base, 'newHeads'),
  outcome: 'in-doubt',
  runs,
  failure: new Failure(
    'commit-failed',
    'The COMMIT was sent, and no answer came: connect ECONNREFUSED 10.0.0.7:5432.',
    {
      advice:
        "When the database can be reached again, ask it: SELECT pg_xact_status('780'::xid8), and look at the heads with SELECT version_num FROM alembic_version.",
    },
  ),
})

const refusing: Flat = { ...base, outcome: 'refused', newHeads: plan.priorHeads, reread: true }
const unplanned = without(refusing, 'plan', 'sqlFile')
comment('refused-drift', {
  ...refusing,
  priorHeads: ['653d68312991'],
  newHeads: ['653d68312991'],
  failure: new Failure(
    'drift',
    'The database has moved from 5a77262c502b to 653d68312991 since the batch was planned.',
    { advice: 'Run the step again: it will plan from the new heads.' },
  ),
})
comment('refused-lock-timeout', {
  ...refusing,
  failure: new Failure('lock-timeout', 'Another deploy of this database has held its lock for 15 minutes.', {
    advice: 'Look at the run that the log names; this one can be started again when it has ended.',
  }),
})
comment('refused-not-permitted', {
  ...refusing,
  failure: new Failure('not-permitted', 'The role may not change the version table alembic_version.', {
    advice: 'GRANT SELECT, INSERT, UPDATE, DELETE ON alembic_version to the role of database-url.',
  }),
})
comment('refused-connection-failed', {
  ...without(unplanned, 'priorHeads', 'newHeads', 'reread'),
  failure: new Failure(
    'connection-failed',
    'Could not connect to postgresql://deploy@db.example/shop: password authentication failed for user "deploy".',
    { advice: 'Check user and password of database-url.' },
  ),
})
comment('refused-unknown-revision', {
  ...unplanned,
  failure: new Failure('unknown-revision', "Can't locate revision identified by '5a77262c502b'", {
    advice: 'Check out the scripts that this database was migrated with.',
  }),
})
const other = { ...script('77aa88bb99cc', 'track shipments', ['5a77262c502b']), created: '2026-03-03 10:00:00' }
const forked = explainHeads(
  new Map([...revisions, other, script('5a77262c502b', 'create orders', [])].map(each => [each.id, each])),
  ['8c24d5e6f7a0', '77aa88bb99cc'],
)
comment('refused-multiple-heads', {
  ...unplanned,
  mode: 'preview',
  failure: new Failure('multiple-heads', `There are several heads. ${forked.told}`, {
    advice: forked.advice,
    place: { file: forked.newest.path, line: null },
  }),
})
comment('refused-render-failed', {
  ...without(unplanned, 'priorHeads', 'newHeads', 'reread'),
  mode: 'preview',
  database: '',
  failure: new Failure(
    'render-failed',
    "The app cannot be loaded: ModuleNotFoundError: No module named 'flask_login'.",
    {
      advice: 'Install what the app needs in an earlier step.',
      place: { file: 'app/__init__.py', line: 3 },
    },
  ),
})
comment('refused-shallow-clone', {
  ...without(unplanned, 'priorHeads', 'newHeads', 'reread'),
  mode: 'preview',
  database: '',
  failure: new Failure('invalid-input', 'The clone is too shallow to hold the base of this pull request.', {
    advice: 'Set “fetch-depth: 2” on actions/checkout, or give database-url or from-revision.',
  }),
})
comment('refused-cancelled', { ...refusing, failure: new Failure('cancelled', 'The step was cancelled.') })
comment('refused-internal', {
  ...refusing,
  failure: new Failure('internal', 'Cannot read properties of undefined (reading ‘x’)', {
    advice: 'This is a fault of Atomic Upgrade itself; please report it with the log of this step.',
  }),
})

/** More than fits, with a limit so low that one can still read what is left. */
function cut(name: string, most: number): void {
  const many = Array.from({ length: 60 }, (_, i) =>
    rendered(
      script(`rev${i + 1}`, `change number ${i + 1}`, [`rev${i}`]),
      ...[0, 1].map(j => `UPDATE customers SET credit = credit + ${j} WHERE id % 2 = ${j}`),
    ),
  )
  const result = { ...previewed, plan: { ...plan, newHeads: ['rev60'], revisions: many } }
  faces.set(name, renderReport(nested(result), { run }, { ...commentLimit, most }))
}
cut('huge', 6_000)
cut('huge-without-sql', 5_000)
cut('huge-table', 3_000)

const hostile = script(
  'a`|b',
  'x | </summary></details> <!-- @acme/admins #1 **bold** [link](https://evil.example) :tada:',
  [],
)
comment('hostile', {
  ...rolledBack,
  label: 'pro|duction` <b>@acme',
  plan: {
    ...plan,
    priorHeads: ['<b>`|'],
    revisions: [
      rendered(hostile, "SELECT '```\n</details>\n@acme/admins closes #1\n```'", 'SELECT 1 -- </code></pre>'),
      { ...hostile, id: '</code>', notRenderable: { reason: 'it says `@acme` <img src=x>', line: 3 } },
    ],
  },
  runs: [{ id: hostile.id, duration: 3, statements: 2 }],
  priorHeads: ['<b>`|'],
  newHeads: ['<b>`|'],
  failure: new Failure('migration-failed', 'Revision a`|b failed: @acme/admins **closes** #1 </details> <h1>', {
    revision: hostile.id,
    place: { file: hostile.path, line: 7 },
    advice: '![x](https://evil.example/x.png) | `code`',
    statement: { sql: "SELECT '```'\n~~~", code: 'P0001', message: '```\n</details>\n# heading', position: 9 },
  }),
})

summary('summary-applied', { ...base, outcome: 'applied', runs })
summary(
  'summary-without-comment',
  previewed,
  'The comment on the pull request could not be written (403: Resource not accessible by integration). The job needs `permissions: { contents: read, pull-requests: write }`; on a pull request from a fork the token is read-only whatever the workflow says.',
)
