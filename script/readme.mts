import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'

type Entries = Record<string, { description: string; default?: string }>
const root = join(import.meta.dirname, '..')

/** README.md with its tables made anew from action.yml. */
export function withTables(readme: string, actionYml: string): string {
  const { inputs, outputs } = parse(actionYml) as { inputs: Entries; outputs: Entries }
  const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('\n', ' ')
  const table = (head: string[], rows: string[][]) =>
    [head, head.map(() => '---'), ...rows].map(row => `| ${row.join(' | ')} |`).join('\n')
  const inputRows = Object.entries(inputs).map(([name, { description, default: value = '' }]) => [
    `\`${name}\``,
    value === '' ? '' : `\`${value}\``,
    cell(description),
  ])
  const outputRows = Object.entries(outputs).map(([name, { description }]) => [`\`${name}\``, cell(description)])
  return between(
    between(readme, 'inputs', table(['Input', 'Default', 'Meaning'], inputRows)),
    'outputs',
    table(['Output', 'Meaning'], outputRows),
  )
}

function between(text: string, name: string, content: string): string {
  const [start, end] = [`<!-- ${name}: from action.yml -->`, `<!-- /${name} -->`]
  const [before, rest] = text.split(start)
  const after = rest?.split(end)[1]
  if (after === undefined) throw new Error(`README.md has no ${start} … ${end}`)
  return `${before}${start}\n${content}\n${end}${after}`
}

if (import.meta.main) {
  const path = join(root, 'README.md')
  writeFileSync(path, withTables(readFileSync(path, 'utf8'), readFileSync(join(root, 'action.yml'), 'utf8')))
}
