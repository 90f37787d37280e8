import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { allFindings, differences, type Findings } from '../test/findings/finding.mts'
import { environmentOf, findPython, newest, oldest } from './environments.mts'

const root = join(import.meta.dirname, '..')
const postgresVersions = ['14', '15', '16', '17', '18']
/** The newest packages and the oldest, each on a Python that has both. */
const stacks = [
  { name: 'newest packages', requirements: newest },
  { name: 'oldest packages', requirements: oldest },
]
const pythonVersion = '3.11'

const combinations = stacks.flatMap(({ name, requirements }) =>
  postgresVersions.map(version => ({ name: `PostgreSQL ${version}, ${name}`, version, requirements })),
)

/**
 * Plays everything on each combination whose name holds the text, in a process of its own, and hands over what is known
 * of all of them after each.
 */
export async function playMatrix(
  known: Findings,
  only: string,
  done: (matrix: Findings['matrix']) => void,
): Promise<void> {
  const command = findPython(pythonVersion)
  if (!command) throw new Error(`script/findings --matrix needs Python ${pythonVersion}, which this machine lacks.`)
  const rows = new Map(known.matrix.map(row => [row.name, row]))
  for (const { name, version, requirements } of combinations.filter(each => each.name.includes(only))) {
    const found = playOn(version, environmentOf({ python: pythonVersion, requirements }, command), name)
    const different = differences(allFindings(known), allFindings(found))
    for (const { scenario, was, is } of different) console.log(`✗ ${scenario}\n  was: ${was}\n  is:  ${is}`)
    rows.set(name, {
      name,
      environment: found.environment,
      findings: allFindings(found).length,
      different: Object.fromEntries(different.map(({ scenario, is }) => [scenario, is])),
    })
    done(combinations.flatMap(each => rows.get(each.name) ?? []))
  }
}

function playOn(version: string, python: string, name: string): Findings {
  console.log(`\n━━ ${name}`)
  const postgres = execFileSync('script/postgres', [version], { cwd: root, encoding: 'utf8' }).trim()
  const to = join(tmpdir(), `atomic-upgrade-findings-${process.pid}.json`)
  const env = { ...process.env, ATOMIC_UPGRADE_PYTHON: python, ATOMIC_UPGRADE_POSTGRES: postgres }
  const args = ['--disable-warning=ExperimentalWarning', 'script/findings.mts', '--to', to]
  const { status } = spawnSync(process.execPath, args, { cwd: root, env, stdio: 'inherit' })
  if (status !== 0) throw new Error(`${name}: the findings were not played to their end.`)
  const found = JSON.parse(readFileSync(to, 'utf8')) as Findings
  rmSync(to)
  return found
}
