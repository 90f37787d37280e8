import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { code, fenced, folded, html, printable, prose, proseWithCode } from '../../src/report/markdown'
import { blocks, entities, inlines, meaningful, rawHtml, running, types } from './github'
import { hostile, nasty } from './hostile'

const runs = { numRuns: 800 }
/** What a reader can see of a text on one line. */
const visible = (text: string) =>
  printable(text).replaceAll(/\s+/g, ' ').trim().replaceAll('\u200b', '').replaceAll(/\s+/g, ' ').trim()
const unspaced = (text: string) => text.replaceAll(/[\s\u200b]+/g, '')

describe('printable', () => {
  test('takes out what hides or turns text, and leaves line feeds, tabs and letters of all languages', () => {
    expect(printable('a\r\nb\tc é 日本 😀')).toBe('a\nb\tc é 日本 😀')
    for (const character of [
      '\0',
      '\r',
      '\u001b',
      '\u007f',
      '\u0085',
      '\u202e',
      '\u2066',
      '\u200f',
      '\u061c',
      '\ud83d',
    ])
      expect(printable(`a${character}b`)).toBe('a\ufffdb')
  })

  test('leaves nothing that is not well-formed Unicode', () => {
    fc.assert(
      fc.property(hostile, text => {
        expect(Buffer.from(printable(text)).toString()).toBe(printable(text))
      }),
      runs,
    )
  })
})

describe('prose', () => {
  for (const [where, before] of [
    ['at the start of a paragraph', ''],
    ['in the middle of a paragraph', 'Before '],
    ['in bold', '**'],
  ] as const) {
    test(`stays plain text ${where}`, () => {
      fc.assert(
        fc.property(hostile, text => {
          const shown = prose(text)
          fc.pre(shown !== '')
          const markdown = `${before}${shown}${before === '**' ? '**' : ''}`
          expect(types(markdown)).toEqual(['paragraph_open', 'inline', 'paragraph_close'])
          expect(inlines(markdown)).toEqual(before === '**' ? ['strong_open', 'strong_close'] : [])
          expect(running(markdown)).not.toMatch(meaningful)
          expect(unspaced(running(markdown))).toBe(unspaced(before.replace('**', '') + visible(text)))
        }),
        runs,
      )
    })
  }

  test('shows each nasty piece as it is written', () => {
    for (const piece of nasty) {
      if (visible(piece) === '') continue
      const markdown = prose(piece)
      expect(rawHtml(markdown), piece).toEqual([])
      expect(unspaced(running(markdown)), piece).toBe(unspaced(visible(piece)))
    }
  })

  test('is one line', () => {
    expect(prose(' a\r\nb\n\n\tc ')).toBe('a b c')
  })
})

describe('prose with code', () => {
  test('has code where the text has it, and the spaces around it', () => {
    expect(proseWithCode('Set `a_b: *` or `c`; not d_e.')).toBe('Set `a_b: *` or `c`; not d\\_e.')
    expect(proseWithCode('a ` b')).toBe('a \\` b')
  })

  test('is one paragraph without a meaning for GitHub, whatever the text is', () => {
    fc.assert(
      fc.property(hostile, text => {
        const markdown = proseWithCode(text)
        fc.pre(markdown.trim() !== '')
        expect(types(markdown)).toEqual(['paragraph_open', 'inline', 'paragraph_close'])
        expect(running(markdown)).not.toMatch(meaningful)
        const kinds = inlines(markdown).filter(kind => kind !== 'code_inline' && kind !== 'html_inline')
        expect(kinds).toEqual([])
        for (const tag of rawHtml(markdown)) expect(['<code>', '</code>']).toContain(tag)
      }),
      runs,
    )
  })
})

describe('code', () => {
  test('is inline code and nothing else', () => {
    fc.assert(
      fc.property(hostile, text => {
        const markdown = code(text)
        fc.pre(markdown !== '')
        expect(types(markdown)).toEqual(['paragraph_open', 'inline', 'paragraph_close'])
        const kinds = inlines(markdown)
        expect([['code_inline'], ['html_inline', 'html_inline']]).toContainEqual(kinds)
        expect(rawHtml(markdown)).toEqual(kinds.length === 1 ? [] : ['<code>', '</code>'])
        const seen = blocks(markdown)
          .flatMap(({ children }) => children.filter(({ type }) => type !== 'html_inline'))
          .map(({ content }) => content)
          .join('')
        expect(unspaced(seen)).toBe(unspaced(visible(text)))
      }),
      runs,
    )
  })

  test('of nothing is nothing', () => {
    expect(code(' \n ')).toBe('')
  })
})

test('neither prose nor code leaves its cell of a table', () => {
  fc.assert(
    fc.property(hostile, hostile, (one, other) => {
      const table = `| a | b | c |\n| --- | --- | --- |\n| ${prose(one)} | ${code(other)} | end |`
      const all = blocks(table)
      expect(all.filter(({ type }) => type === 'tr_open')).toHaveLength(2)
      expect(all.at(-1)!.type).toBe('table_close')
      const cells = all.filter(({ type }) => type === 'inline')
      expect(cells).toHaveLength(6)
      expect(cells.at(-1)!.content).toBe('end')
      const shown = cells[3]!.children.map(({ content }) => content).join('')
      expect(unspaced(shown)).toBe(unspaced(visible(one)))
      expect(running(table)).not.toMatch(meaningful)
    }),
    runs,
  )
})

describe('fenced', () => {
  test('holds any text, whole, and ends where it shall end', () => {
    fc.assert(
      fc.property(hostile, text => {
        const all = blocks(`${fenced(text, 'sql')}\n\nafter`)
        expect(all.map(({ type }) => type)).toEqual(['fence', 'paragraph_open', 'inline', 'paragraph_close'])
        expect(all[0]!.info).toBe('sql')
        expect(all[0]!.content).toBe(`${printable(text)}\n`)
      }),
      runs,
    )
  })

  test('takes a megabyte of single backticks', () => {
    const text = '` '.repeat(500_000)
    expect(fenced(text, 'sql')).toBe(`\`\`\`sql\n${text}\n\`\`\``)
  })
})

describe('html', () => {
  test('has no tag, no blank line, and reads as it was written', () => {
    fc.assert(
      fc.property(hostile, text => {
        const shown = html(text)
        expect(shown).not.toMatch(/[<>"\n]/)
        expect(entities(shown)).not.toMatch(meaningful)
        expect(unspaced(entities(shown))).toBe(unspaced(visible(text)))
      }),
      runs,
    )
  })

  test('does not break its own entities', () => {
    expect(html('a < b & c')).toBe('a &#60; b &#38; c')
  })

  test('stays in the summary of a folded section', () => {
    fc.assert(
      fc.property(hostile, hostile, (title, body) => {
        const all = blocks(`${folded(html(title), fenced(body, 'sql'))}\n\nafter`)
        expect(all.map(({ type }) => type)).toEqual([
          'html_block',
          'fence',
          'html_block',
          'paragraph_open',
          'inline',
          'paragraph_close',
        ])
        expect(all[2]!.content.trim()).toBe('</details>')
      }),
      runs,
    )
  })
})
