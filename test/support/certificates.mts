import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'

export interface Certificate {
  /** PEM. */
  certificate: string
  /** PEM. */
  key: string
}

/** A private authority and a certificate of its for a host name, valid for a day. Source of the form: RFC 5280. */
export function issue(host: string): { authority: Certificate; server: Certificate } {
  const [authority, server] = [keys(), keys()]
  const [issuer, subject] = [name('A private CA'), name(host)]
  const certify = (owner: Buffer, key: KeyObject, extension: Buffer) => {
    const body = sequence(
      tagged(0xa0, tagged(0x02, Buffer.from([2]))),
      tagged(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)])),
      ecdsaWithSha256,
      issuer,
      sequence(time(-3_600_000), time(86_400_000)),
      owner,
      key.export({ type: 'spki', format: 'der' }),
      tagged(0xa3, sequence(extension)),
    )
    const signature = sign('sha256', body, authority.privateKey)
    return pem(sequence(body, ecdsaWithSha256, tagged(0x03, Buffer.from([0]), signature)))
  }
  const isAuthority = sequence(oid('551d13'), tagged(0x04, sequence(tagged(0x01, Buffer.from([0xff])))))
  const isFor = sequence(oid('551d11'), tagged(0x04, sequence(tagged(0x82, Buffer.from(host)))))
  return {
    authority: { certificate: certify(issuer, authority.publicKey, isAuthority), key: privatePem(authority) },
    server: { certificate: certify(subject, server.publicKey, isFor), key: privatePem(server) },
  }
}

const keys = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const privatePem = (pair: { privateKey: KeyObject }) =>
  pair.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string

/** DER: a tag, the length of what follows, and that. */
function tagged(tag: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const size = body.length < 0x80 ? [body.length] : [0x82, body.length >> 8, body.length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...size]), body])
}

const sequence = (...parts: Buffer[]) => tagged(0x30, ...parts)
const oid = (hex: string) => tagged(0x06, Buffer.from(hex, 'hex'))
const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'))
const name = (common: string) => sequence(tagged(0x31, sequence(oid('550403'), tagged(0x0c, Buffer.from(common)))))
const time = (fromNow: number) =>
  tagged(0x17, Buffer.from(`${new Date(Date.now() + fromNow).toISOString().replace(/^..|[-:T]|\..*$/g, '')}Z`))
const pem = (der: Buffer) =>
  `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replaceAll(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`
