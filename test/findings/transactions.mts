import type { Passing } from '../faults/proxy.mts'
import type { ProjectOptions, Script } from '../support/project.mts'
import type { Chapter, Scenario } from './scenario.mts'

const before: Script = {
  id: 'a1',
  upgrade: 'op.execute("CREATE TABLE ledger (line text)")\nop.execute("CREATE SEQUENCE numbers")',
}
const write = (line: string) => `op.execute("INSERT INTO ledger VALUES ('${line}')")`

/** A batch of two revisions on top of `a1`: the first as given, and one that fails. */
function failing(name: string, upgrade: string, options: Partial<ProjectOptions> & Partial<Scenario> = {}): Scenario {
  const { migrate, engineOptions, ...scenario } = options
  const scripts = [before, { id: 'b2', upgrade }, { id: 'c3', upgrade: `${write('c3')}\nop.execute("SELECT 1 / 0")` }]
  const project = { scripts, ...(migrate && { migrate }), ...(engineOptions && { engineOptions }) }
  return { name, project, from: 'a1', expected: 'unchanged', ...scenario }
}

/** A batch of one revision or more on top of `a1`. */
function batch(
  name: string,
  upgrades: string[],
  expected: Scenario['expected'],
  more: Partial<Scenario> = {},
): Scenario {
  const scripts = [before, ...upgrades.map((upgrade, index) => ({ id: ['b2', 'c3'][index]!, upgrade }))]
  return { name, project: { scripts }, from: 'a1', expected, ...more }
}

/** Ways to end Alembic's transaction early, or to write beside it. */
export const transactions: Chapter = {
  title: 'Scripts and settings that end or leave the transaction',
  text: 'A batch of two revisions; the first does what the name says, the second fails.',
  scenarios: [
    failing('Nothing of the kind', write('b2')),
    failing('transaction_per_migration=True', write('b2'), { migrate: 'transaction_per_migration=True' }),
    failing(
      'autocommit_block()',
      `${write('b2')}\nwith op.get_context().autocommit_block():\n    ${write('autocommitted')}`,
    ),
    failing('op.execute("COMMIT")', `${write('b2')}\nop.execute("COMMIT")`),
    failing(
      'A COMMIT among several statements of one string',
      `op.get_bind().exec_driver_sql("INSERT INTO ledger VALUES ('b2'); COMMIT; BEGIN")`,
    ),
    failing('commit() on the driver’s connection', `${write('b2')}\nop.get_bind().connection.commit()`),
    failing('An engine with isolation_level="AUTOCOMMIT"', write('b2'), {
      engineOptions: '{"isolation_level": "AUTOCOMMIT"}',
    }),
    failing(
      'A second connection of the script’s own',
      `with db.engine.begin() as other:\n    other.execute(sa.text("CREATE TABLE aside (id int)"))`,
    ),
    failing(
      'A session that commits',
      `session = sa.orm.Session(bind=op.get_bind())
session.execute(sa.text("INSERT INTO ledger VALUES ('b2')"))
session.commit()`,
    ),
    failing('A savepoint', `with op.get_bind().begin_nested():\n    ${write('b2')}`),
    failing('A number taken from a sequence', `op.execute("SELECT nextval('numbers')")`, {
      shown: `SELECT 'sequence at ' || last_value || CASE WHEN is_called THEN ', taken' ELSE ', not taken' END FROM numbers`,
    }),
  ],
}

const isCommit = ({ direction, sql }: Passing) => direction === 'up' && /^COMMIT\b(?! PREPARED)/.test(sql)
const deferred = `op.execute("CREATE TABLE visits (id int PRIMARY KEY, previous int REFERENCES visits DEFERRABLE INITIALLY DEFERRED)")
op.execute("INSERT INTO visits VALUES (1, 2)")`

export const endings: Chapter = {
  title: 'Failures of the COMMIT and of the connection',
  text: 'A batch of one revision or two; what fails is not a statement of a script.',
  scenarios: [
    batch('A deferred constraint, violated by the first of two revisions', [deferred, write('c3')], 'unchanged'),
    batch(
      'The connection is lost in the middle',
      [write('b2'), `op.execute("SELECT pg_terminate_backend(pg_backend_pid())")`],
      'unchanged',
    ),
    batch(
      'The answer to the COMMIT is lost',
      [write('b2')],
      { head: 'b2', rows: ['SELECT line FROM ledger'], are: ['b2'] },
      { fault: { at: isCommit, act: passing => passing.cutBehind() } },
    ),
  ],
}

const index = `with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY ledger_line ON ledger (line)")`
const addValue = `with op.get_context().autocommit_block():
    op.execute("ALTER TYPE mood ADD VALUE 'so-so'")`
const moods: Script = { id: 'a1', upgrade: `op.execute("CREATE TYPE mood AS ENUM ('fine')")` }

export const forbidden: Chapter = {
  title: 'What PostgreSQL does not run in a transaction',
  text: 'Such a batch cannot be atomic. A raw upgrade runs it in parts. The action refuses it before anything has run, and says which revision has to be run apart; with `segments: true`, which these do not set, it runs it as [the fewest transactions that PostgreSQL allows](segments.md), and can stop between them.',
  scenarios: [
    batch('CREATE INDEX CONCURRENTLY, and then a failure', [index, 'op.execute("SELECT 1 / 0")'], 'unchanged'),
    batch('CREATE INDEX CONCURRENTLY, and nothing fails', [index, write('c3')], {
      head: 'c3',
      rows: [`SELECT line FROM ledger UNION ALL SELECT indexname FROM pg_indexes WHERE indexname LIKE 'ledger%'`],
      are: ['c3,ledger_line'],
    }),
    {
      name: 'A new value of an enum, used by the next revision',
      project: {
        scripts: [
          moods,
          { id: 'b2', upgrade: addValue },
          {
            id: 'c3',
            upgrade: `op.execute("CREATE TABLE days (mood mood DEFAULT 'so-so')")\nop.execute("INSERT INTO days DEFAULT VALUES")`,
          },
        ],
      },
      from: 'a1',
      expected: { head: 'c3', rows: ['SELECT mood FROM days'], are: ['so-so'] },
    },
  ],
}

const deposit = `op.execute("SELECT pg_advisory_xact_lock(42)")\n${write('b2')}`
const once: Scenario['expected'] = { head: 'b2', rows: ['SELECT line FROM ledger'], are: ['b2'] }

export const races: Chapter = {
  title: 'Two runs',
  text: 'Two deploys of the same batch, of one revision that writes one row.',
  scenarios: [
    batch('At the same time', [deposit], once, { twice: 'together' }),
    batch('One after the other, with SQL from before the first', [deposit], once, { twice: 'one after another' }),
  ],
}
