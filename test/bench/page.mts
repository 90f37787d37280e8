import { code, table } from '../support/markdown.mts'
import { type Figures, type Load, median, type Own, type Race, type Sampled } from './figures.mts'
import { type Judgement, judge } from './targets.mts'
import { factor, mebibytes, megabytes, milliseconds } from './units.mts'

/** docs/performance.md, made of nothing but the figures. */
export function page(figures: Figures): string {
  const { machine, versions, races, own, dist } = figures
  const parts = [
    '# Performance',
    `What the action costs, next to what a user would do without it. \`script/bench\` runs the contestants in turn, round by round, each on a fresh database, and writes this page: ${inWords(machine)}; ${inWords(versions)}. Times say something about this machine; the ratios are what to look at.`,
    '![The times of every contestant, as bars](images/performance.svg)',
    '## The targets',
    targetsTable(judge(figures)),
    ...races.flatMap(race => [`## ${race.title}`, race.text, raceTable(race), ...profile(race)]),
    '## The action’s own cost',
    `CPU time and largest resident set of the action’s own process, as Node counts them at its end, for an apply; Python and PostgreSQL are other processes. The whole step, with both, is in the last column.`,
    ownTable(own),
    `\`dist/\` has ${megabytes(sum(Object.values(dist)))}: ${Object.entries(dist)
      .filter(([, bytes]) => bytes > 100_000)
      .map(([name, bytes]) => `${name} ${megabytes(bytes)}`)
      .join(', ')}.`,
  ]
  return `${parts.join('\n\n')}\n`
}

/** A contestant’s median and spread, and its ratio to the first one. */
export function raceTable({ rows }: Race): string {
  const base = median(rows[0]!.times)
  return table(
    ['', 'median', 'from … to', 'runs', `to ${code(rows[0]!.name)}`],
    rows.map(({ name, times }) => [
      name.replaceAll('|', '\\|'),
      milliseconds(median(times)),
      times.length > 1 ? `${milliseconds(Math.min(...times))} … ${milliseconds(Math.max(...times))}` : '',
      String(times.length),
      factor(median(times) / base),
    ]),
  )
}

export function ownTable(own: Own[]): string {
  return table(
    ['batch', 'statements', 'own CPU time', 'memory at peak', 'the whole step'],
    own.map(({ batch, statements, cpu, memory, wall }) => [
      batch,
      statements.toLocaleString('en'),
      milliseconds(median(cpu)),
      mebibytes(Math.max(...memory)),
      milliseconds(median(wall)),
    ]),
  )
}

/** Where the time of a race goes, if that was measured. */
export function profile({ loads, sampled }: Race): string[] {
  if (!loads || !sampled) return []
  return [
    '### Where the time goes',
    'CPU time of the processes, median of each, in runs of their own. Python waits for the answer to each statement, so the processes work one after the other, and what one of them computes is added to the time that passes. The rest is one process waking the next.',
    loadsTable(loads),
    `And what the main thread of the action’s process did, as V8’s profiler sampled it (which makes it slower):`,
    sampledTable(sampled),
  ]
}

function loadsTable(loads: Load[]): string {
  return table(
    ['', 'Python', 'Node', 'PostgreSQL', 'together', 'time'],
    loads.map(({ name, wall, python, node, postgres }) => {
      const times = [python, node, postgres].map(median)
      return [name, ...[...times, sum(times), median(wall)].map(milliseconds)]
    }),
  )
}

function sampledTable(sampled: Sampled[]): string {
  const parts = new Set(sampled.flatMap(each => Object.keys(each.parts)))
  return table(
    ['', ...sampled.map(({ name }) => name)],
    [...parts].toSorted().map(part => [part, ...sampled.map(({ parts }) => milliseconds(parts[part] ?? 0))]),
  )
}

/** What was wanted, and what was reached. */
export function targetsTable(judgements: Judgement[]): string {
  const rows = judgements.map(({ target, wanted, measured, met }) => [target, wanted, measured, met ? '✓' : '✗'])
  return table(['Target', 'wanted', 'measured', ''], rows)
}

const sum = (values: number[]) => values.reduce((total, each) => total + each, 0)
const inWords = (pairs: Record<string, string>) =>
  Object.entries(pairs)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ')
