import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { Failure } from '../../src/failure'
import { readInputs } from '../../src/inputs'
import { outputsOf } from '../../src/telling/outputs'
import { resultOfNothing } from '../../src/telling/result'
import { planOf, resultOf, revision } from './hostile'
import { nested } from './result'

const action = parse(readFileSync(join(import.meta.dirname, '..', '..', 'action.yml'), 'utf8')) as {
  inputs: Record<string, { description: string; default: string }>
  outputs: Record<string, { description: string }>
}

const environmentOf = (inputs: Record<string, string>) =>
  Object.fromEntries(Object.entries(inputs).map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value]))

const read = (inputs: Record<string, string>) => readInputs(environmentOf(inputs))

function failure(inputs: Record<string, string>): Failure {
  try {
    read(inputs)
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
    expect((error as Failure).reason).toBe('invalid-input')
    return error as Failure
  }
  throw new Error('the inputs were accepted')
}

const url = 'postgresql://deploy:hunter2hunter2@db.example/shop'
const defaults = {
  mode: 'preview',
  direction: 'upgrade',
  revision: 'head',
  python: ['python'],
  flaskApp: '',
  directory: 'migrations',
  alembicConfig: '',
  workingDirectory: '.',
  versionTable: '',
  versionTableSchema: '',
  label: '',
  comment: true,
  githubToken: '',
  lockTimeout: '5s',
  statementTimeout: '0',
  retries: 3,
  allowUntrusted: false,
  hideLiterals: false,
  planFile: '',
  planKey: '',
  requireReview: false,
  expectedDigest: '',
  twoPhase: 'auto',
  segments: false,
  databases: new Map(),
}

describe('action.yml', () => {
  test('has exactly the inputs that are read', () => {
    const asked = new Set<string>()
    const watched = (inputs: Record<string, string>) =>
      new Proxy(environmentOf(inputs), {
        get(target, name: string) {
          asked.add(name)
          return target[name]
        },
      })
    readInputs(watched({ 'from-revision': 'base' }))
    readInputs(watched({ mode: 'apply', direction: 'downgrade', 'database-url': url }))
    expect([...asked].sort()).toEqual(
      Object.keys(action.inputs)
        .map(name => `INPUT_${name.toUpperCase()}`)
        .sort(),
    )
  })

  test('has exactly the outputs that are written, in their order', () => {
    expect(Object.keys(outputsOf(nested(resultOf())))).toEqual(Object.keys(action.outputs))
  })

  test('describes each of them, and has a default, in quotes where YAML wants them', () => {
    for (const [name, { description, default: value }] of Object.entries(action.inputs)) {
      expect(description, name).toMatch(/\.$/)
      expect(typeof value, name).toBe('string')
    }
    for (const [name, { description }] of Object.entries(action.outputs)) expect(description, name).toMatch(/\.$/)
  })
})

describe('the defaults', () => {
  test('are those of action.yml, for a missing input and for an empty one', () => {
    const empty = Object.fromEntries(Object.keys(action.inputs).map(name => [name, '']))
    const blank = Object.fromEntries(Object.keys(action.inputs).map(name => [name, ' \n']))
    for (const inputs of [{}, empty, blank]) {
      expect(read({ ...inputs, 'from-revision': 'base' })).toEqual({ ...defaults, fromRevision: [] })
    }
  })

  test('are what the runner hands over', () => {
    const { 'github-token': _, ...others } = action.inputs
    const handed = Object.fromEntries(Object.entries(others).map(([name, input]) => [name, input.default]))
    expect(read({ ...handed, 'from-revision': 'base' })).toEqual({ ...defaults, fromRevision: [] })
  })

  test('have no token where the workflow gives none', () => {
    expect(read({ 'from-revision': 'base' }).githubToken).toBe('')
    expect(read({ 'from-revision': 'base', 'github-token': ' ghs_x ' }).githubToken).toBe('ghs_x')
  })
})

describe('an input', () => {
  test('is read without white space around it', () => {
    const inputs = read({
      mode: ' apply\n',
      'database-url': ` ${url}\n`,
      label: ' staging ',
      'flask-app': ' shop:app ',
      'version-table': ' versions ',
      'version-table-schema': 'app',
      'lock-timeout': ' 10s ',
    })
    expect(inputs).toMatchObject({
      mode: 'apply',
      label: 'staging',
      flaskApp: 'shop:app',
      versionTable: 'versions',
      versionTableSchema: 'app',
      lockTimeout: '10s',
    })
    expect(inputs.databases.get('default')?.config).toMatchObject({
      user: 'deploy',
      password: 'hunter2hunter2',
      host: 'db.example',
    })
    expect(inputs).not.toHaveProperty('fromRevision')
    expect(inputs).not.toHaveProperty('pullRequest')
  })

  test('revision is one step back by default when the direction is down', () => {
    const down = { mode: 'apply', direction: 'downgrade', 'database-url': url }
    expect(read(down).revision).toBe('-1')
    expect(read({ ...down, revision: 'base' }).revision).toBe('base')
    expect(read({ ...down, revision: 'label@-2' }).revision).toBe('label@-2')
  })

  test('from-revision names heads, or base', () => {
    expect(read({ 'from-revision': 'base' }).fromRevision).toEqual([])
    expect(read({ 'from-revision': 'abc , def' }).fromRevision).toEqual(['abc', 'def'])
    expect(read({ 'from-revision': 'abc', 'database-url': url })).toMatchObject({ fromRevision: ['abc'] })
  })

  test('python is split as a shell would', () => {
    expect(read({ 'from-revision': 'base', python: 'uv run --extra "db tools" python' }).python).toEqual([
      'uv',
      'run',
      '--extra',
      'db tools',
      'python',
    ])
  })

  test('comment and pull-request are read as what they are', () => {
    expect(read({ 'from-revision': 'base', comment: 'false', 'pull-request': '17' })).toMatchObject({
      comment: false,
      pullRequest: 17,
    })
  })

  test('version-table with Alembic’s own name leaves it to the project', () => {
    expect(read({ 'from-revision': 'base', 'version-table': 'alembic_version' }).versionTable).toBe('')
  })
})

describe('a mistake', () => {
  const wrong: [string, Record<string, string>, RegExp][] = [
    ['an unknown mode', { mode: 'Apply' }, /^mode is “Apply”; it can be preview, rehearse or apply\.$/],
    ['an unknown direction', { direction: 'up' }, /^direction is “up”; it can be upgrade or downgrade\.$/],
    ['a comment that is not yes or no', { comment: 'yes' }, /^comment is “yes”; it can be true or false\.$/],
    ['a range', { revision: 'a:b' }, /^revision is “a:b”; .* without a range\.$/],
    ['two targets', { revision: 'a b' }, /^revision is “a b”/],
    ['an empty id', { 'from-revision': 'a,,b' }, /^from-revision is “a,,b”; there is an empty id in it\.$/],
    ['nothing but a comma', { 'from-revision': ',' }, /empty id/],
    ['a name for a number', { 'pull-request': '#7' }, /^pull-request is “#7”; it can be a number\.$/],
    ['number nought', { 'pull-request': '0' }, /it can be a number/],
    ['no command', { python: '""' }, /^python names no command\.$/],
    ['an endless label', { label: 'x'.repeat(101) }, /^label is longer than 100 characters\.$/],
    [
      'a digest that is none',
      { 'expected-digest': 'sha256:abc' },
      /^expected-digest is “sha256:abc”; it can be sha256: and/,
    ],
    ['no URL', { 'database-url': 'nonsense' }, /^database-url: this is not a URL\.$/],
  ]
  for (const [name, inputs, message] of wrong) {
    test(`is named: ${name}`, () => {
      expect(failure({ 'from-revision': 'base', ...inputs }).message).toMatch(message)
    })
  }

  test('is named: no database to write to, and heads that nobody asked for', () => {
    expect(failure({ mode: 'apply' }).message).toBe('database-url is missing; mode: apply needs it.')
    expect(failure({ mode: 'rehearse' }).message).toBe('database-url is missing; mode: rehearse needs it.')
    expect(failure({ mode: 'apply', 'database-url': url, 'from-revision': 'abc' }).message).toBe(
      'from-revision is only for mode: preview; mode is apply.',
    )
  })

  test('is told together with all others, and with all advice', () => {
    const { message, details } = failure({
      mode: 'aply',
      direction: 'up',
      comment: 'maybe',
      revision: 'a:b',
      'database-url': 'postgresql://deploy:hunter2@x@db.example/shop',
      'pull-request': 'seven',
      label: 'x'.repeat(200),
    })
    for (const words of [
      'mode is',
      'direction is',
      'comment is',
      'revision is',
      'database-url:',
      'pull-request is',
      'label is',
    ]) {
      expect(message).toContain(words)
    }
    expect(details.advice).toContain('%40')
    expect(`${message}${details.advice}`).not.toContain('hunter2')
  })

  test('is not told twice over', () => {
    expect(failure({ mode: 'aply', direction: 'up' }).message).toBe(
      'mode is “aply”; it can be preview, rehearse or apply. direction is “up”; it can be upgrade or downgrade.',
    )
  })
})

describe('the outputs', () => {
  test('say what there is to say of a batch', () => {
    const plan = planOf([revision({ id: 'a' }), revision({ id: 'b' })])
    expect(
      outputsOf(
        nested(
          resultOf({
            outcome: 'applied',
            plan,
            priorHeads: ['x', 'y'],
            newHeads: ['b'],
            commentUrl: 'https://c',
            digested: { format: 'atomic-upgrade/digest', version: 1, direction: 'upgrade', databases: [] },
          }),
        ),
      ),
    ).toEqual({
      outcome: 'applied',
      'failure-reason': '',
      'prior-head': 'x,y',
      'new-head': 'b',
      revisions: '["a","b"]',
      pending: '2',
      digest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
      'sql-file': '/tmp/atomic-upgrade.sql',
      'plan-file': '',
      'comment-url': 'https://c',
      segments: '[]',
      databases: JSON.stringify({
        default: {
          'prior-head': 'x,y',
          'new-head': 'b',
          revisions: ['a', 'b'],
          outcome: 'applied',
          digests: { a: 'd'.repeat(64), b: 'd'.repeat(64) },
        },
      }),
    })
  })

  test('are all there when nothing is known', () => {
    expect(outputsOf(resultOfNothing(new Failure('invalid-input', 'no')))).toEqual({
      outcome: 'refused',
      'failure-reason': 'invalid-input',
      'prior-head': '',
      'new-head': '',
      revisions: '[]',
      pending: '0',
      digest: '',
      'sql-file': '',
      'plan-file': '',
      'comment-url': '',
      segments: '[]',
      databases: '{}',
    })
  })

  test('can be read back as JSON, whatever the ids are', () => {
    const ids = ['a"b', 'c\nd', 'é\u2028']
    const plan = planOf(ids.map(id => revision({ id })))
    expect(JSON.parse(outputsOf(nested(resultOf({ plan }))).revisions!)).toEqual(ids)
  })
})
