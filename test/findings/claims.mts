import { link } from '../support/markdown.mts'
import { type Finding, type Findings, linkTo, verdictOf } from './finding.mts'
import type { WayName } from './scenario.mts'

/** A sentence of the research, and what it is judged by. */
interface Claim {
  claim: string
  /** The scenarios that play it as the research did. */
  played: string[]
  /** Chapters whose scenarios are cases of it, too. */
  chapters: string[]
  way?: WayName
  /** A case that is to be told besides, if it is one. */
  but?: { scenario: string; told: string; is: (finding: Finding) => boolean }
}

const anyFailure = [
  'Scripts and settings that end or leave the transaction',
  'Failures of the COMMIT and of the connection',
  'What PostgreSQL does not run in a transaction',
]

const claims: Claim[] = [
  {
    claim: 'Given a set of [X], when the migration X succeeds, then it is applied.',
    played: ['Single migration in set succeeds'],
    chapters: [],
  },
  {
    claim: 'Given a set of [X], when the migration X fails, then it is rolled back.',
    played: ['Single migration in set fails'],
    chapters: [],
  },
  {
    claim: 'Given a set of [X, Y, Z], when Y fails, then Y and X are rolled back and Z is never applied.',
    played: ['Multiple migrations in set, 1 fails in the set', 'The same on a fresh database'],
    chapters: anyFailure,
    but: {
      scenario: 'A deferred constraint, violated by the first of two revisions',
      told: 'Z did run, and was rolled back, in',
      is: ({ ways }) => ways.raw.ran.join() === 'b2, c3' && ways.raw.holds === 'unchanged',
    },
  },
  {
    claim:
      'If any of the scripts in a batch fail during a `flask db upgrade`, then none of the scripts in that batch are applied.',
    played: ['Multiple migrations in set, 1 fails in the set'],
    chapters: anyFailure,
  },
  {
    claim:
      'This works exactly the same in multidb mode: every script in the batch across all databases is rolled back.',
    played: ['A script fails in the second database', 'A script fails in the first database'],
    chapters: ['Several databases'],
  },
  {
    claim: '`flask db upgrade REVISION` runs up to and including the supplied revision.',
    played: ['Upgrade to a revision'],
    chapters: [],
  },
  {
    claim: '`flask db downgrade` reverts the last migration applied.',
    played: ['Downgrade by one revision'],
    chapters: [],
  },
  {
    claim: '`flask db downgrade REVISION` reverts all later revisions but not the supplied one.',
    played: ['Downgrade to a revision'],
    chapters: [],
  },
  {
    claim: '`flask db upgrade --sql` prints the SQL that it would have applied.',
    played: ['Single migration in set succeeds'],
    chapters: ['Where the SQL of offline mode is not what the scripts do'],
    way: 'psql',
  },
]

/** Each claim with its verdict, as rows of a table. Throws where a scenario that it names is not there. */
export function judgeClaims({ chapters }: Findings): string[][] {
  const known = new Map(chapters.flatMap(({ findings }) => findings.map(finding => [finding.scenario, finding])))
  const find = (name: string) => known.get(name) ?? missing(name)
  return claims.map(({ claim, played, chapters: titles, way = 'raw', but }) => {
    const own = played.map(find)
    const wrong = own.filter(finding => verdictOf(finding, way) !== 'right')
    const cases = titles.map(title => ({ title, ...countWrong(chapters, title, way, claim) }))
    const elsewhere = cases.filter(({ wrong }) => wrong > 0)
    const told = elsewhere.map(({ title, wrong, of }) => `${wrong} of ${of} under ${link(title)}`)
    const besides = but?.is(find(but.scenario)) ? ` ${but.told} ${linkTo(find(but.scenario))}.` : ''
    if (wrong.length > 0) return [claim, `False: ${[...wrong.map(linkTo), ...told].join('; ')}.${besides}`]
    if (told.length > 0) return [claim, `True as played, false in general: ${told.join('; ')}.${besides}`]
    return [claim, `True: ${own.map(linkTo).join(', ')}.${besides}`]
  })
}

/** The cases of a chapter that speak of the claim: of rolling back, those that should leave all as it was. */
function countWrong(chapters: Findings['chapters'], title: string, way: WayName, claim: string) {
  const chapter = chapters.find(each => each.title === title) ?? missing(title)
  const cases = way === 'psql' ? chapter.findings : chapter.findings.filter(({ expected }) => expected === 'unchanged')
  if (cases.length === 0) throw new Error(`no case of “${claim}” under ${title}`)
  return { wrong: cases.filter((finding: Finding) => verdictOf(finding, way) !== 'right').length, of: cases.length }
}

function missing(name: string): never {
  throw new Error(`there is no “${name}” among the findings`)
}
