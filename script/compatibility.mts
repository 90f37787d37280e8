/** One combination of versions, and how the tests went on it. */
export interface Run {
  postgres: string
  python: string
  /** Installed versions by the packages' names, as test/requirements*.txt write them. */
  packages: Record<string, string>
  passed: number
  failed: number
}

/** What docs/compatibility.json holds: every combination by its name, in the order of script/matrix. */
export type Runs = Record<string, Run>

const shown = ['Flask-Migrate', 'alembic', 'SQLAlchemy']

/** One line for each combination. */
export function allRuns(runs: Runs): string {
  const rows = Object.values(runs).map(({ postgres, python, packages, passed, failed }) => [
    postgres,
    python,
    ...shown.map(name => packages[name] ?? ''),
    failed === 0 ? `${passed} passed` : `${failed} of ${passed + failed} failed`,
  ])
  return table(['PostgreSQL', 'Python', 'Flask-Migrate', 'Alembic', 'SQLAlchemy', 'tests'], rows)
}

/** What each thing was tested with: the README's table. Throws where a combination failed. */
export function inShort(runs: Runs): string {
  const failed = Object.keys(runs).filter(name => runs[name]!.failed > 0)
  if (failed.length > 0) throw new Error(`These combinations fail: ${failed.join(', ')}`)
  const each = (pick: (run: Run) => string | undefined) =>
    [...new Set(Object.values(runs).map(pick))].filter(version => version !== undefined).sort(byVersion)
  const drivers: [string, string][] = [
    ['psycopg 3', 'psycopg'],
    ['psycopg2', 'psycopg2-binary'],
    ['pg8000', 'pg8000'],
    ['asyncpg', 'asyncpg'],
  ]
  return table(
    ['', 'tested'],
    [
      ['PostgreSQL', each(run => run.postgres).join(', ')],
      ['Python', each(run => run.python).join(', ')],
      ['Alembic', each(run => run.packages.alembic).join(', ')],
      ['SQLAlchemy', each(run => run.packages.SQLAlchemy).join(', ')],
      ['Flask-Migrate', `${each(run => run.packages['Flask-Migrate']).join(', ')}, or none (plain Alembic)`],
      ...drivers.map(([name, packageName]) => [name, each(run => run.packages[packageName]).join(', ')]),
    ],
  )
}

/** A text with the part between `<!-- name: … -->` and `<!-- /name -->` replaced. */
export function withPart(text: string, name: string, part: string): string {
  const written = new RegExp(`(<!-- ${name}: [^\\n]* -->\\n).*?(<!-- /${name} -->)`, 's')
  if (!written.test(text)) throw new Error(`there is no <!-- ${name}: … --> to fill`)
  return text.replace(written, (_, start: string, end: string) => `${start}${part}\n${end}`)
}

const table = (head: string[], rows: string[][]): string =>
  [head, head.map(() => '---'), ...rows].map(row => `| ${row.join(' | ')} |`).join('\n')

function byVersion(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true })
}
