import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { allRuns, inShort, type Run, type Runs, withPart } from './compatibility.mts'
import { environmentOf, findPython, installed, newest, oldest } from './environments.mts'
import { readRecord, writeRecord } from './record.mts'

const root = join(import.meta.dirname, '..')
const tests = ['seed', 'projects', 'twin', 'endings'].map(name => `test/action/${name}.test.ts`)

interface Combination {
  name: string
  postgres: string
  python: string
  requirements: string
}

/** Not those that are about the runner's seconds: a machine under load would say more about itself than of versions. */
const pattern = '^(?!cancelled while|killed)'

const between = 'test/requirements-sqlalchemy-2.0.txt'

/** Every PostgreSQL and every Python with the newest packages, and older packages with the Pythons of their time. */
const combinations: Combination[] = [
  ...['14', '15', '16', '17', '18'].map(postgres => ({
    name: `PostgreSQL ${postgres}, newest packages`,
    postgres,
    python: '3.13',
    requirements: newest,
  })),
  ...['3.11', '3.12', '3.14'].map(python => ({
    name: `Python ${python}, newest packages`,
    postgres: '18',
    python,
    requirements: newest,
  })),
  ...['3.10', '3.12'].map(python => ({
    name: `Python ${python}, SQLAlchemy 2.0`,
    postgres: '18',
    python,
    requirements: between,
  })),
  ...['3.9', '3.10', '3.11'].map(python => ({
    name: `Python ${python}, oldest packages`,
    postgres: '18',
    python,
    requirements: oldest,
  })),
]

const asked = process.argv[2]
const chosen = combinations.filter(({ name }) => !asked || name.includes(asked))
if (chosen.length === 0) fail(`there is no “${asked}”; there is:\n${combinations.map(({ name }) => name).join('\n')}`)
const pythons = new Map(chosen.map(({ python }) => [python, findPython(python)]))
const lacking = [...pythons].filter(([, command]) => !command).map(([version]) => `Python ${version}`)
if (lacking.length > 0) {
  const told = `this machine lacks ${lacking.join(', ')}.`
  if (asked) fail(told)
  console.log(`script/matrix: ${told}`)
}

const known = readRecord<Runs>('compatibility') ?? {}
for (const combination of chosen) {
  const python = pythons.get(combination.python)
  if (!python) continue
  console.log(`\n━━ ${combination.name}`)
  known[combination.name] = run(combination, environmentOf(combination, python))
  // After each, for this takes long.
  const runs = Object.fromEntries(combinations.flatMap(({ name }) => (known[name] ? [[name, known[name]]] : [])))
  writeRecord('compatibility', runs)
}

const runs = readRecord<Runs>('compatibility')!
fill('docs/compatibility.md', 'runs', allRuns(runs))
fill('README.md', 'compatibility', inShort(runs))

/** Runs the tests and says how they went. */
function run({ postgres, requirements }: Combination, python: string): Run {
  const report = join(tmpdir(), `atomic-upgrade-matrix-${process.pid}.json`)
  const module = execFileSync('script/postgres', [postgres], { cwd: root, encoding: 'utf8' }).trim()
  const environment = { ...process.env, ATOMIC_UPGRADE_PYTHON: python, ATOMIC_UPGRADE_POSTGRES: module }
  const args = [
    'run',
    ...tests,
    '--testNamePattern',
    pattern,
    '--reporter=dot',
    '--reporter=json',
    `--outputFile.json=${report}`,
  ]
  const { stdout } = spawnSync('vitest', args, { cwd: root, env: environment, encoding: 'utf8' })
  if (!existsSync(report)) fail(`the tests did not run:\n${stdout}`)
  const told = JSON.parse(readFileSync(report, 'utf8')) as Report
  rmSync(report)
  for (const { assertionResults } of told.testResults) {
    for (const { status, fullName } of assertionResults) if (status === 'failed') console.log(`✗ ${fullName}`)
  }
  const { numPassedTests: passed, numPendingTests: leftOut, numTotalTests } = told
  const failed = numTotalTests - leftOut - passed
  console.log(`${passed} passed, ${failed} failed`)
  return {
    postgres: /^PostgreSQL (\S+)$/m.exec(stdout)![1]!,
    python: execFileSync(python, ['-c', 'import platform; print(platform.python_version())'], {
      encoding: 'utf8',
    }).trim(),
    packages: installed(python, requirements),
    passed,
    failed,
  }
}

interface Report {
  numPassedTests: number
  /** Left out by the pattern. */
  numPendingTests: number
  numTotalTests: number
  testResults: { assertionResults: { status: string; fullName: string }[] }[]
}

function fill(name: string, part: string, text: string): void {
  writeFileSync(join(root, name), withPart(readFileSync(join(root, name), 'utf8'), part, text))
}

function fail(message: string): never {
  console.error(`script/matrix: ${message}`)
  process.exit(1)
}
