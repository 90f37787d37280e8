import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/**
 * A TCP proxy before PostgreSQL that cuts the connection when the client sends `words`: with `passOn` when the answer to
 * them comes, else before the server gets them. With `gone`, nobody gets through any more after that.
 */
export async function severing(
  url: string,
  words: string,
  { passOn = false, gone = false } = {},
): Promise<{ url: string; end: () => void }> {
  const { hostname, port } = new URL(url)
  let cut = false
  const proxy = createServer(client => {
    if (cut && gone) return void client.destroy()
    const server = connect(Number(port), hostname)
    const both: Socket[] = [client, server]
    const end = () => {
      for (const socket of both) socket.destroy()
    }
    let asked = false
    client.on('data', chunk => {
      if (!cut && chunk.includes(words)) {
        cut = asked = true
        if (!passOn) return end()
      }
      server.write(chunk)
    })
    server.on('data', chunk => (asked ? end() : client.write(chunk)))
    for (const socket of both) socket.on('close', end).on('error', end)
  })
  await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
  return {
    url: url.replace(`:${port}/`, `:${(proxy.address() as AddressInfo).port}/`),
    end: () => void proxy.close(),
  }
}
