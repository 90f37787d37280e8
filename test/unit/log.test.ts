import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { harmless, log, openLog, PrintOut } from '../../src/log'
import { printable } from '../../src/report/markdown'
import { commandIn, commandNames, commandsIn } from '../support/workflow-commands.mts'
import { hostile } from './hostile'

const esc = '\u001b'

beforeAll(async () => void (await openLog([])))

const expectHarmless = (text: string) => {
  for (const line of text.split(/\r\n|\r|\n/)) expect(commandIn(line), JSON.stringify(line)).toBeUndefined()
}

const evil = fc
  .array(
    fc.oneof(
      fc.constantFrom(...commandNames),
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
      { numRuns: 8_000 },
    )
    fc.assert(
      fc.property(evil, fc.constantFrom(...commandNames), evil, (before, name, after) => {
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
        const bare = (each: string) => each.replaceAll('\u200b', '').replaceAll(`${esc}[0m`, '')
        expect(bare(harmless(text)).length).toBe(bare(text.replaceAll('\r\n', '\n')).length)
      }),
    )
    const text = 'a\tb :: c\nSELECT 1::int # [x]\n\u001b[31mred\u001b[0m'
    expect(harmless(text)).toBe(text)
  })

  test('shows what would hide text', () => {
    expect(harmless('visible\rhidden\0\b')).toBe('visible\ufffdhidden\ufffd\ufffd')
    expect(harmless('a\u202eb')).toBe('a\ufffdb')
  })

  test('leaves a terminal nothing but colours, and those end with their line', () => {
    expect(harmless('\u001b[1;31mred\nplain\n\u001b[32mgreen\u001b[m.')).toBe(
      '\u001b[1;31mred\u001b[0m\nplain\n\u001b[32mgreen\u001b[m.',
    )
    expect(harmless('\u001b[2J\u001b]8;;x\u0007link\u009b8m')).toBe('\ufffd[2J\ufffd]8;;x\ufffdlink\ufffd8m')
    fc.assert(
      fc.property(
        fc.array(fc.oneof(evil, fc.constantFrom('\u001b[', '31', ';', 'm', '\u001b[0m', '\u009b'))),
        parts => {
          for (const line of harmless(parts.join('')).split('\n')) {
            const colours = [...line.matchAll(new RegExp(`${esc}\\[([\\d;]*)m`, 'g'))].map(([, code]) => code)
            expect(line.split(esc)).toHaveLength(colours.length + 1)
            if (colours.length > 0) expect(['', '0']).toContain(colours.at(-1))
            expect(line).not.toMatch(/[\u0080-\u009f]/)
          }
        },
      ),
      { numRuns: 2_000 },
    )
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
    expect(lines().map(line => commandIn(line)?.name)).toEqual([
      undefined,
      'group',
      undefined,
      undefined,
      undefined,
      'endgroup',
    ])
    expect(lines()[1]).toBe('::group::two :\u200b:error::x')
  })

  test('has no line that looks like one of ours and is not', () => {
    log.info('✓ x\nOutcome: applied.\n::error::x')
    expect(lines()).toEqual(['✓ x', '  Outcome: applied.', '  :\u200b:error::x'])
  })

  test('shows the start of what is far too long', () => {
    log.group('statements', [`INSERT ${'x'.repeat(2 * 1024 * 1024)}`])
    expect(lines()[1]).toHaveLength(10_001)
    expect(lines()[1]).toMatch(/^INSERT x+…$/)
  })

  test('shows the start of a message that is far too long', () => {
    const long = 'x'.repeat(2 * 1024 * 1024)
    log.info(long)
    log.warning(long)
    log.error(long, 'title')
    expect(lines().map(({ length }) => length)).toEqual([10_001, 10_012, 10_022])
  })

  test('sends an error as one command, with its place, whatever its text is', () => {
    log.error('first\n::warning::second %0A', 'a: title, b', { file: 'a,b:c.py', line: 3 })
    log.error('no line', 'title', { file: 'a.py', line: null })
    log.warning('first\r\nsecond')
    expect(lines()).toEqual([
      '::error title=a%3A title%2C b,file=a%2Cb%3Ac.py,line=3::first%0A::warning::second %250A',
      '::error title=title,file=a.py::no line',
      '::warning::first%0Asecond',
    ])
    fc.assert(
      fc.property(evil, evil, evil, (text, title, file) => {
        written = ''
        log.error(text, title, { file, line: 7 })
        log.warning(text)
        expect(written.split('\n')).toHaveLength(3)
        expect(commandsIn(written)).toEqual([
          {
            name: 'error',
            properties: { ...(title && { title }), ...(file && { file }), line: '7' },
            text: printable(text),
          },
          { name: 'warning', properties: {}, text: printable(text) },
        ])
      }),
    )
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
