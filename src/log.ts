import * as core from '@actions/core'
import type { Place } from './failure'
import { clip } from './report/words'

/** A statement may have megabytes; its start tells enough, in characters. */
const longest = 10_000

/** The step's log. Whatever is passed in is shown, and never taken for a workflow command. */
export const log = {
  info(text: string): void {
    core.info(harmless(text))
  },

  group(title: string, lines: readonly string[]): void {
    core.startGroup(harmless(title).replaceAll('\n', ' '))
    for (const line of lines) core.info(harmless(clip(line, longest)))
    core.endGroup()
  },

  warning(text: string): void {
    core.warning(text)
  },

  error(text: string, title: string, place?: Place): void {
    core.error(text, {
      title,
      ...(place && { file: place.file, ...(place.line !== null && { startLine: place.line }) }),
    })
  },
}

export type Log = typeof log

/** The runner takes `::name::` at a line's start and `##[name]` anywhere for a command of ours. */
export function harmless(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: a carriage return would hide text; an escape may colour it
      .replaceAll(/[\u0000-\u0008\u000b-\u001a\u001c-\u001f]/g, '\ufffd')
      // .NET, in which the runner is written, counts U+0085 as white space too.
      .replaceAll(/^([\s\u0085]*):(?=:)/gm, '$1:\u200b')
      .replaceAll('##[', '##\u200b[')
  )
}

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
    this.#lines = []
    this.#dropped = 0
  }
}
