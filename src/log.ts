import { setImmediate } from 'node:timers/promises'
import type { Place } from './failure'
import { printable } from './report/markdown'
import { clip } from './report/words'

/** A statement may have megabytes; its start tells enough, in characters. */
const longest = 10_000

type Core = typeof import('@actions/core')

let core: Core | undefined
const waiting: ((core: Core) => void)[] = []

function say(words: (core: Core) => void): void {
  if (core) words(core)
  else waiting.push(words)
}

/**
 * Masks the secrets, and then lets the log speak. @actions/core takes as long to load as all else together, so that is
 * done when what was begun before has been started: Python.
 */
export async function openLog(secrets: string[]): Promise<Core> {
  await setImmediate()
  core = await import('@actions/core')
  for (const secret of secrets) core.setSecret(secret)
  for (const words of waiting.splice(0)) words(core)
  return core
}

const warned = new Set<string>()

/** The step's log. Whatever is passed in is shown, and never taken for a workflow command. */
export const log = {
  /** Further lines are indented, so that none of them can be taken for a line of ours. */
  info(text: string): void {
    say(core => core.info(harmless(clip(text, longest)).replaceAll('\n', '\n  ')))
  },

  group(title: string, lines: readonly string[]): void {
    say(core => {
      core.startGroup(harmless(clip(title, longest)).replaceAll('\n', ' '))
      for (const line of lines) core.info(harmless(clip(line, longest)))
      core.endGroup()
    })
  },

  warning(text: string): void {
    say(core => core.warning(printable(clip(text, longest))))
  },

  /** The same words are said once. */
  warningOnce(text: string): void {
    if (!warned.has(text)) log.warning(text)
    warned.add(text)
  },

  error(text: string, title: string, place?: Place): void {
    say(core =>
      core.error(printable(clip(text, longest)), {
        title,
        ...(place && { file: place.file, ...(place.line !== null && { startLine: place.line }) }),
      }),
    )
  },
}

export type Log = typeof log

/**
 * The runner takes `::name::` at a line's start and `##[name]` anywhere for a command of ours. Of a terminal's commands
 * only colours stay, and they end with their line.
 */
export function harmless(text: string): string {
  return text
    .split(colour)
    .map((piece, i) => (i % 2 === 0 ? printable(piece) : piece))
    .join('')
    .replaceAll(fromColour, rest => (endsColourless.test(rest) ? rest : `${rest}\u001b[0m`))
    .replaceAll(/^(\s*):(?=:)/gm, '$1:\u200b')
    .replaceAll('##[', '##\u200b[')
}

// biome-ignore-start lint/suspicious/noControlCharactersInRegex: an escape character is the point
const colour = /(\u001b\[[\d;]*m)/
const fromColour = /\u001b.*$/gm
const endsColourless = /\u001b\[0?m[^\u001b]*$/
// biome-ignore-end lint/suspicious/noControlCharactersInRegex: an escape character is the point

/** Keeps what the user's app prints until there is a group to show it in; bounded, whatever it prints. */
export class PrintOut {
  #lines: string[] = []
  #dropped = 0

  add(line: string): void {
    if (this.#lines.length < 2_000) this.#lines.push(line.length > 2_000 ? `${line.slice(0, 2_000)} …` : line)
    else this.#dropped++
  }

  /** Shows and forgets what has come so far. */
  show(log: Log, title: string): void {
    if (this.#lines.length === 0) return
    if (this.#dropped > 0) this.#lines.push(`… ${this.#dropped} more lines`)
    log.group(title, this.#lines)
    this.forget()
  }

  forget(): void {
    this.#lines = []
    this.#dropped = 0
  }
}
