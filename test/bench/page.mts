import { code, table } from '../support/markdown.mts'
import { type Figures, isMet, type Load, median, type Own, type Race, ratio, type Sampled } from './figures.mts'

/** docs/performance.md, made of nothing but the figures. */
export function page(figures: Figures): string {
  const { machine, versions, races, own, dist } = figures
  const parts = [
    '# Performance',
    `What the action costs, next to what a user would do without it. \`script/bench\` runs the contestants in turn, round by round, each on a fresh database, and writes this page: ${inWords(machine)}; ${inWords(versions)}. Times say something about this machine; the ratios are what to look at.`,
    '![The times of every contestant, as bars](images/performance.svg)',
    '## The targets',
    targetsTable(races, own),
    ...races.flatMap(race => [`## ${race.title}`, race.text, raceTable(race), ...profile(race)]),
    '## The action’s own cost',
    `CPU time and largest resident set of the action’s own process, as Node counts them at its end, for an apply; Python and PostgreSQL are other processes. The whole step, with both, is in the last column.`,
    ownTable(own),
    `\`dist/\` has ${size(sum(Object.values(dist)))}: ${Object.entries(dist)
      .filter(([, bytes]) => bytes > 100_000)
      .map(([name, bytes]) => `${name} ${size(bytes)}`)
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

/** Own cost that is not to be exceeded, in milliseconds or MiB, by whether the batch is of data. */
const ownLimits = { cpu: 300, memory: 150, memoryOfData: 400 }

/** What was wanted, and what was reached. */
export function targetsTable(races: Race[], own: Own[]): string {
  const ratios = races.flatMap(race =>
    race.targets.map(target => [
      `${target.what} (${race.title})`,
      `${target.at === 'least' ? '≥' : '≤'} ${target.limit} ×`,
      factor(ratio(race, target)),
      mark(isMet(race, target)),
    ]),
  )
  return table(['Target', 'wanted', 'measured', ''], [...ratios, ...ownTargets(own)])
}

function ownTargets(own: Own[]): string[][] {
  const [small, data] = [own[0], own.find(({ batch }) => batch.includes('data'))]
  if (!small || !data) return []
  const { cpu, memory, memoryOfData } = ownLimits
  const row = (what: string, limit: number, is: number, show: (value: number) => string) => [
    what,
    `≤ ${show(limit)}`,
    show(is),
    mark(is <= limit),
  ]
  return [
    row(`own CPU time (${small.batch})`, cpu, median(small.cpu), milliseconds),
    row(`memory at peak (${small.batch})`, memory, Math.max(...small.memory), mebibytes),
    row(`memory at peak (${data.batch})`, memoryOfData, Math.max(...data.memory), mebibytes),
  ]
}

const mark = (met: boolean) => (met ? '✓' : '✗')
const sum = (values: number[]) => values.reduce((total, each) => total + each, 0)
const inWords = (pairs: Record<string, string>) =>
  Object.entries(pairs)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ')

/** Three digits are as much as a median is worth. */
export const milliseconds = (value: number): string => {
  const rounded = Math.abs(value) >= 1000 ? Math.round(value / 10) * 10 : Math.round(value)
  return `${rounded.toLocaleString('en')} ms`
}
const mebibytes = (value: number) => `${Math.round(value).toLocaleString('en')} MiB`
const size = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`
const factor = (value: number) => `${value.toFixed(2)} ×`
