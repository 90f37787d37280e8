import { PassThrough } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { readAnswer } from '../../src/alembic/answer'
import { type Line, readLines, textsOf } from '../../src/alembic/lines'

describe('An answer of the driver is', () => {
  test.each([
    '{"ran": true}',
    '{"revision": {"bind": "default", "id": "a1"}}',
    '{"statement": {"sql": "SELECT 1", "line": null, "own": false}}',
    '{"failed": {"kind": "script", "message": "x", "frames": [{"file": "f", "line": 1, "function": "g"}], "bind": null}}',
    '{"planned": {"default": {"prior": [], "new": ["a1"], "revisions": []}}}',
    '{"loaded": {"revisions": [], "heads": [], "databases": []}}',
    '{"read": [{"id": "a", "down": [], "dependsOn": [], "labels": []}]}',
  ])('%s', json => expect(readAnswer(json)).toEqual(JSON.parse(json)))

  test.each([
    '',
    '{broken',
    'null',
    '7',
    '"ran"',
    '{"ran": 1}',
    '{"ran": null}',
    '{"loaded": 5}',
    '{"loaded": {"revisions": [{}], "heads": [], "databases": []}}',
    '{"loaded": {"revisions": [], "heads": "x", "databases": []}}',
    '{"loaded": {"revisions": [], "heads": [], "databases": [null]}}',
    '{"planned": []}',
    '{"planned": {"default": {}}}',
    '{"planned": {"default": {"prior": [], "new": [], "revisions": [{"id": 1}]}}}',
    '{"resolved": []}',
    '{"revision": {"bind": 1, "id": "a1"}}',
    '{"revision": "a1"}',
    '{"statement": {"sql": null, "line": 1, "own": true}}',
    '{"statement": {"sql": "x", "line": "1", "own": true}}',
    '{"failed": {"kind": "script"}}',
    '{"failed": {"kind": "script", "message": "x", "frames": [null]}}',
  ])('not %s', json => expect(readAnswer(json)).toBeUndefined())
})

/** The lines of what comes in these pieces. */
async function linesIn(pieces: (string | Buffer)[], room = 0): Promise<Line[]> {
  const [stream, lines]: [PassThrough, Line[]] = [new PassThrough(), []]
  readLines(
    stream,
    () => room,
    line => lines.push(line),
  )
  for (const piece of pieces) stream.write(piece)
  await new Promise<void>(resolve => stream.end(resolve).on('end', resolve))
  return lines
}

describe('Lines of a child are', () => {
  test('whole, however they come, the last one also without an end', async () => {
    const lines = await linesIn(['a', 'b\nc', '\n', '\nd\r\ne'])
    expect(lines.flatMap(textsOf)).toEqual(['ab', 'c', '', 'd', 'e'])
  })

  test('cut with a count where they are longer than there is room for', async () => {
    const [long, next] = await linesIn(['x'.repeat(5_000), 'é'.repeat(5_000), '\nnext\n'])
    expect(long).toMatchObject({ size: 15_000 })
    expect(long!.bytes).toHaveLength(8_192)
    expect(textsOf(long!)).toEqual([`${'x'.repeat(1_900)} … (15000 bytes)`])
    expect(textsOf(next!)).toEqual(['next'])
    const [kept] = await linesIn(['x'.repeat(5_000), 'y'.repeat(50_000), '\n'], 60_000)
    expect(kept!.bytes).toHaveLength(55_000)
  })

  test('several where a carriage return parts them, and readable where they are no text', async () => {
    expect((await linesIn(['10 %\r50 %\r100 %\n'])).flatMap(textsOf)).toEqual(['10 %', '50 %', '100 %'])
    expect((await linesIn([Buffer.from([0xff, 0x41, 10])])).flatMap(textsOf)).toEqual(['\ufffdA'])
  })
})
