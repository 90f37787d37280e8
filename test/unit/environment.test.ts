import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { childEnvironment } from '../../src/alembic/environment'
import { readDatabaseUrl } from '../../src/postgres/url'
import { hostile } from './hostile'

const token = 'ghs_0123456789abcdefghijklmnopqrstuvwxyzAB'
const placeholder = 'withheld-by-atomic-upgrade'

function child(environment: NodeJS.ProcessEnv, { secrets = [] as string[], gitHubToken = token } = {}) {
  return childEnvironment(environment, { secrets, token: gitHubToken })
}
const handed = (value: string, secrets: string[] = [], name = 'SOMETHING') =>
  child({ [name]: value }, { secrets })[name]

describe('is not handed over', () => {
  test('any input, token, file of the runner’s, or setting that would steer libpq past the gate', () => {
    const names = [
      'INPUT_MODE',
      'INPUT_DATABASE-URL',
      'INPUT_GITHUB-TOKEN',
      'INPUT_PLAN-KEY',
      'input_mode',
      'ACTIONS_RUNTIME_TOKEN',
      'ACTIONS_RUNTIME_URL',
      'ACTIONS_ID_TOKEN_REQUEST_TOKEN',
      'ACTIONS_ID_TOKEN_REQUEST_URL',
      'ACTIONS_CACHE_URL',
      'GITHUB_TOKEN',
      'GH_TOKEN',
      'GH_ENTERPRISE_TOKEN',
      'GITHUB_ENTERPRISE_TOKEN',
      'GITHUB_OUTPUT',
      'GITHUB_ENV',
      'GITHUB_PATH',
      'GITHUB_STATE',
      'GITHUB_STEP_SUMMARY',
      'PGPASSWORD',
      'PGSERVICE',
      'PGSERVICEFILE',
      'PGSSLMODE',
      'PGSSLROOTCERT',
      'PGSSLKEY',
      'PGREQUIRESSL',
      'PGREQUIREAUTH',
      'PGCHANNELBINDING',
      'PGGSSENCMODE',
      'PGTARGETSESSIONATTRS',
      'PGLOADBALANCEHOSTS',
      'PGHOSTADDR',
    ]
    const given = child(Object.fromEntries(names.map(name => [name, 'anything'])))
    expect(Object.keys(given).sort()).toEqual(['PGPASSFILE', 'PYTHONHASHSEED', 'PYTHONUNBUFFERED'])
  })

  test('a password file', () => {
    expect(child({ PGPASSFILE: '/home/deploy/.pgpass' }).PGPASSFILE).toMatch(/^(\/dev\/null|NUL)$/)
  })

  test('the token, whatever variable it is in and however GitHub’s tools wrap it', () => {
    expect(handed(token)).toBe(placeholder)
    expect(handed(`Bearer ${token}`)).not.toContain(token)
    const basic = Buffer.from(`x-access-token:${token}`).toString('base64')
    expect(handed(`AUTHORIZATION: basic ${basic}`)).not.toContain(basic)
    expect(child({ X: 'short' }, { gitHubToken: '' }).X).toBe('short')
  })

  test('any other token of GitHub’s', () => {
    for (const other of [
      'ghp_0123456789abcdefghijklmnopqrstuvwxyz',
      'gho_0123456789abcdefghijklmnopqrstuvwxyz',
      'ghs_16C7e42F292c6912E7710c838347Ae178B4a',
      'github_pat_11ABCDEFG0aaaaaaaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbbbbb',
    ]) {
      expect(child({ MINE: `https://x:${other}@github.com/acme/shop` }, { gitHubToken: '' }).MINE).toBe(
        `https://x:${placeholder}@github.com/acme/shop`,
      )
    }
  })
})

describe('a password', () => {
  test('is taken out of any PostgreSQL URL, also one that is not the step’s', () => {
    expect(handed('postgresql://deploy:hunter2@db.example/shop')).toBe('postgresql://deploy@db.example/shop')
    expect(handed('postgres://deploy:hunter2@db.example:5432/shop?sslmode=require')).toBe(
      'postgres://deploy@db.example:5432/shop?sslmode=require',
    )
    expect(handed('postgresql+asyncpg://deploy:p%40ss@/shop?host=/run')).toBe(
      'postgresql+asyncpg://deploy@/shop?host=/run',
    )
    expect(handed('default=postgresql://a:one1@h/x\nother=postgresql://b:two2@h/y')).toBe(
      'default=postgresql://a@h/x\nother=postgresql://b@h/y',
    )
    expect(handed('postgresql://a:one1@h/x,postgresql://b:two2@h/y')).toBe('postgresql://a@h/x,postgresql://b@h/y')
    expect(handed('{"url":"postgresql://a:one1@h/x"}')).toBe('{"url":"postgresql://a@h/x"}')
    expect(handed('postgresql://:only-it@h/x')).toBe('postgresql://@h/x')
  })

  test('is taken out of a URL even when it is not percent-encoded', () => {
    for (const secret of ['p@ss', 'a/b', 'a?b', 'a b c', 'a:b', '@', '@@x@', 'a#b']) {
      expect(handed(`postgresql://deploy:${secret}@db.example/shop`)).toBe('postgresql://deploy@db.example/shop')
    }
  })

  test('is taken out of libpq’s keys and values, of a query, and of JSON', () => {
    expect(handed('host=h password=hunter2 user=deploy')).toBe(`host=h password=${placeholder} user=deploy`)
    expect(handed("host=h password = 'hun ter\\'2' user=deploy")).toBe(`host=h password = ${placeholder} user=deploy`)
    expect(handed('jdbc:postgresql://h/shop?user=a&password=hunter2&ssl=true')).toBe(
      `jdbc:postgresql://h/shop?user=a&password=${placeholder}&ssl=true`,
    )
    expect(handed('{"user": "a", "password": "hun\\"ter2", "port": 5432}')).toBe(
      `{"user": "a", "password": "${placeholder}", "port": 5432}`,
    )
  })

  test('of the step is taken out of any value, in every form, if it is not a common word', () => {
    fc.assert(
      fc.property(
        fc.tuple(fc.string({ minLength: 7, maxLength: 20 }), fc.integer({ min: 0, max: 9 })),
        hostile,
        ([text, digit], around) => {
          const secret = `${text.replaceAll(/[\0\s]/g, '_')}${digit}`
          fc.pre(!placeholder.includes(secret))
          const { secrets } = readDatabaseUrl(`postgresql://deploy:${encodeURIComponent(secret)}@db.example/shop`)
          for (const form of [secret, encodeURIComponent(secret), JSON.stringify(secret)]) {
            const given = handed(`${around} ${form} ${around}`, secrets)!
            fc.pre(!around.includes(secret))
            expect(given).not.toContain(form)
          }
        },
      ),
      { numRuns: 1_000 },
    )
  })

  test('that is a word is taken out where a name says that it is a password, and nowhere else', () => {
    const secrets = ['postgres']
    for (const name of [
      'DB_PASSWORD',
      'POSTGRES_PASSWORD',
      'DBPASS',
      'DB_PWD',
      'APP_SECRET',
      'DB_PW',
      'DB_CREDENTIAL',
    ]) {
      expect(handed('postgres', secrets, name)).toBe(placeholder)
    }
    const harmless = {
      PATH: '/usr/lib/postgresql/16/bin:/usr/bin',
      PGUSER: 'postgres',
      DATABASE_URL: 'postgresql://postgres@localhost/postgres',
      DOCS: 'see https://www.postgresql.org',
    }
    expect(child(harmless, { secrets })).toMatchObject(harmless)
    expect(handed('a', ['a'], 'DB_PASSWORD')).toBe(placeholder)
    expect(handed('banana', ['a'])).toBe('banana')
  })

  test('in PGPASSWORD is taken out of the other variables too', () => {
    expect(
      child({ PGPASSWORD: 'hunter2hunter2', X: 'is hunter2hunter2', DB_PASSWORD: 'hunter2hunter2' }),
    ).toMatchObject({
      X: `is ${placeholder}`,
      DB_PASSWORD: placeholder,
    })
  })
})

describe('stays as it is', () => {
  test('what an app needs', () => {
    const environment = {
      PATH: '/opt/python/bin:/usr/local/bin:/usr/bin',
      HOME: '/home/runner',
      PYTHONPATH: 'src:lib',
      VIRTUAL_ENV: '/home/runner/.venv',
      FLASK_APP: 'shop:create_app("production")',
      LANG: 'C.UTF-8',
      GITHUB_ACTIONS: 'true',
      GITHUB_REPOSITORY: 'acme/shop',
      GITHUB_SHA: '0123456789abcdef0123456789abcdef01234567',
      GITHUB_WORKSPACE: '/home/runner/work/shop/shop',
      RUNNER_TEMP: '/home/runner/work/_temp',
      PGHOST: 'db.example',
      PGUSER: 'deploy',
      PGDATABASE: 'shop',
      PGOPTIONS: '-c search_path=app',
      REDIS_URL: 'redis://:of-another-service@redis.example:6379/0',
      SECRET_KEY: 'of the app itself',
      NOTE: 'mail a@b.example, see https://example.org/?x=1@2 and postgresql://db.example:5432/shop',
      EMPTY: '',
      WITHOUT: 'postgresql://deploy@db.example/shop?application_name=a',
    }
    expect(child(environment, { secrets: ['hunter2hunter2'] })).toMatchObject(environment)
  })

  test('Python’s hash seed and buffering, where the workflow sets them', () => {
    expect(child({})).toMatchObject({ PYTHONHASHSEED: '0', PYTHONUNBUFFERED: '1' })
    expect(child({ PYTHONHASHSEED: '7', PYTHONUNBUFFERED: '' })).toMatchObject({
      PYTHONHASHSEED: '7',
      PYTHONUNBUFFERED: '',
    })
  })
})
