import { link } from '../support/markdown.mts'
import { type WayName, wayNames } from './scenario.mts'

/** What the databases hold: all as before, all as it should be, at the target with other data, or anything else. */
export type Holds = 'unchanged' | 'applied' | 'other data' | 'changed'

export interface Result {
  holds: Holds
  /** Of each run. */
  exits: (number | null)[]
  /** In words, what the databases hold. */
  found: string
  /** Of each run: the revisions whose scripts ran, and the error; empty where it does not say. */
  ran: string[]
  errors: string[]
}

export interface Finding {
  scenario: string
  /** The Python of the batch by its revisions, where it is not a fixture's. */
  scripts: Record<string, string>
  expected: 'unchanged' | 'applied'
  ways: Record<WayName, Result>
}

/** Versions by what they are of. */
export type Environment = Record<string, string>

/** What docs/findings.json holds. */
export interface Findings {
  environment: Environment
  chapters: { title: string; text: string; findings: Finding[] }[]
  /** The same on other versions: how many findings, and those that differ there, by their essence. */
  matrix: { name: string; environment: Environment; findings: number; different: Record<string, string> }[]
}

/**
 * `right`: the databases hold what they should, and the exit code says so. `not done`: it should have been applied, was
 * not, and the run says that it failed, with everything as before. `wrong`: anything else.
 */
export type Verdict = 'right' | 'not done' | 'wrong'

export function verdictOf({ expected, ways }: Finding, way: WayName): Verdict {
  const { holds, exits } = ways[way]
  const succeeded = exits.includes(0)
  if (holds === expected && succeeded === (expected === 'applied')) return 'right'
  return expected === 'applied' && holds === 'unchanged' && !succeeded ? 'not done' : 'wrong'
}

/** A link to its evidence. */
export const linkTo = ({ scenario }: Finding): string => link(scenario)

/** What one way did, without the evidence. */
export const essenceOf = (finding: Finding, way: WayName): string =>
  `${verdictOf(finding, way)} (${finding.ways[way].holds}, exit ${finding.ways[way].exits.join(' and ')})`

/** What makes a finding, without its evidence: this is what a later run is compared with. */
export const essence = (finding: Finding): string =>
  [`expected ${finding.expected}`, ...wayNames.map(way => `${way}: ${essenceOf(finding, way)}`)].join('; ')

export const allFindings = ({ chapters }: Pick<Findings, 'chapters'>): Finding[] =>
  chapters.flatMap(({ findings }) => findings)

/** The scenarios whose findings are not the same, with what each says of them; `nothing` where one has it not. */
export function differences(before: Finding[], after: Finding[]): { scenario: string; was: string; is: string }[] {
  const [was, is] = [before, after].map(each => new Map(each.map(finding => [finding.scenario, essence(finding)])))
  return [...new Set([...was!.keys(), ...is!.keys()])]
    .map(scenario => ({ scenario, was: was!.get(scenario) ?? 'nothing', is: is!.get(scenario) ?? 'nothing' }))
    .filter(({ was, is }) => was !== is)
}
