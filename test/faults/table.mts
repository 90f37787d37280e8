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

const headings = [
  'fault',
  'points',
  'tried',
  'all old',
  'all new',
  'between segments',
  'half',
  'settled later',
  'false words',
  'left behind',
]

/** The rows as a Markdown table, with their sums; `segments` where the batch may stop between two of them. */
export function table(rows: Row[], { segments = false } = {}): string {
  const figures = rows.map(row => [row.points, ...countsOf(row)])
  const sums = headings.slice(1).map((_, column) => figures.reduce((sum, row) => sum + row[column]!, 0))
  const lines = [...rows.map(({ fault }, i) => [fault.name, ...figures[i]!]), ['all', ...sums]]
  const shown = (line: (string | number)[]) => line.filter((_, i) => segments || headings[i] !== 'between segments')
  return markdown(shown(headings) as string[], lines.map(shown))
}

/** What the databases held after the run with the fault, before the next run: how often each, as a Markdown table. */
export function states(rows: Row[]): string {
  const seen = rows.flatMap(({ verdicts }) => verdicts.flatMap(verdict => verdict ?? []))
  const groups = Map.groupBy(
    seen,
    verdict => `${heldBy(verdict)} | ${verdict.holds === 'between' ? 'the same' : `all ${verdict.holds}`}`,
  )
  const lines = [...groups].map(([state, { length }]) => [...state.split(' | '), length] as (string | number)[])
  return markdown(['held', 'the next run finds', 'times'], lines.sort())
}

const heldBy = ({ seen, stop }: Verdict): string => (stop ? stops[stop]! : seen.join(', '))

/** Where a batch of three segments can stop. */
const stops: Record<string, string> = {
  first: 'the first segment',
  invalid: 'the first segment, and an invalid index',
  second: 'the first two segments',
}

function markdown(head: string[], lines: (string | number)[][]): string {
  const cells = [head, ...lines.map(line => line.map(cell => cell.toLocaleString('en')))]
  const numbers = head.map((_, column) => typeof lines[0]?.[column] === 'number')
  const widths = head.map((_, column) => Math.max(...cells.map(line => line[column]!.length)))
  const pad = (cell: string, column: number) =>
    numbers[column] ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)
  const show = (line: string[]) => `| ${line.map(pad).join(' | ')} |`
  const rule = widths.map((width, column) => (numbers[column] ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width)))
  return [show(cells[0]!), `| ${rule.join(' | ')} |`, ...cells.slice(1).map(show)].join('\n')
}

function countsOf({ verdicts }: Row): number[] {
  const tried = verdicts.filter(verdict => verdict !== undefined)
  const holding = (what: Verdict['holds']) => tried.filter(({ holds }) => holds === what).length
  return [
    tried.length,
    holding('old'),
    holding('new'),
    holding('between'),
    holding('half'),
    tried.filter(({ seen }) => seen.includes('prepared')).length,
    tried.filter(({ falseWords }) => falseWords.length > 0).length,
    tried.filter(({ left }) => left.length > 0).length,
  ]
}

export const allIsWell = (rows: Row[]): boolean =>
  rows.every(({ verdicts }) => verdicts.every(verdict => verdict && !isBad(verdict)))
