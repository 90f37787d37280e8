import { readFileSync } from 'node:fs'
import type { ClientConfig } from 'pg'
import { Failure, messageOf } from '../failure'

/** How far TLS goes; libpq's `sslmode`, with `allow` taken as `prefer`. */
export type TlsMode = 'disable' | 'prefer' | 'require' | 'verify-ca' | 'verify-full'

/** One database, read from its URL. */
export interface Database {
  /** For pg; `ssl` is what `tls` asks for. */
  config: ClientConfig
  tls: TlsMode
  /** Which of libpq's environment variables say what the URL leaves out. */
  fromEnvironment: string[]
  /** For people: scheme, user, host and database, without password and options. */
  name: string
  /** The URL as it was given, without the password. */
  urlWithoutPassword: string
  /** Every form of the password that may turn up in a text, longest first. */
  secrets: string[]
}

// As SQLAlchemy and libpq read it: the password goes up to the first @, whatever else is in it.
const form = /^(?<scheme>postgres(?:ql)?(?:\+\w+)?):\/\/(?:(?<user>[^:/@]*)(?::(?<password>[^@]*))?@)?(?<rest>[^@]*)$/s

// The host may be an IPv6 address in brackets, or percent-encoded: a socket's folder.
const place = /^(?:\[(?<address>[^\]/]*)\]|(?<host>[^:/[\]]*))(?::(?<port>\d*))?(?:\/(?<database>.*))?$/s

/** What of the query goes to pg as it is; anything else of libpq's it would not understand. */
const passedOn = ['user', 'options', 'client_encoding', 'connect_timeout', 'sslnegotiation']

/**
 * Reads a URL in SQLAlchemy's form (`postgresql+psycopg://…`) or libpq's (`postgresql://…`). As with both of them, what
 * the query says goes before the rest.
 * Throws a Failure `invalid-input` that does not repeat the URL, for it may hold a password.
 */
export function readDatabaseUrl(text: string): Database {
  const { scheme, user, password, rest = '' } = form.exec(text.trim())?.groups ?? {}
  // SQLAlchemy reads `host:5432/name?password=a@b` as user, password and host, libpq as host, name and password.
  if (!scheme || /[?&]password=/i.test(password ?? '')) throw invalid(whatIsWrong(text.trim()))
  const at = rest.indexOf('?')
  const address = at < 0 ? rest : rest.slice(0, at)
  const pairs = at < 0 ? [] : rest.slice(at + 1).split('&')
  const [hidden, open] = [pairs.filter(isSecret), pairs.filter(pair => !isSecret(pair))]
  const queryPassword = new URLSearchParams(hidden.join('&')).get('password') ?? undefined
  const options = new URLSearchParams(open.join('&'))
  const { host, port, database } = readPlace(address, options)
  const { mode: tls, files } = readTls(options, host)
  const decoded = queryPassword ?? decode(password ?? '')
  const config = {
    ...(user && { user: decode(user) }),
    ...Object.fromEntries([...options].filter(([key]) => passedOn.includes(key))),
    ...(decoded && { password: decoded }),
    ...(host && { host }),
    ...(port && { port: Number(port) }),
    ...(database && { database }),
    ssl: tlsOptions(tls, files),
  }
  const withQuery = (base: string, kept: string[]) => (kept.length === 0 ? base : `${base}?${kept.join('&')}`)
  const whoAndWhere = `${user ? `${user}@` : ''}${address}`
  return {
    config,
    tls,
    fromEnvironment: variables
      .filter(
        ([name, of]) =>
          process.env[name] && !(of === 'tls' ? options.has('sslmode') || options.has('ssl') : of in config),
      )
      .map(([name]) => name),
    name: withQuery(
      `postgresql://${whoAndWhere}`,
      open.filter(pair => ['user', 'host', 'port', 'dbname'].includes(keyOf(pair))),
    ),
    urlWithoutPassword: withQuery(`${scheme}://${whoAndWhere}`, open),
    secrets: secretForms([password, ...hidden.map(pair => pair.slice(pair.indexOf('=') + 1))]),
  }
}

/**
 * Reads one URL, or one `bind=url` a line; the databases by their binds, in that order. Throws a Failure `invalid-input`.
 */
export function readDatabaseUrls(text: string): Map<string, Database> {
  const lines = text.split(/\r?\n/).flatMap(line => line.trim() || [])
  const databases = new Map<string, Database>()
  for (const line of lines) {
    const [, bind = 'default', url = line] = /^([^\s:=/?@]+)\s*=\s*(.*)$/.exec(line) ?? []
    if (url === line && lines.length > 1) throw severalUrls('one of its lines names no bind.')
    if (databases.has(bind)) throw severalUrls(`the bind ${bind} is there twice.`)
    databases.set(bind, readDatabaseUrl(url))
  }
  return databases
}

const severalUrls = (what: string): Failure =>
  new Failure('invalid-input', `database-url: ${what}`, {
    advice: 'With several databases, write one bind=postgresql://… a line; default= is the default one.',
  })

/** libpq's variables, with what of pg's configuration they stand in for. */
const variables: [name: string, of: string][] = [
  ['PGHOST', 'host'],
  ['PGPORT', 'port'],
  ['PGUSER', 'user'],
  ['PGPASSWORD', 'password'],
  ['PGDATABASE', 'database'],
  ['PGOPTIONS', 'options'],
  ['PGSSLMODE', 'tls'],
]

/** Why a secret may be empty; source: GitHub's documentation, "Using secrets in GitHub Actions". */
export const whyEmpty =
  'Where it is a secret, that is not set, or not for this job: those of an environment need `environment:` in the job, and GitHub hands none to a pull request from a fork, which can be previewed without database-url.'

const keyOf = (pair: string): string => [...new URLSearchParams(pair).keys()][0] ?? ''

/** libpq's options whose values are nobody's business. */
const isSecret = (pair: string): boolean =>
  pair.includes('=') && ['password', 'sslpassword', 'oauth_client_secret'].includes(keyOf(pair))

function invalid(what: string): Failure {
  return new Failure('invalid-input', `database-url: ${what}`, {
    advice:
      'Write postgresql://user:password@host:5432/name, with @ : / ? # in user and password percent-encoded (@ is %40).',
  })
}

function whatIsWrong(text: string): string {
  if (text === '') return `it is empty. ${whyEmpty}`
  const scheme = /^([a-z][\w+.-]*):\/\//i.exec(text)?.[1]
  if (!scheme) return 'this is not a URL.'
  if (!/^postgres(ql)?(\+\w+)?$/.test(scheme)) return `the scheme ${scheme} is not PostgreSQL’s.`
  return 'there is an @ in it that is out of place.'
}

function readPlace(text: string, options: URLSearchParams): { host?: string; port?: string; database?: string } {
  if (/^[^/]*,/.test(text) || options.get('host')?.includes(',')) {
    throw new Failure('invalid-input', 'database-url: name one host, the primary’s; a list of hosts is not possible.')
  }
  const written = place.exec(text)?.groups
  if (!written) throw invalid('its host or port cannot be read.')
  const found = {
    host: options.get('host') ?? written.address ?? (written.host && decode(written.host)),
    port: options.get('port') ?? written.port,
    database: options.get('dbname') ?? (written.database && decode(written.database)),
  }
  if (found.port && !(/^\d+$/.test(found.port) && Number(found.port) > 0 && Number(found.port) < 65_536)) {
    throw invalid('its port is not one.')
  }
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined))
}

/** The certificates and the key that the URL names files of. */
interface TlsFiles {
  ca?: string
  cert?: string
  key?: string
}

function readTls(options: URLSearchParams, host: string | undefined): { mode: TlsMode; files: TlsFiles } {
  const root = options.get('sslrootcert')
  // `system` is libpq's word for the public authorities, which it takes for verify-full alone.
  const system = root === 'system'
  // asyncpg's spelling is ssl=…, everybody else's sslmode=…
  const given =
    options.get('sslmode') ?? options.get('ssl') ?? process.env.PGSSLMODE ?? (system ? 'verify-full' : 'prefer')
  const synonyms = new Map([
    ['true', 'require'],
    ['false', 'disable'],
    ['allow', 'prefer'],
  ])
  const modes: TlsMode[] = ['disable', 'prefer', 'require', 'verify-ca', 'verify-full']
  const mode = modes.find(each => each === (synonyms.get(given) ?? given))
  if (!mode) {
    const from =
      (options.get('sslmode') ?? options.get('ssl')) ? 'database-url: sslmode' : 'PGSSLMODE in the environment'
    throw new Failure('invalid-input', `${from} is “${given}”; it can be ${modes.join(', ')}.`)
  }
  // As libpq: a Unix socket has no TLS, whatever sslmode says.
  if (host?.startsWith('/')) return { mode: 'disable', files: {} }
  if (system && mode !== 'verify-full') {
    throw new Failure('invalid-input', `database-url: sslrootcert=system needs sslmode=verify-full, not ${mode}.`)
  }
  if (mode === 'verify-ca' && !root) {
    throw new Failure('invalid-input', 'database-url: sslmode=verify-ca needs a CA of your own, as sslrootcert=PATH.')
  }
  const names = { ca: system ? null : root, cert: options.get('sslcert'), key: options.get('sslkey') }
  const files = Object.entries(names).flatMap(([name, path]) => (path ? [[name, contentOf(path)]] : []))
  return { mode, files: Object.fromEntries(files) }
}

function contentOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Failure('invalid-input', `database-url: a file that it names cannot be read: ${messageOf(error)}.`)
  }
}

/** What node:tls shall check; source: libpq-ssl.html, table "SSL Mode Descriptions". */
function tlsOptions(tls: TlsMode, files: TlsFiles): ClientConfig['ssl'] {
  if (tls === 'disable') return false
  if (tls === 'verify-full') return files
  // With a root certificate, libpq's `require` checks the chain as `verify-ca` does.
  if (tls === 'verify-ca' || (tls === 'require' && files.ca)) return { ...files, checkServerIdentity: () => undefined }
  return { ...files, rejectUnauthorized: false }
}

function decode(text: string): string {
  // As Python's unquote: what is not an escape stays as it is.
  return text.replace(/(?:%[0-9a-f]{2})+/gi, bytes => Buffer.from(bytes.replaceAll('%', ''), 'hex').toString('utf8'))
}

/** Passwords as written and as meant, and as JavaScript, Python, SQLAlchemy and JSON would write them. */
function secretForms(written: (string | undefined)[]): string[] {
  const forms = written
    .filter(each => each !== undefined)
    .flatMap(text => {
      const asQuery = decode(text.replaceAll('+', ' '))
      return [text, ...[decode(text), asQuery].flatMap(writings)]
    })
  return [...new Set(forms)].filter(form => form !== '').sort((a, b) => b.length - a.length)
}

function writings(meant: string): string[] {
  const encoded = encodeURIComponent(meant.replace(/\p{Cs}/gu, '\ufffd'))
  const strict = encoded.replaceAll(/[!'()*]/g, each => `%${each.charCodeAt(0).toString(16).toUpperCase()}`)
  const json = JSON.stringify(meant).slice(1, -1)
  return [
    meant,
    encoded,
    strict,
    strict.replaceAll('%2F', '/'),
    strict.replaceAll('%20', '+'),
    strict.replaceAll('%20', ' ').replaceAll('%2B', '+'),
    json,
    json.replaceAll(/[\u0080-\uffff]/g, each => `\\u${each.charCodeAt(0).toString(16).padStart(4, '0')}`),
  ]
}
