import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Failure } from '../../src/failure'
import { readDatabaseUrl, readDatabaseUrls } from '../../src/postgres/url'
import { hostile } from './hostile'

let sslMode: string | undefined
beforeEach(() => {
  sslMode = process.env.PGSSLMODE
  delete process.env.PGSSLMODE
})
afterEach(() => {
  if (sslMode !== undefined) process.env.PGSSLMODE = sslMode
  else delete process.env.PGSSLMODE
})

/** As Python's `urllib.parse.quote(text, safe='')`. */
const quote = (text: string) =>
  encodeURIComponent(text).replaceAll(/[!'()*]/g, each => `%${each.charCodeAt(0).toString(16).toUpperCase()}`)

/** A password as a person or a generator makes one: any character that PostgreSQL takes, and long enough to be found again. */
const password = fc
  .tuple(hostile, fc.string({ unit: 'binary', maxLength: 12 }))
  .map(parts => Buffer.from(parts.join('').replaceAll('\0', '')).toString())
  .filter(text => text.length >= 4 && !'postgresql+psycopg://deploy@db.example:5432/shop?sslmode=prefer'.includes(text))

function failure(text: string, read: (text: string) => unknown = readDatabaseUrl): Failure {
  try {
    read(text)
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
    expect((error as Failure).reason).toBe('invalid-input')
    return error as Failure
  }
  throw new Error(`${text} was accepted`)
}

describe('a password', () => {
  test('of any characters, percent-encoded, comes out as it went in, and is told to nobody', () => {
    fc.assert(
      fc.property(password, fc.constantFrom(encodeURIComponent, quote), (secret, encode) => {
        const read = readDatabaseUrl(
          `postgresql+psycopg://deploy:${encode(secret)}@db.example:5432/shop?sslmode=prefer`,
        )
        expect(read.config).toMatchObject({
          user: 'deploy',
          password: secret,
          host: 'db.example',
          port: 5432,
          database: 'shop',
        })
        expect(read.name).toBe('postgresql://deploy@db.example:5432/shop')
        expect(read.urlWithoutPassword).toBe('postgresql+psycopg://deploy@db.example:5432/shop?sslmode=prefer')
        for (const form of [secret, encodeURIComponent(secret), quote(secret), JSON.stringify(secret).slice(1, -1)]) {
          expect(read.secrets).toContain(form)
        }
      }),
      { numRuns: 1_000 },
    )
  })

  test('in the query comes out as it went in, and is told to nobody', () => {
    fc.assert(
      fc.property(password, secret => {
        const read = readDatabaseUrl(
          `postgresql://db.example/shop?application_name=x&password=${quote(secret)}&user=deploy`,
        )
        expect(read.config).toMatchObject({ user: 'deploy', password: secret, host: 'db.example' })
        expect(read.name).toBe('postgresql://db.example/shop?user=deploy')
        expect(read.urlWithoutPassword).toBe('postgresql://db.example/shop?application_name=x&user=deploy')
        expect(read.secrets).toContain(secret)
        expect(read.secrets).toContain(quote(secret))
      }),
      { numRuns: 1_000 },
    )
  })

  test('written raw is read as SQLAlchemy reads it: up to the first @', () => {
    for (const secret of [
      'a:b',
      'a/b',
      'a?b',
      'a#b',
      'a b',
      'a%b',
      '100%',
      '%zz',
      'a[b]c',
      'a&b=c',
      'a+b',
      '\\',
      'pässwörd',
      "'",
      '"',
    ]) {
      const read = readDatabaseUrl(`postgresql://deploy:${secret}@db.example/shop`)
      expect(read.config.password, secret).toBe(secret)
      expect(read.config.host).toBe('db.example')
      expect(read.secrets).toContain(secret)
      expect(read.name).toBe('postgresql://deploy@db.example/shop')
    }
  })

  test('is masked in the spellings of Python, SQLAlchemy and JSON too', () => {
    const { secrets } = readDatabaseUrl('postgresql://deploy:p%61ss+w/%20%27%22%5Cü(1)@db.example/shop')
    for (const form of [
      'p%61ss+w/%20%27%22%5Cü(1)',
      'pass+w/ \'"\\ü(1)',
      'pass%2Bw%2F%20%27%22%5C%C3%BC%281%29',
      'pass%2Bw/%20%27%22%5C%C3%BC%281%29',
      'pass%2Bw%2F+%27%22%5C%C3%BC%281%29',
      'pass+w%2F %27%22%5C%C3%BC%281%29',
      'pass+w/ \'\\"\\\\ü(1)',
      'pass+w/ \'\\"\\\\\\u00fc(1)',
    ]) {
      expect(secrets).toContain(form)
    }
    expect(secrets.map(({ length }) => length)).toEqual(secrets.map(({ length }) => length).sort((a, b) => b - a))
    expect(new Set(secrets).size).toBe(secrets.length)
  })

  test('in the query goes before the other, as with SQLAlchemy and libpq, and both are secret', () => {
    const read = readDatabaseUrl('postgresql://deploy:first-one@db.example/shop?password=second-one')
    expect(read.config.password).toBe('second-one')
    expect(read.secrets).toEqual(['second-one', 'first-one'])
    expect(JSON.stringify([read.name, read.urlWithoutPassword])).not.toMatch(/first-one|second-one/)
  })

  test('is found in the query however its name is written', () => {
    const read = readDatabaseUrl('postgresql://deploy@db.example/shop?p%61ssword=hidden-one&sslpassword=hidden-two')
    expect(read.config.password).toBe('hidden-one')
    expect(read.secrets).toEqual(expect.arrayContaining(['hidden-one', 'hidden-two']))
    expect(read.urlWithoutPassword).toBe('postgresql://deploy@db.example/shop')
  })

  test('that is not there is none', () => {
    for (const url of [
      'postgresql://deploy@db.example/shop',
      'postgresql://deploy:@db.example/shop',
      'postgresql:///shop?password=',
    ]) {
      const read = readDatabaseUrl(url)
      expect(read.config).not.toHaveProperty('password')
      expect(read.secrets).toEqual([])
    }
  })
})

describe('the forms', () => {
  test('of SQLAlchemy and libpq are both read, and the scheme stays for the app', () => {
    for (const scheme of [
      'postgres',
      'postgresql',
      'postgresql+psycopg',
      'postgresql+psycopg2',
      'postgresql+asyncpg',
    ]) {
      const read = readDatabaseUrl(` ${scheme}://deploy:hunter2@db.example:6543/shop\n`)
      expect(read.config).toEqual({
        user: 'deploy',
        password: 'hunter2',
        host: 'db.example',
        port: 6543,
        database: 'shop',
        ssl: { rejectUnauthorized: false },
      })
      expect(read.name).toBe('postgresql://deploy@db.example:6543/shop')
      expect(read.urlWithoutPassword).toBe(`${scheme}://deploy@db.example:6543/shop`)
    }
  })

  test('may leave out what libpq finds out by itself', () => {
    const place = (url: string) => {
      const { ssl: _, ...rest } = readDatabaseUrl(url).config
      return rest
    }
    expect(place('postgresql://')).toEqual({})
    expect(place('postgresql:///shop')).toEqual({ database: 'shop' })
    expect(place('postgresql://db.example')).toEqual({ host: 'db.example' })
    expect(place('postgresql://deploy@/shop')).toEqual({ user: 'deploy', database: 'shop' })
    expect(place('postgresql://deploy@:6543/shop')).toEqual({ user: 'deploy', port: 6543, database: 'shop' })
    expect(place('postgresql://db.example:/shop')).toEqual({ host: 'db.example', database: 'shop' })
  })

  test('have names with any characters in them', () => {
    const { config } = readDatabaseUrl('postgresql://de%40ploy:x@db.example/my%2Fshop%20%C3%A4%3F%23')
    expect(config).toMatchObject({ user: 'de@ploy', database: 'my/shop ä?#' })
    expect(readDatabaseUrl('postgresql://deploy@db.example/shop#1').config.database).toBe('shop#1')
    expect(readDatabaseUrl('postgresql://deploy@db.example/100%').config.database).toBe('100%')
  })

  test('have IPv6 addresses in brackets', () => {
    expect(readDatabaseUrl('postgresql://deploy:x@[::1]:6543/shop').config).toMatchObject({ host: '::1', port: 6543 })
    expect(readDatabaseUrl('postgresql://[fe80::1%25eth0]/shop').config.host).toBe('fe80::1%25eth0')
    expect(readDatabaseUrl('postgresql://deploy:x@[::1]:6543/shop').name).toBe('postgresql://deploy@[::1]:6543/shop')
  })

  test('lead to Unix sockets, where TLS is not a question', () => {
    for (const url of [
      'postgresql://deploy:x@/shop?host=/var/run/postgresql&port=6543',
      'postgresql://deploy:x@%2Fvar%2Frun%2Fpostgresql:6543/shop',
      'postgresql+psycopg2://deploy:x@:6543/shop?host=%2Fvar%2Frun%2Fpostgresql&sslmode=require',
      'postgresql://?host=/var/run/postgresql&port=6543&dbname=shop&user=deploy&password=x',
    ]) {
      const read = readDatabaseUrl(url)
      expect(read.config, url).toEqual({
        user: 'deploy',
        password: 'x',
        host: '/var/run/postgresql',
        port: 6543,
        database: 'shop',
        ssl: false,
      })
      expect(read.tls).toBe('disable')
    }
    expect(readDatabaseUrl('postgresql://deploy:x@/shop?host=/run&options=-c%20a=b').name).toBe(
      'postgresql://deploy@/shop?host=/run',
    )
  })

  test('carry options, which stay for the app as they were written', () => {
    const url =
      'postgresql://deploy:x@db.example/shop?options=-c%20search_path%3Dapp&connect_timeout=7&application_name=a?b'
    const read = readDatabaseUrl(url)
    expect(read.config).toMatchObject({ options: '-c search_path=app', connect_timeout: '7' })
    expect(read.config).not.toHaveProperty('application_name')
    expect(read.urlWithoutPassword).toBe(url.replace(':x@', '@'))
    expect(readDatabaseUrl('postgresql://db.example/shop?options=-c search_path=a?b#c').config).toMatchObject({
      options: '-c search_path=a?b#c',
    })
  })

  test('steer nothing of the client that libpq would not know', () => {
    const { config } = readDatabaseUrl(
      'postgresql://db.example/shop?query_timeout=1&connectionString=postgresql://other/&ssl=require',
    )
    expect(Object.keys(config).sort()).toEqual(['database', 'host', 'ssl'])
  })
})

describe('sslmode', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-url-'))
    for (const name of ['ca', 'cert', 'key']) writeFileSync(join(folder, name), `the ${name}`)
  })
  afterAll(() => rmSync(folder, { recursive: true }))
  const read = (query: string) =>
    readDatabaseUrl(`postgresql://deploy:x@db.example/shop?${query.replaceAll('FOLDER', folder)}`)

  test('means what it means to libpq', () => {
    expect(read('').config.ssl).toEqual({ rejectUnauthorized: false })
    expect(read('').tls).toBe('prefer')
    expect(read('sslmode=disable').config.ssl).toBe(false)
    expect(read('sslmode=allow').tls).toBe('prefer')
    expect(read('sslmode=require').config.ssl).toEqual({ rejectUnauthorized: false })
    expect(read('sslmode=verify-full').config.ssl).toEqual({})
    expect(read('sslmode=verify-full&sslrootcert=FOLDER/ca').config.ssl).toEqual({ ca: 'the ca' })
    const chainOnly = { ca: 'the ca', checkServerIdentity: expect.any(Function) }
    expect(read('sslmode=verify-ca&sslrootcert=FOLDER/ca').config.ssl).toEqual(chainOnly)
    expect(read('sslmode=require&sslrootcert=FOLDER/ca').config.ssl).toEqual(chainOnly)
    expect(read('sslmode=verify-full&sslcert=FOLDER/cert&sslkey=FOLDER/key').config.ssl).toEqual({
      cert: 'the cert',
      key: 'the key',
    })
  })

  test('is also written as asyncpg does', () => {
    expect(read('ssl=require').tls).toBe('require')
    expect(read('ssl=true').tls).toBe('require')
    expect(read('ssl=false').tls).toBe('disable')
  })

  test('comes from PGSSLMODE where the URL has none', () => {
    process.env.PGSSLMODE = 'verify-full'
    expect(read('').tls).toBe('verify-full')
    expect(read('sslmode=disable').tls).toBe('disable')
  })

  test('is never weaker than it sounds', () => {
    expect(failure('postgresql://db.example/shop?sslmode=verify-ca').message).toContain('sslrootcert')
    expect(read('sslrootcert=system').tls).toBe('verify-full')
    expect(read('sslrootcert=system').config.ssl).toEqual({})
    expect(failure('postgresql://db.example/shop?sslrootcert=system&sslmode=require').message).toContain('verify-full')
    for (const mode of ['Require', 'verify_full', 'constructor', '__proto__']) {
      expect(failure(`postgresql://db.example/shop?sslmode=${mode}`).message).toContain(`sslmode is “${mode}”`)
    }
  })

  test('names a file that is not there', () => {
    expect(failure('postgresql://deploy:hunter2@db.example/shop?sslrootcert=/no/such/file').message).toMatch(
      /ENOENT.*\/no\/such\/file/,
    )
  })
})

describe('a mistake', () => {
  test('is named', () => {
    const message = (url: string) => failure(url).message
    expect(message(' ')).toContain('it is empty')
    expect(message('localhost/shop')).toContain('this is not a URL')
    expect(message('mysql://root@localhost/shop')).toContain('the scheme mysql is not PostgreSQL’s')
    expect(message('postgresql+psycopg-async://root@localhost/shop')).toContain('is not PostgreSQL’s')
    expect(message('postgresql://deploy:a@b@db.example/shop')).toContain('an @ in it that is out of place')
    expect(message('postgresql:///shop?host=/run/a@b')).toContain('an @ in it that is out of place')
    expect(message('postgresql://db.example:5432/shop?password=hunt@er2')).toContain('an @ in it that is out of place')
    expect(message('postgresql://db1.example,db2.example/shop')).toContain('name one host')
    expect(message('postgresql://db1.example:1,db2.example:2/shop')).toContain('name one host')
    expect(message('postgresql:///shop?host=a,b')).toContain('name one host')
    for (const port of ['x', '0', '65536', '-1'])
      expect(message(`postgresql://db.example:${port}/shop`)).toContain('port')
    expect(message('postgresql:///shop?port=x')).toContain('port')
    expect(message('postgresql://[::1/shop')).toContain('host')
  })

  test('comes with the form that a URL has, and how to write what stands in its way', () => {
    expect(failure('postgresql://deploy:a@b@db.example/shop').details.advice).toMatch(/%40/)
  })

  test('is never told with the password, wherever that stands', () => {
    fc.assert(
      fc.property(
        password.filter(text => text.length >= 8),
        fc.constantFrom(
          (secret: string) => `mysql://root:${secret}@db.example/shop`,
          (secret: string) => `root:${secret}@db.example/shop`,
          (secret: string) => `postgresql://root:${secret}@x@db.example/shop`,
          (secret: string) => `postgresql://root:${quote(secret)}@db.example:port/shop`,
          (secret: string) => `postgresql://root:${quote(secret)}@a,b/shop`,
          (secret: string) => `postgresql://root:${quote(secret)}@db.example/shop?sslmode=no`,
          (secret: string) => `postgresql://root:${quote(secret)}@db.example/shop?sslrootcert=/no/such/file`,
          (secret: string) => `postgresql://db.example:5432/shop?password=${secret}@x`,
          (secret: string) => `postgresql://root:${secret}`,
        ),
        (secret, form) => {
          const url = form(secret)
          // Without a host, what looks like one is shown.
          fc.pre(url.includes('@db.') || url.includes('@x') || url.includes('@a,') || !/[@/?[\]]/.test(secret))
          try {
            const read = readDatabaseUrl(url)
            expect(JSON.stringify([read.name, read.urlWithoutPassword])).not.toContain(
              JSON.stringify(secret).slice(1, -1),
            )
          } catch (error) {
            if (!(error instanceof Failure)) throw error
            const told = [error.message, error.details.advice, error.stack, String(error.cause)].join('\n')
            for (const text of [secret, quote(secret), url]) expect(told).not.toContain(text)
          }
        },
      ),
      { numRuns: 1_000 },
    )
  })
})

describe('the round trip', () => {
  /** Any name that PostgreSQL takes. */
  const name = fc
    .tuple(hostile, fc.string({ unit: 'binary', maxLength: 12 }))
    .map(parts => Buffer.from(parts.join('').replaceAll('\0', '')).toString())
    .filter(text => text !== '')
  const host = fc.oneof(
    fc.domain().map(written => ({ written, meant: written })),
    fc.ipV4().map(written => ({ written, meant: written })),
    fc.ipV6().map(meant => ({ written: `[${meant}]`, meant })),
    name.filter(text => !text.includes(',')).map(text => ({ written: quote(`/${text}`), meant: `/${text}` })),
  )
  const parts = fc.record({
    scheme: fc.constantFrom('postgres', 'postgresql', 'postgresql+psycopg', 'postgresql+asyncpg'),
    user: name,
    secret: password.filter(text => text.length >= 8),
    host,
    port: fc.integer({ min: 1, max: 65_535 }),
    database: name,
    options: fc.option(name, { nil: undefined }),
    application: fc.option(name, { nil: undefined }),
  })
  type Parts = typeof parts extends fc.Arbitrary<infer T> ? T : never

  const write = ({ scheme, user, host, port, database, options, application }: Parts, password: string) => {
    const query = [
      ...(options === undefined ? [] : [`options=${quote(options)}`]),
      ...(application === undefined ? [] : [`application_name=${quote(application)}`]),
    ]
    const place = `${quote(user)}${password}@${host.written}:${port}/${quote(database)}`
    return `${scheme}://${place}${query.length > 0 ? `?${query.join('&')}` : ''}`
  }
  const expected = ({ user, secret, host, port, database, options }: Parts) => ({
    user,
    password: secret,
    host: host.meant,
    port,
    database,
    ...(options !== undefined && { options }),
  })
  const withoutTls = ({ ssl: _, ...config }: ReturnType<typeof readDatabaseUrl>['config']) => config

  test('of any user, password, host, port, database and options gives each as it was', () => {
    fc.assert(
      fc.property(parts, parts => {
        const bare = write(parts, '')
        fc.pre(!bare.includes(parts.secret) && !bare.includes(quote(parts.secret)))
        const read = readDatabaseUrl(write(parts, `:${quote(parts.secret)}`))
        expect(withoutTls(read.config)).toEqual(expected(parts))
        expect(read.urlWithoutPassword).toBe(bare)
        expect(bare.replace(/^[^:]*/, 'postgresql').startsWith(read.name)).toBe(true)
        for (const secret of read.secrets) expect(read.name + read.urlWithoutPassword).not.toContain(secret)
        const { password: _, ...others } = expected(parts)
        expect(withoutTls(readDatabaseUrl(read.urlWithoutPassword).config)).toEqual(others)
      }),
      { numRuns: 1_000 },
    )
  })

  test('of several databases, one a line, gives each by its bind, in their order', () => {
    const bind = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 10 }).filter(text => /^[^\s:=/?@]+$/.test(text))
    const lines = fc.uniqueArray(fc.tuple(bind, parts, fc.constantFrom('=', ' = ', '= ')), {
      minLength: 1,
      maxLength: 4,
      selector: ([bind]) => bind,
    })
    fc.assert(
      fc.property(lines, fc.constantFrom('\n', '\r\n', '\n\n', ' \n  '), (lines, end) => {
        const written = lines.map(([bind, parts, equals]) => bind + equals + write(parts, `:${quote(parts.secret)}`))
        const read = readDatabaseUrls(`${end}${written.join(end)}${end}`)
        expect([...read.keys()]).toEqual(lines.map(([bind]) => bind))
        for (const [bind, parts] of lines) expect(withoutTls(read.get(bind)!.config)).toEqual(expected(parts))
      }),
      { numRuns: 500 },
    )
  })

  test('of any text gives databases or a Failure', () => {
    const text = fc.oneof(
      hostile,
      fc.tuple(name, hostile).map(([bind, rest]) => `${bind}=postgresql://u:${rest}@db/shop`),
      fc
        .array(
          fc.oneof(hostile, fc.constantFrom('postgresql://', 'a=', '\n', '@', ':', '?', '&', 'password=', '%', '[')),
        )
        .map(pieces => pieces.join('')),
    )
    fc.assert(
      fc.property(text, text => {
        try {
          readDatabaseUrls(text)
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
        }
      }),
      { numRuns: 1_000 },
    )
  })

  test('of lines that name no bind, or one twice, is refused without their passwords', () => {
    fc.assert(
      fc.property(fc.array(parts, { minLength: 2, maxLength: 3 }), fc.constantFrom('', 'twice='), (all, bind) => {
        const lines = all.map(parts => bind + write(parts, `:${quote(parts.secret)}`))
        const { message, details } = failure(lines.join('\n'), readDatabaseUrls)
        for (const { secret } of all)
          for (const form of [secret, quote(secret)]) expect(message + details.advice).not.toContain(form)
      }),
    )
  })
})
