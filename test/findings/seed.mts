import { join } from 'node:path'
import { root } from '../support/runner.mts'
import type { Chapter } from './scenario.mts'

const project = join(root, 'migrations-fixture')
const [first, second, broken] = ['dd7c69423ad9', '5a77262c502b', '653d68312991']

const customers = `SELECT name || ' ' || discount FROM customers ORDER BY 1`

/** The scenarios and the commands that the research described, with its four migrations. */
export const seed: Chapter = {
  title: 'The scenarios of the research',
  text: 'Four migrations with the stock `env.py`: X, Y and Z stand for `5a77262c502b`, `653d68312991` (which is broken) and `5929dc9c624a`, on top of `dd7c69423ad9`.',
  scenarios: [
    {
      name: 'Single migration in set succeeds',
      project,
      target: first!,
      expected: { head: first!, rows: [customers], are: ['Ada 0%,Grace 0%'] },
    },
    { name: 'Single migration in set fails', project, from: second!, target: broken!, expected: 'unchanged' },
    { name: 'Multiple migrations in set, 1 fails in the set', project, from: first!, expected: 'unchanged' },
    { name: 'The same on a fresh database', project, expected: 'unchanged' },
    {
      name: 'Upgrade to a revision',
      project,
      from: first!,
      target: second!,
      expected: {
        head: second!,
        rows: ['SELECT customer_id || $$: $$ || total FROM orders'],
        are: ['1: 10.00,2: 20.00'],
      },
    },
    {
      name: 'Downgrade by one revision',
      project,
      from: second!,
      direction: 'downgrade',
      target: '-1',
      expected: { head: first!, rows: [customers], are: ['Ada 0%,Grace 0%'] },
    },
    {
      name: 'Downgrade to a revision',
      project,
      from: second!,
      direction: 'downgrade',
      target: first!,
      expected: { head: first!, rows: [customers], are: ['Ada 0%,Grace 0%'] },
    },
  ],
}
