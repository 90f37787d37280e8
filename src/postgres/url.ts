import type { ClientConfig } from 'pg'
import { parse, toClientConfig } from 'pg-connection-string'
import { Failure, messageOf } from '../failure'

/** How far TLS goes; libpq's `sslmode`, with `allow` taken as `prefer`. */
export type TlsMode = 'disable' | 'prefer' | 'require' | 'verify-ca' | 'verify-full'

/** One database, read from its URL. */
export interface Database {
  /** For pg; `ssl` is what `tls` asks for. */
  config: ClientConfig
  tls: TlsMode
  /** For people: scheme, user, host and database, without password and options. */
  name: string
  /** The URL as it was given, without the password. */
  urlWithoutPassword: string
  /** Every form of the password that may turn up in a text, longest first. */
  secrets: string[]
}

// As SQLAlchemy and libpq read it: the password goes up to the first @, whatever else is in it.
const form = /^(?<scheme>postgres(?:ql)?(?:\+\w+)?):\/\/(?:(?<user>[^:/@]*)(?::(?<password>[^@]*))?@)?(?<rest>[^@]*)$/s

/**
 * Reads a URL in SQLAlchemy's form (`postgresql+psycopg://…`) or libpq's (`postgresql://…`).
 * Throws a Failure `invalid-input` that does not repeat the URL, for it may hold a password.
 */
export function readDatabaseUrl(text: string): Database {
  const { scheme, user, password, rest } = form.exec(text.trim())?.groups ?? {}
  if (!scheme) {
    throw new Failure('invalid-input', `database-url: ${whatIsWrong(text.trim())}`, {
      advice:
        'Write postgresql://user:password@host:5432/name, with @ : / ? # in user and password percent-encoded (@ is %40).',
    })
  }
  const [address = '', query = ''] = rest!.split('?', 2)
  const options = new URLSearchParams(query)
  const queryPassword = options.get('password') ?? undefined
  options.delete('password')
  const tls = takeTlsMode(options)
  const withoutPassword = options.toString() === '' ? address : `${address}?${options}`
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse(`postgresql://${withoutPassword}`, { useLibpqCompat: true })
  } catch (error) {
    throw new Failure('invalid-input', `database-url: ${messageOf(error)}`, { cause: error })
  }
  const { ssl: _, ...plain } = parsed
  const config: ClientConfig = { ...toClientConfig(plain) }
  const decoded = decode(password) ?? queryPassword
  if (user) config.user = decode(user)!
  if (decoded) config.password = decoded
  if (config.host?.includes(',')) {
    throw new Failure('invalid-input', 'database-url: name one host, the primary’s; a list of hosts is not possible.')
  }
  config.ssl = tlsOptions(tls, parsed)
  const who = user ? `${user}@` : ''
  const kept = query
    ? `?${new URLSearchParams([...new URLSearchParams(query)].filter(([key]) => key !== 'password'))}`
    : ''
  return {
    config,
    tls,
    name: `postgresql://${who}${address}`,
    urlWithoutPassword: `${scheme}://${who}${address}${kept}`,
    secrets: secretForms(password, decoded),
  }
}

function whatIsWrong(text: string): string {
  if (text === '') return 'it is empty.'
  const scheme = /^([a-z][\w+.-]*):\/\//i.exec(text)?.[1]
  if (!scheme) return 'this is not a URL.'
  if (!/^postgres(ql)?(\+\w+)?$/.test(scheme)) return `the scheme ${scheme} is not PostgreSQL’s.`
  return 'there is more than one @ in it.'
}

function takeTlsMode(options: URLSearchParams): TlsMode {
  // asyncpg's spelling is ssl=…, everybody else's sslmode=…
  const given = options.get('sslmode') ?? options.get('ssl') ?? process.env.PGSSLMODE ?? 'prefer'
  options.delete('sslmode')
  options.delete('ssl')
  const mode = { true: 'require', false: 'disable', allow: 'prefer' }[given] ?? given
  const modes: TlsMode[] = ['disable', 'prefer', 'require', 'verify-ca', 'verify-full']
  const known = modes.find(each => each === mode)
  if (known) return known
  throw new Failure('invalid-input', `database-url: sslmode is “${given}”; it can be ${modes.join(', ')}.`)
}

/** What node:tls shall check; source: libpq-ssl.html, table "SSL Mode Descriptions". */
function tlsOptions(tls: TlsMode, { ssl }: ReturnType<typeof parse>): ClientConfig['ssl'] {
  if (tls === 'disable') return false
  const files = typeof ssl === 'object' ? ssl : {}
  const { ca, cert, key } = files as { ca?: string; cert?: string; key?: string }
  const given = { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) }
  if (tls === 'verify-full') return given
  // With a root certificate, libpq's `require` checks the chain as `verify-ca` does.
  if (tls === 'verify-ca' || (tls === 'require' && ca)) return { ...given, checkServerIdentity: () => undefined }
  return { ...given, rejectUnauthorized: false }
}

function decode(text: string | undefined): string | undefined {
  // As Python's unquote: what is not an escape stays as it is.
  return text?.replace(/(?:%[0-9a-f]{2})+/gi, bytes => Buffer.from(bytes.replaceAll('%', ''), 'hex').toString('utf8'))
}

function secretForms(written: string | undefined, decoded: string | undefined): string[] {
  const forms = [
    written,
    decoded,
    decoded && encodeURIComponent(decoded),
    decoded && JSON.stringify(decoded).slice(1, -1),
  ]
  return [...new Set(forms.filter(each => each !== undefined && each !== ''))].sort(
    (a, b) => b!.length - a!.length,
  ) as string[]
}
