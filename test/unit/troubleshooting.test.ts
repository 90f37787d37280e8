import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { messages } from '../support/messages.mts'
import { root } from '../support/runner.mts'

const page = readFileSync(join(root, 'docs/troubleshooting.md'), 'utf8')

/** What the page quotes of ours, in code, with the heading above it. What is quoted in “ ” is others' words. */
const quotes = page.split(/^## /m).flatMap(section => {
  const heading = section.split('\n', 1)[0]!
  return [...section.matchAll(/^\| `([^`]+)` \|/gm)].map(([, text]) => ({ heading, text: text! }))
})

const escaped = (text: string) => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&')
/** Whether one text, in which … stands for anything, can be the other. */
const fits = (pattern: string, text: string) => new RegExp(`${pattern.split('…').map(escaped).join('.*')}$`).test(text)

const printed = messages()

test('messages are found in both languages', () => {
  const files = new Set(printed.map(({ file }) => file))
  for (const file of [
    'src/inputs.ts',
    'src/committing/transact.ts',
    'src/report/blame.ts',
    'src/alembic/atomic_upgrade/project.py',
  ])
    expect(files).toContain(file)
  expect(printed.length).toBeGreaterThan(60)
})

describe('docs/troubleshooting.md has', () => {
  const reasons = readFileSync(join(root, 'src/failure.ts'), 'utf8')
    .split('export type FailureReason =')[1]!
    .split('\n\n')[0]!
  for (const [, reason] of reasons.matchAll(/\| '([\w-]+)'/g)) {
    test(`a section for ${reason}`, () => expect(page).toMatch(new RegExp(`^## .*\`${reason}\``, 'm')))
  }

  for (const { reason, text } of printed) {
    test(`“${text}”`, () => {
      const found = quotes.filter(quote => fits(text, quote.text) || fits(quote.text, text))
      expect(found).not.toEqual([])
      if (reason && reason !== 'not renderable') expect(found.map(({ heading }) => heading)).toContain(`\`${reason}\``)
    })
  }
})

describe('The source has what docs/troubleshooting.md quotes:', () => {
  const sources = [...new Set(printed.map(({ file }) => file)), 'src/github/comments.ts', 'src/telling/publish.ts'].map(
    file => readFileSync(join(root, file), 'utf8'),
  )
  for (const { text } of quotes) {
    test(`“${text}”`, () => {
      // A URL's mistakes are told behind the input's name.
      const parts = text
        .replace(/^database-url: /, '')
        .split('…')
        .filter(part => /\w/.test(part))
      const literally = sources.some(source => parts.every(part => source.includes(part)))
      expect(literally || printed.some(message => fits(message.text, text))).toBe(true)
    })
  }
})
