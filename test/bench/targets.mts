import { type Figures, median, type Own, type Part, type Race, type Target } from './figures.mts'
import { factor, mebibytes, milliseconds } from './units.mts'

/** A target, what was wanted and measured with their units, and whether it is met. */
export interface Judgement {
  target: string
  wanted: string
  measured: string
  met: boolean
}

/** All targets of what was measured. */
export function judge({ races, own }: Pick<Figures, 'races' | 'own'>): Judgement[] {
  const ratios = races.flatMap(race =>
    race.targets.map(target => ({
      target: `${target.what} (${race.title})`,
      wanted: `${target.at === 'least' ? '≥' : '≤'} ${target.limit} ×`,
      measured: factor(ratio(race, target)),
      met: isMet(race, target),
    })),
  )
  return [...ratios, ...ofOwnCost(own)]
}

/** The targets that were met before and no longer are. */
export function lapsed(before: Judgement[], now: Judgement[]): Judgement[] {
  const wereMet = new Set(before.filter(({ met }) => met).map(({ target }) => target))
  return now.filter(({ target, met }) => !met && wereMet.has(target))
}

/** The ratio that a target is about. Throws where a contestant of it did not run. */
export function ratio({ rows }: Race, { of, to }: Target): number {
  const value = (part: Part): number => {
    if (typeof part !== 'string') return value(part.of) - value(part.without)
    const row = rows.find(({ name }) => name === part)
    if (!row) throw new Error(`“${part}” did not run`)
    return median(row.times)
  }
  return value(of) / value(to)
}

export const isMet = (race: Race, target: Target): boolean =>
  target.at === 'least' ? ratio(race, target) >= target.limit : ratio(race, target) <= target.limit

/** Own cost that is not to be exceeded, in milliseconds or MiB, by whether the batch is of data. */
const ownLimits = { cpu: 300, memory: 150, memoryOfData: 400 }

function ofOwnCost(own: Own[]): Judgement[] {
  const [small, data] = [own[0], own.find(({ batch }) => batch.includes('data'))]
  if (!small || !data) return []
  const { cpu, memory, memoryOfData } = ownLimits
  const judgement = (target: string, limit: number, is: number, show: (value: number) => string) => ({
    target,
    wanted: `≤ ${show(limit)}`,
    measured: show(is),
    met: is <= limit,
  })
  return [
    judgement(`own CPU time (${small.batch})`, cpu, median(small.cpu), milliseconds),
    judgement(`memory at peak (${small.batch})`, memory, Math.max(...small.memory), mebibytes),
    judgement(`memory at peak (${data.batch})`, memoryOfData, Math.max(...data.memory), mebibytes),
  ]
}
