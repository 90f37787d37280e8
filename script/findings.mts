import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { chapters } from '../test/findings/chapters.mts'
import { allFindings, differences, type Finding, type Findings } from '../test/findings/finding.mts'
import { answer, cell, page, tableOf } from '../test/findings/page.mts'
import { play, type Servers } from '../test/findings/play.mts'
import { wayNames } from '../test/findings/scenario.mts'
import { startServer } from '../test/support/postgres.mts'
import { playMatrix } from './findings-matrix.mts'
import { readRecord, writeRecord } from './record.mts'
import { versionsOf } from './versions.mts'

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    write: { type: 'boolean', default: false },
    matrix: { type: 'boolean', default: false },
    /** Where to write what was found; nothing is compared then. */
    to: { type: 'string', default: '' },
  },
})
const docs = join(import.meta.dirname, '..', 'docs')
const known = readRecord<Findings>('findings')
if (values.write && values.only) fail('--write writes all findings, so it does not go with --only.')

if (values.matrix) {
  if (!known) fail('docs/findings.json is not there: run script/findings --write first.')
  await playMatrix(known, values.only, matrix => write({ ...known, matrix }))
} else await playAll()

async function playAll(): Promise<void> {
  const servers: Servers = {
    usual: await startServer(['max_prepared_transactions = 20']),
    withoutPreparedTransactions: await startServer(),
  }
  try {
    const environment = versionsOf(servers.usual)
    console.log(Object.entries(environment).flat().join(' '))
    const played: Findings['chapters'] = []
    for (const { title, text, scenarios } of chapters) {
      const findings: Finding[] = []
      for (const scenario of scenarios.filter(({ name }) => name.includes(values.only))) {
        const finding = await play(scenario, servers)
        findings.push(finding)
        console.log(`${finding.scenario}\n  ${wayNames.map(way => `${way} ${cell(finding, way)}`).join('   ')}`)
      }
      if (findings.length > 0) played.push({ title, text, findings })
    }
    judge({ environment, chapters: played, matrix: known?.matrix ?? [] })
  } finally {
    await Promise.all(Object.values(servers).map(server => server.stop()))
  }
}

/** Prints the tables, and writes them or compares them with what is known. */
function judge(findings: Findings): void {
  if (values.to) return writeFileSync(values.to, JSON.stringify(findings))
  for (const { title, findings: each } of findings.chapters) console.log(`\n## ${title}\n\n${tableOf(each)}`)
  if (!values.only) console.log(`\n${answer(findings)}`)
  const before = allFindings(known ?? { chapters: [] }).filter(({ scenario }) => scenario.includes(values.only))
  const changed = differences(before, allFindings(findings))
  for (const { scenario, was, is } of changed) console.log(`\n✗ ${scenario}\n  was: ${was}\n  is:  ${is}`)
  if (values.write) return write(findings)
  if (changed.length > 0) fail(`${changed.length} findings are not those of docs/findings.json.`)
  console.log(`\nAll ${allFindings(findings).length} findings are those of docs/findings.json.`)
}

function write(findings: Findings): void {
  writeRecord('findings', findings)
  writeFileSync(join(docs, 'findings.md'), page(findings))
}

function fail(message: string): never {
  console.error(`script/findings: ${message}`)
  process.exit(1)
}
