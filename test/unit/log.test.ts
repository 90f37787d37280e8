import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { harmless, log, PrintOut } from '../../src/log'
import { hostile } from './hostile'

const commands = [
  'add-mask',
  'add-matcher',
  'add-path',
  'debug',
  'echo',
  'endgroup',
  'error',
  'group',
  'notice',
  'save-state',
  'set-env',
  'set-output',
  'stop-commands',
  'warning',
]

/** What .NET's `TrimStart` takes for white space, and what its culture-aware search overlooks. */
const trimmed = /^[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/
const overlooked = /[\u00ad\u200b-\u200f\u2060\ufeff]/g

/**
 * The command that the runner finds in a line, read as its ActionCommand.cs does. Its searches go by culture and not by
 * code, so characters without a width may stand anywhere in what it finds; the name is compared exactly.
 */
function commandIn(line: string): string | undefined {
  const message = line.replace(trimmed, '')
  if (message.replaceAll(overlooked, '').startsWith('::')) {
    const name = message.slice(2).split('::')[0]!.split(' ')[0]!
    if (commands.includes(name)) return name
  }
  for (let at = 0; at < message.length; at++) {
    if (!message.slice(at).replaceAll(overlooked, '').startsWith('##[')) continue
    const name = message
      .slice(at + 3)
      .split(']')[0]!
      .split(' ')[0]!
    if (commands.includes(name)) return name
  }
  return undefined
}

const expectHarmless = (text: string) => {
  for (const line of text.split(/\r\n|\r|\n/)) expect(commandIn(line), JSON.stringify(line)).toBeUndefined()
}

const evil = fc
  .array(
    fc.oneof(
      fc.constantFrom(...commands),
      fc.constantFrom(
        '::',
        ':',
        ':::',
        '##[',
        '#',
        '[',
        ']',
        ' ',
        '\t',
        '\n',
        '\r',
        '\r\n',
        '\v',
        '\f',
        '\0',
        '%0A',
        '\u001b[31m',
      ),
      fc.constantFrom(
        '\u0085',
        '\u00a0',
        '\u1680',
        '\u2003',
        '\u2028',
        '\u2029',
        '\u202f',
        '\u3000',
        '\u200b',
        '\ufeff',
        '\u00ad',
      ),
      hostile,
    ),
    { maxLength: 10 },
  )
  .map(parts => parts.join(''))

describe('harmless', () => {
  test('is meant for commands like these, which the runner would obey', () => {
    for (const line of [
      '::error::x',
      ' \t::set-output name=a::b',
      '\u0085::add-mask::x',
      'x ##[group]y',
      '\u3000::debug::x',
    ]) {
      expect(commandIn(line)).toBeDefined()
      expect(commandIn(harmless(line)), JSON.stringify(line)).toBeUndefined()
    }
  })

  test('leaves no command in any line', () => {
    fc.assert(
      fc.property(evil, text => expectHarmless(harmless(text))),
      { numRuns: 20_000 },
    )
    fc.assert(
      fc.property(evil, fc.constantFrom(...commands), evil, (before, name, after) => {
        expectHarmless(harmless(`${before}::${name}::${after}`))
        expectHarmless(harmless(`${before}\n::${name} file=x::${after}`))
        expectHarmless(harmless(`${before}##[${name}]${after}`))
      }),
      { numRuns: 5_000 },
    )
  })

  test('changes nothing that a reader would miss', () => {
    fc.assert(
      fc.property(evil, text => {
        const shown = harmless(text).replaceAll('\u200b', '')
        expect(shown.length).toBe(text.replaceAll('\u200b', '').length)
      }),
    )
    const text = 'a\tb :: c\nSELECT 1::int # [x]\n\u001b[31mred\u001b[0m'
    expect(harmless(text)).toBe(text)
  })

  test('shows what would hide text', () => {
    expect(harmless('visible\rhidden\0\b')).toBe('visible\ufffdhidden\ufffd\ufffd')
  })
})

describe('the log', () => {
  let written = ''
  beforeEach(() => {
    written = ''
    vi.spyOn(process.stdout, 'write').mockImplementation(text => {
      written += text
      return true
    })
  })
  afterEach(() => {
    vi.restoreAllMocks()
  })
  const lines = () => written.split('\n').slice(0, -1)

  test('shows text and groups, and no command but its own', () => {
    log.info('::error::x')
    log.group('two\n::error::x', ['::warning::y', 'a\n##[debug]z'])
    expect(lines().map(commandIn)).toEqual([undefined, 'group', undefined, undefined, undefined, 'endgroup'])
    expect(lines()[1]).toBe('::group::two :\u200b:error::x')
  })

  test('shows the start of what is far too long', () => {
    log.group('statements', [`INSERT ${'x'.repeat(2 * 1024 * 1024)}`])
    expect(lines()[1]).toHaveLength(10_001)
    expect(lines()[1]).toMatch(/^INSERT x+…$/)
  })

  test('sends an error as one command, with its place, whatever its text is', () => {
    log.error('first\n::warning::second %0A', 'a: title, b', { file: 'a,b:c.py', line: 3 })
    log.error('no line', 'title', { file: 'a.py', line: null })
    log.warning('first\r\nsecond')
    expect(lines()).toEqual([
      '::error title=a%3A title%2C b,file=a%2Cb%3Ac.py,line=3::first%0A::warning::second %250A',
      '::error title=title,file=a.py::no line',
      '::warning::first%0D%0Asecond',
    ])
  })
})

describe('what the app prints', () => {
  /** Collects the groups that are shown. */
  function collector() {
    const groups: { title: string; lines: string[] }[] = []
    return {
      groups,
      to: {
        ...log,
        group: (title: string, lines: readonly string[]) => void groups.push({ title, lines: [...lines] }),
      },
    }
  }

  test('is kept until it is shown, once', () => {
    const { groups, to } = collector()
    const printed = new PrintOut()
    printed.show(to, 'nothing yet')
    printed.add('one')
    printed.add('two')
    printed.show(to, 'Output')
    printed.show(to, 'nothing more')
    printed.add('three')
    printed.show(to, 'Later')
    expect(groups).toEqual([
      { title: 'Output', lines: ['one', 'two'] },
      { title: 'Later', lines: ['three'] },
    ])
  })

  test('is cut at 2,000 lines of 2,000 characters, and the rest is counted', () => {
    const { groups, to } = collector()
    const printed = new PrintOut()
    for (let i = 0; i < 100_000; i++) printed.add('x'.repeat(i < 10 ? 100_000 : 1))
    printed.show(to, 'Output')
    const { lines } = groups[0]!
    expect(lines).toHaveLength(2_001)
    expect(lines[0]).toBe(`${'x'.repeat(2_000)} …`)
    expect(lines[10]).toBe('x')
    expect(lines.at(-1)).toBe('… 98000 more lines')
    printed.add('fresh')
    printed.show(to, 'Again')
    expect(groups[1]!.lines).toEqual(['fresh'])
  })
})
