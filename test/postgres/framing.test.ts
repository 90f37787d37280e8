import net from 'node:net'
import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, onTestFinished, test } from 'vitest'
import { MessageReader } from '../../src/postgres/gate/wire'
import { type OpenGate, openGate, Raw, runPython } from './gate.mts'

/** A conversation of psycopg 3 with all that it can say, which leaves the database as it was. */
const script = `
import psycopg
with psycopg.connect(dsn, autocommit=True) as c:
    c.execute("BEGIN; CREATE TABLE t (id int PRIMARY KEY, name text); SAVEPOINT s")
    for i in range(8):
        c.execute("INSERT INTO t VALUES (%s, %s)", (i, "é" * i), prepare=True)
    try:
        c.execute("INSERT INTO t VALUES (%s, %s)", (1, "again"))
    except psycopg.Error:
        c.execute("ROLLBACK TO s")
    with c.cursor().copy("COPY t FROM STDIN") as copy:
        for i in range(20):
            copy.write_row([i, "x" * i])
    with c.pipeline():
        for i in range(5):
            c.execute("UPDATE t SET name = %s WHERE id = %s RETURNING id, name", ("new", i))
    with c.cursor(binary=True) as cursor:
        cursor.execute("SELECT id, name FROM t WHERE id < %s ORDER BY id", (10,)).fetchall()
    with c.cursor().copy("COPY (SELECT * FROM t) TO STDOUT") as copy:
        list(copy)
    c.execute("ROLLBACK")
    try:
        c.execute("SELECT 1; SELECT 2; SELECT 1/0; SELECT 3")
    except psycopg.Error:
        pass
`

/** Runs the script through a proxy and returns what it said to the gate, and what it was told. */
async function record(open: OpenGate): Promise<{ said: Buffer; heard: Buffer }> {
  const said: Buffer[] = []
  const heard: Buffer[] = []
  const proxy = net.createServer({ noDelay: true }, client => {
    const gate = net.connect({ ...open.gate.address, noDelay: true })
    client.on('data', chunk => said.push(chunk)).pipe(gate)
    gate.on('data', chunk => heard.push(chunk)).pipe(client)
    for (const socket of [client, gate]) socket.on('error', () => {})
  })
  await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void proxy.close())
  const { port } = proxy.address() as net.AddressInfo
  await runPython(
    { ...open, gate: { ...open.gate, address: { ...open.gate.address, port } } as OpenGate['gate'] },
    script,
  )
  return { said: Buffer.concat(said), heard: Buffer.concat(heard) }
}

/** Cuts a buffer at the given places. */
function pieces(bytes: Buffer, cuts: number[]): Buffer[] {
  const places = [0, ...cuts.map(cut => cut % bytes.length).sort((a, b) => a - b), bytes.length]
  return places.slice(1).map((end, i) => bytes.subarray(places[i], end))
}

test('a recorded conversation is answered alike, wherever its bytes are split', async () => {
  const open = await openGate()
  const { said, heard } = await record(open)
  const recorded = new Raw(net.connect({ ...open.gate.address }))
  recorded.hear(heard)
  recorded.socket.destroy()
  const expected = await recorded.until('end')
  const replay = async (chunks: Buffer[]) => {
    const raw = new Raw(open.gate.address.port)
    raw.listen()
    for (const chunk of chunks) {
      raw.socket.write(chunk)
      await setImmediate()
    }
    return raw.until('end')
  }
  expect(expected.length).toBeGreaterThan(100)
  expect(await replay([said])).toEqual(expected)
  expect(await replay(pieces(said, [...said.keys()]))).toEqual(expected)
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(), { maxLength: 300 }), async cuts => {
      expect(await replay(pieces(said, cuts))).toEqual(expected)
    }),
    { numRuns: 40 },
  )
  await open.finish('ROLLBACK')
})

test('messages are read alike, wherever their bytes are split', () => {
  const message = fc.record({ type: fc.constantFrom('Q', 'P', 'd', 'S'), body: fc.uint8Array({ maxLength: 300 }) })
  fc.assert(
    fc.property(fc.array(message, { maxLength: 20 }), fc.array(fc.nat(), { maxLength: 200 }), (messages, cuts) => {
      const frames = messages.map(({ type, body }) => {
        const head = Buffer.alloc(5, type)
        head.writeInt32BE(body.length + 4, 1)
        return Buffer.concat([head, body])
      })
      const reader = new MessageReader()
      const read: Buffer[] = []
      for (const piece of pieces(Buffer.concat([...frames, Buffer.from('Q')]), cuts)) {
        reader.push(piece)
        for (let next = reader.message(); next; next = reader.message()) read.push(Buffer.from(next.frame))
      }
      expect(read).toEqual(frames)
      expect(reader.size).toBe(1)
    }),
  )
})
