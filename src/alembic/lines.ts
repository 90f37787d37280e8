import type { Readable } from 'node:stream'

/** A line of a child's output: what is kept of it, and how long it was, in bytes. */
export interface Line {
  bytes: Buffer
  size: number
}

/** What is kept of any line, in bytes. */
const usual = 8_192

/**
 * Hands on each line as it ends, the last one also without an end. A line without an end takes no memory: behind the
 * usual length only as many bytes are kept as `room` gives to one that begins so, and the rest is counted.
 */
export function readLines(stream: Readable, room: (start: Buffer) => number, onLine: (line: Line) => void): void {
  let pieces: Buffer[] = []
  let [kept, size, limit] = [0, 0, usual]
  const add = (piece: Buffer) => {
    size += piece.length
    if (kept + piece.length > usual && limit === usual) limit = Math.max(usual, room(Buffer.concat([...pieces, piece])))
    const fitting = piece.subarray(0, limit - kept)
    if (fitting.length === 0) return
    pieces.push(fitting)
    kept += fitting.length
  }
  const end = () => {
    const bytes = Buffer.concat(pieces)
    const line = { bytes, size }
    pieces = []
    ;[kept, size, limit] = [0, 0, usual]
    onLine(line)
  }
  stream.on('data', (chunk: Buffer) => {
    let from = 0
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      add(chunk.subarray(from, at))
      end()
      from = at + 1
    }
    if (from < chunk.length) add(chunk.subarray(from))
  })
  stream.on('end', () => {
    if (size > 0) end()
  })
}

/** What is shown of a line that was cut, in characters. */
const shown = 1_900

/** A line for people; a carriage return begins another one, as progress bars have it. */
export function textsOf({ bytes, size }: Line): string[] {
  if (size > bytes.length) return [`${bytes.toString('utf8').slice(0, shown)} … (${size} bytes)`]
  return bytes
    .toString('utf8')
    .split(/\r(?!$)|[\u2028\u2029]/)
    .map(text => text.replace(/\r$/, ''))
}
