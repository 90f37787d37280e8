import { execFileSync } from 'node:child_process'
import type { Server } from '../test/support/postgres.mts'
import { python } from '../test/support/project.mts'
import { anyDriver } from '../test/support/stack.mts'

/** What a run of findings or figures was made with. */
export function versionsOf(server: Server): Record<string, string> {
  const packages = ['Flask-Migrate', 'alembic', 'SQLAlchemy', anyDriver === 'psycopg' ? 'psycopg' : 'psycopg2-binary']
  const script = `import platform, sys; from importlib.metadata import version
print(platform.python_version(), *map(version, sys.argv[1:]))`
  const told = execFileSync(python, ['-c', script, ...packages], { encoding: 'utf8' })
    .trim()
    .split(' ')
  return {
    PostgreSQL: server.version,
    Python: told[0]!,
    ...Object.fromEntries(packages.map((name, index) => [name, told[index + 1]!])),
    psql: /[\d.]+/.exec(execFileSync('psql', ['--version'], { encoding: 'utf8' }))![0],
  }
}
