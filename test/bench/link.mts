import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** A way to a server over which each byte takes its time, as over a long cable: what is sent at once arrives at once. */
export interface Link {
  /** The URL of a database, by way of the link. */
  through(url: string): string
  stop(): void
}

/** A TCP proxy before the server of `url` with this round trip, half of it in each direction; with 0 it only passes bytes. */
export async function startLink(url: string, roundTrip: number): Promise<Link> {
  const { hostname, port } = new URL(url)
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, client => {
    const upstream = connect({ port: Number(port), host: hostname, allowHalfOpen: true, noDelay: true })
    const carry = (from: Socket, to: Socket) => {
      sockets.add(from)
      const later = (act: () => void) =>
        roundTrip === 0 ? act() : setTimeout(() => !to.destroyed && act(), roundTrip / 2)
      from.on('data', chunk => later(() => to.write(chunk)))
      from.on('end', () => later(() => to.end()))
      from.on('error', () => to.destroy())
      from.on('close', () => sockets.delete(from))
    }
    carry(client, upstream)
    carry(upstream, client)
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
