import { describe, expect, test } from 'vitest'
import { createDatabase, secondProject, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { superuser } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'

/** Prints what the child was given, each value reversed so that the log's mask would not hide it. */
const printEnvironment = `
import json, os
for name, value in os.environ.items():
    print("ENV", name, json.dumps(value[::-1]))`

const environmentIn = (log: string): Map<string, string> =>
  new Map(
    [...log.matchAll(/^ENV (\w+) (".*")$/gm)].map(([, name, value]) => [
      name!,
      [...(JSON.parse(value!) as string)].reverse().join(''),
    ]),
  )

const script = (upgrade: string) => [{ id: 'a1', upgrade }]

test('the user’s Python is handed no password, no token, no input and no file of the runner’s', async () => {
  const url = await createDatabase()
  const project = writeProject({ scripts: script('pass'), app: printEnvironment })
  const step = await start(
    project,
    url,
    { mode: 'apply' },
    {
      environment: {
        DATABASE_URL: url,
        DB_PASSWORD: superuser.password,
        PGPASSWORD: superuser.password,
        READ_REPLICA: url.replace('postgresql:', 'postgres:'),
        GITHUB_TOKEN: 'ghs_standin',
        MY_TOKEN: 'ghs_standin',
        HARMLESS: 'as it is',
      },
    },
  )
  expect(step.outputs.outcome, step.log).toBe('applied')
  const environment = environmentIn(step.log)
  expect(environment.get('HARMLESS')).toBe('as it is')
  expect(environment.get('DATABASE_URL')).toBe(url.replace(/:[^:/@]*@/, '@'))
  const names = [...environment.keys()]
  expect(
    names.filter(name =>
      /^INPUT_|^ACTIONS_|TOKEN$|^PGPASSWORD|^GITHUB_(OUTPUT|ENV|PATH|STATE|STEP_SUMMARY)$/.test(name),
    ),
  ).toEqual(['MY_TOKEN'])
  for (const [name, value] of environment) {
    for (const secret of [superuser.password, encodeURIComponent(superuser.password), 'ghs_standin', 'runtime-token'])
      expect(`${name}=${value}`).not.toContain(secret)
  }
})

test('an app that reads DATABASE_URL gets one, with the driver that the URL names or the one that is installed', async () => {
  const url = await createDatabase()
  for (const [scheme, expected] of [
    ['postgresql+psycopg', 'postgresql+psycopg:'],
    ['postgres', /^postgres(ql)?(\+psycopg2?)?:/],
  ] as const) {
    const project = writeProject({ scripts: script('pass'), app: printEnvironment })
    const step = await start(project, url.replace('postgresql', scheme), { mode: 'rehearse' })
    expect(step.outputs.outcome, step.log).toBe('rehearsed')
    expect(environmentIn(step.log).get('DATABASE_URL')).toMatch(expected)
  }
})

test('every form of the password is masked in the log', async () => {
  const url = await createDatabase()
  const step = await start(secondProject, url, { mode: 'apply' })
  const masks = step.commands.filter(({ name }) => name === 'add-mask').map(({ text }) => text)
  expect(masks).toContain(superuser.password)
  expect(masks).toContain(encodeURIComponent(superuser.password))
})

describe('a connection to anything but the gate fails closed', () => {
  const attempts = {
    'an engine with creator=': `
import psycopg
engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(REAL))
engine.connect()`,
    'a driver past SQLAlchemy (psycopg)': `
import psycopg
psycopg.connect(REAL)`,
    'a driver past SQLAlchemy (psycopg2)': `
import psycopg2
psycopg2.connect(REAL)`,
  }
  for (const [name, body] of Object.entries(attempts)) {
    test(name, async () => {
      const url = await createDatabase()
      const before = await contents(url)
      const upgrade = `op.execute("CREATE TABLE t (id int)")\n${body.replaceAll('REAL', JSON.stringify(url))}`
      const step = await start(writeProject({ scripts: script(upgrade) }), url, { mode: 'apply' })
      expect(step.outputs).toMatchObject({ outcome: 'rolled-back', 'failure-reason': 'migration-failed' })
      expect(step.log).toMatch(/past SQLAlchemy/)
      expect(await contents(url)).toBe(before)
    })
  }

  test('an engine by URL, wherever it points, ends in the gate', async () => {
    const url = await createDatabase()
    const elsewhere = `postgresql+psycopg://nobody:nothing@127.0.0.1:9/elsewhere?sslmode=require&connect_timeout=3`
    const upgrade = `
op.execute("CREATE TABLE t (id int)")
engine = sa.create_engine(${JSON.stringify(elsewhere)})
with engine.begin() as connection:
    connection.execute(sa.text("INSERT INTO t VALUES (1)"))`
    const step = await start(writeProject({ scripts: script(upgrade) }), url, { mode: 'apply' })
    expect(step.outputs.outcome, step.log).toBe('applied')
    expect(await contents(url)).toContain('public.t: {"id": 1}')
  })
})
