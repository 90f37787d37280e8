import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const pathOf = (name: string) => join(import.meta.dirname, '..', 'docs', `${name}.json`)

/** What docs/NAME.json holds, if it is there. */
export function readRecord<T>(name: string): T | undefined {
  return existsSync(pathOf(name)) ? (JSON.parse(readFileSync(pathOf(name), 'utf8')) as T) : undefined
}

/** Writes docs/NAME.json, in the project's style. */
export function writeRecord(name: string, value: unknown): void {
  writeFileSync(pathOf(name), `${JSON.stringify(value, null, 2)}\n`)
  execFileSync('biome', ['format', '--write', pathOf(name)], { stdio: ['ignore', 'ignore', 'inherit'] })
}
