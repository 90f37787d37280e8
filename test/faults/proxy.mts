import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { type Direction, Frames } from './frames.mts'

/** One message of the protocol on its way between the action and PostgreSQL. */
export interface Passing {
  /** `up` to PostgreSQL, `down` to the action. */
  direction: Direction
  /** From 1, counted in its direction over all connections of the run. */
  n: number
  /** From 1, counted over all connections: the main one is the first that gets past the question for TLS. */
  connection: number
  /** The type's character; empty for what has none. */
  type: string
  /** The SQL of a Query or Parse message; of any other message, the last one's that went up on this connection. */
  sql: string
  /** Ends the connection in both directions with FIN; nothing more passes, this message included. */
  cut(): void
  /** The same, but this message does pass. */
  cutBehind(): void
  /** As `cut`, with RST. */
  reset(): void
  /** Something else passes in this message's place. */
  replace(bytes: Buffer): void
  /** Holds back everything in both directions of this connection until the promise resolves. */
  hold(until: Promise<unknown>): void
}

export interface StartedProxy {
  /** The URL of a database, by way of the proxy. */
  through(url: string): string
  stop(): void
}

/**
 * A TCP proxy in front of the server of `url` that knows where messages begin and end. `watch` sees each message before
 * it is passed on, `admit` says whether a connection gets through; both are waited for.
 */
export async function startProxy(
  url: string,
  watch: (passing: Passing) => void | Promise<void>,
  admit: () => boolean | Promise<boolean> = () => true,
): Promise<StartedProxy> {
  const { hostname, port } = new URL(url)
  const counted = { up: 0, down: 0 }
  const sockets = new Set<Socket>()
  let connections = 0
  const server = createServer({ allowHalfOpen: true, noDelay: true }, async client => {
    client.on('error', () => {})
    sockets.add(client)
    if (!(await admit())) return void client.destroy()
    const upstream = connect({ port: Number(port), host: hostname, allowHalfOpen: true, noDelay: true })
    upstream.on('error', () => client.destroy())
    sockets.add(upstream)
    const both = [client, upstream]
    const frames = new Frames()
    const connection = ++connections
    let held: Promise<unknown> | undefined
    let over = false
    let asked = ''
    const leave = (how: (socket: Socket) => void) => {
      over = true
      for (const socket of both) how(socket)
    }
    const controls = {
      cut: () => leave(socket => socket.end().resume()),
      reset: () => leave(socket => socket.resetAndDestroy()),
      hold: (until: Promise<unknown>) => {
        held = until
      },
    }
    const pump = async (direction: Direction, from: Socket, to: Socket) => {
      try {
        for await (const chunk of from) {
          for (const { type, sql, bytes } of frames.read(direction, chunk)) {
            await held
            if (over) continue
            let passed = bytes
            const replace = (other: Buffer) => {
              passed = other
            }
            let last = false
            const cutBehind = () => {
              last = true
            }
            asked = sql || asked
            const control = { replace, cutBehind, ...controls }
            await watch({ direction, n: ++counted[direction], connection, type, sql: asked, ...control })
            await held
            if (!over) to.write(passed)
            if (last) controls.cut()
          }
        }
        await held
        if (!over) to.end()
      } catch {
        to.destroy()
      }
    }
    await Promise.all([pump('up', client, upstream), pump('down', upstream, client)])
    for (const socket of both) sockets.delete(socket.destroy())
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const own = (server.address() as AddressInfo).port
  return {
    through: each => each.replace(`:${port}/`, `:${own}/`),
    stop() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
