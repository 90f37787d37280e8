import { join } from 'node:path'
import type { Passing } from '../faults/proxy.mts'
import type { ProjectOptions } from '../support/project.mts'
import { root } from '../support/runner.mts'
import type { Chapter, Scenario, WayName } from './scenario.mts'

const fixture = (name: string) => join(root, 'migrations-fixture', name)
const binds = ['reporting']
const second = '5a77262c502b'

const twoPhase = (env: string) => env.replace('USE_TWOPHASE = False', 'USE_TWOPHASE = True')

/** Two databases, a batch of two revisions on top of `a1` that writes `b2` and `c3`, with something more in the second. */
function project(more: string, options: Partial<ProjectOptions> = {}): ProjectOptions {
  const write = (id: string) => `op.execute("INSERT INTO ledger VALUES ('${id}')")`
  return {
    scripts: [
      { id: 'a1', upgrade: 'op.execute("CREATE TABLE ledger (line text)")' },
      { id: 'b2', upgrade: write('b2') },
      { id: 'c3', upgrade: `${write('c3')}\n${more}` },
    ],
    binds,
    ...options,
  }
}

const deferredIn = (engine: string) => `if engine_name == "${engine}":
    op.execute("CREATE TABLE visits (id int PRIMARY KEY, previous int REFERENCES visits DEFERRABLE INITIALLY DEFERRED)")
    op.execute("INSERT INTO visits VALUES (1, 2)")`
const lines = 'SELECT line FROM ledger ORDER BY line'
const both: Scenario['expected'] = { head: 'c3', rows: [lines, lines], are: ['b2,c3', 'b2,c3'] }

/** The message with which the second of two databases commits. */
function secondCommit({ direction, sql, connection }: Passing, way: WayName): boolean {
  if (direction !== 'up') return false
  return way === 'action' ? /^COMMIT PREPARED '.*:1'$/.test(sql) : connection > 1 && /^COMMIT\b/.test(sql)
}

export const several: Chapter = {
  title: 'Several databases',
  text: 'Two databases with the stock `env.py` for several (`flask db init --multidb`), which begins on both, migrates one after the other, and commits one after the other. Offline it writes a file for each, which are then run one after the other. Prepared transactions are on unless the name says otherwise.',
  scenarios: [
    {
      name: 'All succeeds',
      project: fixture('several-databases'),
      binds,
      target: second,
      expected: {
        head: second,
        rows: ['SELECT count(*) FROM orders', 'SELECT count(*) FROM sales'],
        are: ['2', '1'],
      },
    },
    {
      name: 'A script fails in the second database',
      project: fixture('several-databases'),
      binds,
      from: second,
      expected: 'unchanged',
    },
    {
      name: 'A script fails in the first database',
      project: project('if engine_name == "":\n    op.execute("SELECT 1 / 0")'),
      binds,
      from: 'a1',
      expected: 'unchanged',
    },
    {
      name: 'The COMMIT fails in the second database',
      project: fixture('deferred-constraint'),
      binds,
      expected: 'unchanged',
    },
    {
      name: 'The COMMIT fails in the first database',
      project: project(deferredIn('')),
      binds,
      from: 'a1',
      expected: 'unchanged',
    },
    {
      name: 'The COMMIT fails in the second database, prepared transactions off',
      project: project(deferredIn('reporting')),
      binds,
      from: 'a1',
      expected: 'unchanged',
      withoutPreparedTransactions: true,
    },
    {
      name: 'The COMMIT fails in the second database, USE_TWOPHASE = True',
      project: project(deferredIn('reporting'), { env: twoPhase }),
      binds,
      from: 'a1',
      expected: 'unchanged',
    },
    {
      name: 'All succeeds, USE_TWOPHASE = True, prepared transactions off',
      project: project('', { env: twoPhase }),
      binds,
      before: [],
      from: '',
      expected: both,
      withoutPreparedTransactions: true,
    },
    {
      name: 'transaction_per_migration=True, and a script fails in the second database',
      project: project('if engine_name == "reporting":\n    op.execute("SELECT 1 / 0")', {
        migrate: 'transaction_per_migration=True',
      }),
      binds,
      from: 'a1',
      expected: 'unchanged',
    },
    {
      name: 'A COMMIT in a script, and a failure in the second database',
      project: project('op.execute("COMMIT")\nif engine_name == "reporting":\n    op.execute("SELECT 1 / 0")'),
      binds,
      from: 'a1',
      expected: 'unchanged',
    },
    {
      name: 'The second database is one revision ahead',
      project: project(''),
      binds,
      from: 'a1',
      beforeSql: { reporting: `INSERT INTO ledger VALUES ('b2'); UPDATE alembic_version SET version_num = 'b2'` },
      expected: both,
    },
    {
      name: 'The second database cannot be reached',
      project: project(''),
      binds,
      from: 'a1',
      unreachable: 'reporting',
      expected: 'unchanged',
    },
    {
      name: 'The second connection is lost as its COMMIT is sent',
      project: project(''),
      binds,
      from: 'a1',
      fault: { at: secondCommit, act: passing => passing.cut() },
      expected: both,
    },
  ],
}
