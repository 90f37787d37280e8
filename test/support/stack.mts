import { execFileSync } from 'node:child_process'
import { python } from './project.mts'

const names = ['alembic', 'SQLAlchemy'] as const
const versions = execFileSync(
  python,
  ['-c', `from importlib.metadata import version; print(*map(version, "${names.join(' ')}".split()))`],
  { encoding: 'utf8' },
)
  .trim()
  .split(' ')
const [alembic, sqlalchemy] = versions.map(version => version.split('.').map(Number) as [number, number])

/** What not every supported stack has. */
export const has = {
  /** SQLAlchemy knows psycopg 3 from 2.0 on. */
  psycopg3: sqlalchemy![0] >= 2,
  /** Alembic's template `pyproject` came with 1.16. */
  pyproject: alembic![0] > 1 || alembic![1] >= 16,
}

/** SQLAlchemy's name of the driver to use where any will do. */
export const anyDriver = has.psycopg3 ? 'psycopg' : 'psycopg2'
