import { code, link, prose, table } from '../support/markdown.mts'
import { judgeClaims } from './claims.mts'
import { allFindings, type Finding, type Findings, linkTo, type Result, type Verdict, verdictOf } from './finding.mts'
import { type WayName, wayNames } from './scenario.mts'

const titles: Record<WayName, string> = {
  raw: '`flask db upgrade`',
  psql: '`--sql \\| psql -1`',
  action: 'the action',
}

/** docs/findings.md, made of nothing but the findings. */
export function page(findings: Findings): string {
  const { chapters, environment, matrix } = findings
  const parts = [
    '# Findings: what a failed upgrade leaves behind',
    answer(findings),
    `Every line below was played for real, three times on fresh databases: as \`flask db upgrade\`, as \`flask db upgrade --sql | psql -1 -v ON_ERROR_STOP=1\` (with \`bash -eo pipefail\`, as \`shell: bash\` runs it on GitHub), and with this action. What the databases hold afterwards, catalog and rows, is compared with what should be there. \`script/findings\` plays it all again and fails when a finding is not what is written here; ${versions(environment)}.`,
    '✓ as it should be, and the exit code says so · – should have been applied, is not; the run fails and everything is as before · ✗ anything else',
    '## The claims of the research',
    table(['Claim', 'Verdict'], judgeClaims(findings)),
    ...chapters.flatMap(({ title, text, findings }) => [`## ${title}`, text, tableOf(findings)]),
    ...(matrix.length > 0 ? ['## Other versions', versionsTable(matrix)] : []),
    '## Evidence',
    'What each batch was, and for each way what the databases hold afterwards, which revisions’ scripts ran as the run itself says, and its error.',
    ...allFindings(findings).map(evidence),
  ]
  return `${parts.join('\n\n')}\n`
}

/** When a failed upgrade leaves the database unchanged, when not, and what the action changes about it; then the cases. */
export function answer(findings: Findings): string {
  const all = allFindings(findings)
  const failures = all.filter(({ expected }) => expected === 'unchanged')
  const successes = all.filter(({ expected }) => expected === 'applied')
  const judged = (verdict: Verdict, way: WayName, among: Finding[]) =>
    among.filter(finding => verdictOf(finding, way) === verdict)
  const [raw, psql] = [judged('wrong', 'raw', failures), judged('wrong', 'psql', failures)]
  const silent = judged('wrong', 'psql', successes).filter(({ ways }) => ways.psql.exits.every(exit => exit === 0))
  const loud = judged('wrong', 'psql', successes).length - silent.length
  const refused = judged('not done', 'action', successes)
  const amiss = judged('wrong', 'action', all)
  const action =
    amiss.length > 0
      ? `With this action, ${amiss.length} of ${all.length} went wrong: ${amiss.map(linkTo).join(', ')}.`
      : `**With this action every database was as before in all ${failures.length}**, whatever the scripts do to transactions (only a number taken from a sequence is gone, which PostgreSQL gives back to nobody); and of the ${successes.length} batches that should succeed it applied ${successes.length - refused.length} and refused ${refused.length} before anything ran, since PostgreSQL does not run them in one transaction.`
  return [
    `**A failed \`flask db upgrade\` leaves the database unchanged as long as the whole batch stays in the one transaction that Alembic opens, and not otherwise.** It stays there with the stock \`env.py\` and plain scripts, whether a statement fails, the connection is lost or a constraint is violated at the COMMIT. It does not where a setting or a script ends that transaction or writes beside it, or where several databases are committed one after another: of ${failures.length} failures played here, a raw upgrade left part of the batch behind in ${raw.length}, and the SQL of offline mode piped to \`psql -1\` in ${psql.length}. ${action}`,
    `A raw upgrade left part of the batch behind with ${list(raw)}. Of the batches that should succeed, \`--sql | psql -1\` ended ${silent.length} with exit code 0 and other data than should be there, and ${loud} with part of the batch or a false exit code.${refused.length > 0 ? ` The action refused ${list(refused)}.` : ''}`,
  ].join('\n\n')
}

const list = (findings: Finding[]) => findings.map(linkTo).join('; ') || 'none'

export const tableOf = (findings: Finding[]): string =>
  table(
    ['Scenario', 'Should be', ...wayNames.map(way => titles[way])],
    findings.map(finding => [linkTo(finding), finding.expected, ...wayNames.map(way => cell(finding, way))]),
  )

const marks = { right: '✓', 'not done': '–', wrong: '✗' }

/** In a few words, what one way led to. */
export function cell(finding: Finding, way: WayName): string {
  const result = finding.ways[way]
  const verdict = verdictOf(finding, way)
  const words = verdict === 'not done' ? 'not applied' : holdsInWords(result)
  return `${marks[verdict]} ${words}, exit ${result.exits.join(' and ')}`
}

function holdsInWords({ holds, exits }: Result): string {
  if (holds === 'other data') return 'other data'
  if (holds === 'changed') return exits.includes(0) ? 'something else' : 'applied in part'
  return holds
}

function evidence(finding: Finding): string {
  const scripts = Object.entries(finding.scripts).map(([id, upgrade]) => `# ${id}\n${upgrade}`)
  const lines = wayNames.map(way => {
    const { found, ran, errors } = finding.ways[way]
    const reached = ran.some(Boolean) ? `; ran ${ran.map(each => each || 'nothing').join(', then ')}` : ''
    const said = errors.filter(Boolean).map(each => `<br>${code(each)}`)
    return `- ${titles[way].replace('\\|', '|')}: ${cell(finding, way)}; ${code(found)}${reached}${said.join('')}`
  })
  return [
    `### ${finding.scenario}`,
    ...(scripts.length > 0 ? [`\`\`\`python\n${scripts.join('\n\n')}\n\`\`\``] : []),
    lines.join('\n').replaceAll('\\|', '|'),
  ].join('\n\n')
}

const versions = (environment: Findings['environment']): string =>
  `these are of ${Object.entries(environment)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ')}`

function versionsTable(matrix: Findings['matrix']): string {
  const names = [...new Set(matrix.flatMap(({ environment }) => Object.keys(environment)))]
  const rows = matrix.map(({ environment, findings, different }) => [
    ...names.map(name => environment[name] ?? ''),
    Object.keys(different).length === 0
      ? `all ${findings} the same`
      : Object.entries(different)
          .map(([scenario, told]) => `${link(scenario)}: ${prose(told)}`)
          .join('<br>'),
  ])
  return table([...names, 'Findings'], rows)
}
