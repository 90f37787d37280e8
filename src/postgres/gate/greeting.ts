import { timingSafeEqual } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Session } from './session'
import { startupSettings, type Values } from './settings'
import * as wire from './wire'

/** What a client meets before it has a session. */
export interface Reception {
  readonly password: string
  /** Why nobody is taken in any more, if so. */
  readonly refusal: string | undefined
  /** The password was right. Behind it the driver says the number that it has given the connection. */
  welcome(socket: Socket, reader: wire.MessageReader, settings: Values, number: number | undefined): Session
  /** A CancelRequest. */
  cancel(pid: number, secret: Buffer, done: () => void): void
}

/** Takes a client in: its startup packets, its password, and from then on what its session says. */
export function greet(socket: Socket, reception: Reception): void {
  const reader = new wire.MessageReader()
  let settings: Values | undefined
  let session: Session | undefined

  const refuse = (code: string, message: string): void => {
    socket.off('data', receive)
    socket.end(wire.errorResponse('FATAL', code, message))
  }

  /** SSLRequest and GSSENCRequest, each of which is answered once. */
  const declined = new Set<number>()

  const start = (body: Buffer): void => {
    const code = body.readInt32BE(0)
    if ((code === wire.startupCode.ssl || code === wire.startupCode.gss) && !declined.has(code)) {
      declined.add(code)
      return void socket.write('N')
    }
    if (code === wire.startupCode.cancel)
      return reception.cancel(body.readInt32BE(4), body.subarray(8), () => socket.end())
    if (code >> 16 !== 3) throw new Error(`protocol version ${code >> 16}`)
    const parameters = wire.readStartupParameters(body)
    const options = Object.keys(parameters).filter(name => name.startsWith('_pq_.'))
    if ((code & 0xffff) > 0 || options.length > 0) socket.write(wire.negotiateProtocolVersion(options))
    settings = startupSettings(parameters)
    socket.write(wire.authenticationCleartextPassword)
  }

  const authenticate = (message: wire.Message, wished: Values): void => {
    const given = message.type === 'p' ? wire.readCString(message.body).bytes : Buffer.alloc(0)
    const wanted = Buffer.from(reception.password)
    const [, number] = /^\.(\d{1,9})$/.exec(given.toString('latin1', wanted.length)) ?? []
    const isRight = given.length === wanted.length || number !== undefined
    if (!isRight || !timingSafeEqual(given.subarray(0, wanted.length), wanted))
      return refuse('28P01', 'this is the gate of Atomic Upgrade, and the password is wrong')
    if (reception.refusal) return refuse('08006', `Atomic Upgrade: ${reception.refusal}`)
    session = reception.welcome(socket, reader, wished, number === undefined ? undefined : Number(number))
    session.work()
  }

  const read = (): void => {
    for (let body = settings ? undefined : reader.startup(); body; body = settings ? undefined : reader.startup())
      start(body)
    if (!settings) return
    const message = reader.message(() => 10_000)
    if (message) authenticate(message, settings)
  }

  const receive = (chunk: Buffer): void => {
    reader.push(chunk)
    if (session) return session.work()
    try {
      read()
    } catch (error) {
      refuse('08P01', `the gate cannot read this: ${error instanceof Error ? error.message : error}`)
    }
  }

  socket.on('data', receive)
  socket.on('end', () => session?.end())
  socket.on('close', () => session?.end())
}
