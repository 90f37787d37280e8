import type { Fault } from './faults.mts'
import { isBad, type Verdict } from './verdict.mts'

/** What became of one fault at all the points where it was tried. */
export interface Row {
  fault: Fault
  /** How many points a run has. */
  points: number
  /** Undefined: the point was not reached. */
  verdicts: (Verdict | undefined)[]
}

const headings = ['fault', 'points', 'tried', 'all old', 'all new', 'half', 'false words', 'left behind']

/** The rows as a Markdown table, with their sums. */
export function table(rows: Row[]): string {
  const figures = rows.map(row => [row.points, ...countsOf(row)])
  const sums = headings.slice(1).map((_, column) => figures.reduce((sum, row) => sum + row[column]!, 0))
  const lines = [...rows.map(({ fault }, i) => [fault.name, ...figures[i]!]), ['all', ...sums]]
  const cells = [headings, ...lines.map(line => line.map(cell => cell.toLocaleString('en')))]
  const widths = headings.map((_, column) => Math.max(...cells.map(line => line[column]!.length)))
  const show = (line: string[]) =>
    `| ${line.map((cell, column) => (column ? cell.padStart(widths[column]!) : cell.padEnd(widths[0]!))).join(' | ')} |`
  const rule = `| ${widths.map((width, column) => (column ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width))).join(' | ')} |`
  return [show(cells[0]!), rule, ...cells.slice(1).map(show)].join('\n')
}

function countsOf({ verdicts }: Row): number[] {
  const tried = verdicts.filter(verdict => verdict !== undefined)
  const holding = (what: Verdict['holds']) => tried.filter(({ holds }) => holds === what).length
  return [
    tried.length,
    holding('old'),
    holding('new'),
    holding('half'),
    tried.filter(({ falseWords }) => falseWords.length > 0).length,
    tried.filter(({ left }) => left.length > 0).length,
  ]
}

export const allIsWell = (rows: Row[]): boolean =>
  rows.every(({ verdicts }) => verdicts.every(verdict => verdict && !isBad(verdict)))
