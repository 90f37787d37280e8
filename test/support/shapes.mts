import { execFile, execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { python, type Script, writeProject } from './project.mts'
import { anyDriver, has } from './stack.mts'

/** A project of some shape: how the action is told of it, and how a raw upgrade is run in it. */
export interface Shape {
  folder: string
  inputs: Record<string, string>
  /** SQLAlchemy's driver. */
  driver: string
  /** Runs `upgrade TARGET` or `downgrade TARGET` without the action. Throws with its output when that fails. */
  raw: (url: string, direction: string, target: string) => Promise<void>
  /** Further environment of the job. */
  environment?: Record<string, string>
}

/** A history that writes, reads, and writes what it has read. */
const history: Script[] = [
  {
    id: '1a2b3c4d5e6f',
    message: 'create items',
    upgrade: `
op.create_table("items", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text, unique=True))
op.execute("INSERT INTO items (name) VALUES ('50%'), ('a\\\\tb'), ('back\\\\\\\\slash')")`,
    downgrade: 'op.drop_table("items")',
  },
  {
    id: '2b3c4d5e6f7a',
    message: 'copy what is there',
    upgrade: `
bind = op.get_bind()
found = [row[0] for row in bind.execute(sa.text("SELECT name FROM items WHERE name LIKE :like ORDER BY id"), {"like": "%a%"})]
names = sa.table("items", sa.column("name", sa.Text))
op.bulk_insert(names, [{"name": "copy of " + name} for name in found])
op.add_column("items", sa.Column("seen", sa.Boolean, server_default=sa.false(), nullable=False))
assert "seen" in [column["name"] for column in sa.inspect(bind).get_columns("items")]`,
    downgrade: `
op.drop_column("items", "seen")
op.execute("DELETE FROM items WHERE name LIKE 'copy of %'")`,
  },
  {
    id: '3c4d5e6f7a8b',
    message: 'an index and a view',
    upgrade: `
op.create_index("items_seen", "items", ["seen"], postgresql_where=sa.text("seen"))
op.execute("CREATE VIEW unseen AS SELECT id, name FROM items WHERE NOT seen")`,
    downgrade: `
op.execute("DROP VIEW unseen")
op.drop_index("items_seen", table_name="items")`,
  },
]

const execute = promisify(execFile)

async function runRaw(args: string[], folder: string, driver: string, url: string, more: Record<string, string> = {}) {
  const env = { ...process.env, ...more, DATABASE_URL: withDriver(url, driver), PYTHONHASHSEED: '0' }
  await execute(python, args, { cwd: folder, env })
}

export const withDriver = (url: string, driver: string): string => url.replace('postgresql:', `postgresql+${driver}:`)

/** A Flask-Migrate project. */
function flask(driver: string, options: Partial<Parameters<typeof writeProject>[0]> = {}): Shape {
  const folder = writeProject({ scripts: history, ...options })
  return {
    folder,
    inputs: {},
    driver,
    raw: (url, ...words) => runRaw(['-m', 'flask', 'db', ...words], folder, driver, url),
  }
}

/** A Flask app made by a factory, in a package, named as FLASK_APP names it. */
function factory(flaskApp: string, given: 'input' | 'environment' | '.flaskenv'): Shape {
  const shape = flask(anyDriver)
  const app = readFileSync(join(shape.folder, 'app.py'), 'utf8')
  mkdirSync(join(shape.folder, 'shop'))
  writeFileSync(
    join(shape.folder, 'shop', '__init__.py'),
    `import os
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()


def create_app(name="shop"):
    app = Flask(name)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    db.init_app(app)
    Migrate(app, db, directory="migrations")
    return app
`,
  )
  writeFileSync(join(shape.folder, 'app.py'), app.replace(/^app = Flask[\s\S]*$/m, 'from shop import db\n'))
  const environment = { FLASK_APP: flaskApp }
  if (given === '.flaskenv') writeFileSync(join(shape.folder, '.flaskenv'), `FLASK_APP=${flaskApp}\n`)
  return {
    ...shape,
    inputs: given === 'input' ? { 'flask-app': flaskApp } : {},
    ...(given === 'environment' && { environment }),
    raw: (url, ...words) => runRaw(['-m', 'flask', 'db', ...words], shape.folder, anyDriver, url, environment),
  }
}

const freshOnes = new Map<string, string>()

/** The folder of a project as Alembic makes it from one of its templates, which is asked once. */
function fresh(template: string): string {
  const known = freshOnes.get(template)
  if (known) return known
  const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-template-'))
  execFileSync(python, ['-m', 'alembic', 'init', '-t', template, 'migrations'], { cwd: folder, stdio: 'ignore' })
  freshOnes.set(template, folder)
  return folder
}

/** A project without Flask, from one of Alembic's own templates. */
function alembic(
  template: string,
  driver: string,
  {
    config = 'alembic.ini',
    scripts = history,
    env = (stock: string) => stock,
    ini = (stock: string) => stock,
    locations = ['migrations/versions'],
  } = {},
): Shape {
  const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-alembic-'))
  cpSync(fresh(template), folder, { recursive: true })
  const change = (path: string, edit: (text: string) => string) =>
    writeFileSync(join(folder, path), edit(readFileSync(join(folder, path), 'utf8')))
  change('migrations/env.py', stock =>
    env(
      stock.replace(
        'config = context.config\n',
        `config = context.config\nimport os\nconfig.set_main_option("sqlalchemy.url", os.environ["DATABASE_URL"].replace("%", "%%"))\n`,
      ),
    ),
  )
  change('alembic.ini', ini)
  let previous: string | null = null
  for (const [index, script] of scripts.entries()) {
    const path = join(folder, locations[index % locations.length]!, `${script.id}.py`)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, alembicScript(script, previous))
    previous = script.id
  }
  return {
    folder,
    inputs: { 'alembic-config': config },
    driver,
    raw: (url, ...words) => runRaw(['-m', 'alembic', '-c', config, ...words], folder, driver, url),
  }
}

interface Branching extends Script {
  downs?: string[]
  dependsOn?: string
  label?: string
}

function alembicScript(script: Branching, previous: string | null): string {
  const down = script.downs ?? (script.down === undefined ? previous : script.down)
  const indent = (body: string) =>
    body
      .trim()
      .split('\n')
      .map(line => `    ${line}`)
      .join('\n')
  return `"""${script.message ?? script.id}"""
import sqlalchemy as sa
from alembic import op

revision = ${JSON.stringify(script.id)}
down_revision = ${Array.isArray(down) ? `(${down.map(each => JSON.stringify(each)).join(', ')},)` : down === null ? 'None' : JSON.stringify(down)}
branch_labels = ${script.label ? `(${JSON.stringify(script.label)},)` : 'None'}
depends_on = ${script.dependsOn ? JSON.stringify(script.dependsOn) : 'None'}


def upgrade():
${indent(script.upgrade)}


def downgrade():
${indent(script.downgrade ?? 'pass')}
`
}

const table = (id: string, options: Partial<Branching> = {}): Branching => ({
  id,
  upgrade: `op.create_table("t_${id}", sa.Column("id", sa.Integer, primary_key=True))`,
  downgrade: `op.drop_table("t_${id}")`,
  ...options,
})

/** Two branches that stay apart: two heads. */
const forked = [
  table('aa01'),
  table('bb01', { downs: ['aa01'], label: 'left' }),
  table('cc01', { downs: ['aa01'], label: 'right' }),
  table('cc02', { downs: ['cc01'] }),
]

/** Two bases, a dependency across them, and a merge. */
const merged = [
  table('aa01'),
  table('bb01', { downs: ['aa01'] }),
  table('cc01', { downs: ['aa01'] }),
  table('dd01', { downs: ['bb01', 'cc01'] }),
  table('ee01', { down: null, label: 'apart' }),
  table('ee02', { downs: ['ee01'], dependsOn: 'bb01' }),
]

/** Twelve projects and more, of the shapes that are met in the wild, as far as the stack under test can have them. */
export const shapes: Record<string, () => Shape> = {
  ...(has.psycopg3 && {
    'Flask-Migrate with psycopg 3': () => flask('psycopg'),
    'plain Alembic, template generic, psycopg 3': () => alembic('generic', 'psycopg'),
    'plain Alembic, template async, psycopg 3': () => alembic('async', 'psycopg'),
  }),
  'Flask-Migrate with psycopg2': () => flask('psycopg2'),
  'Flask-Migrate with pg8000': () => flask('pg8000'),
  'Flask-Migrate, revisions that commit by themselves': () =>
    flask(anyDriver, { migrate: 'transaction_per_migration=True' }),
  'Flask-Migrate, version table named in Migrate(…)': () =>
    flask(anyDriver, { migrate: 'version_table="schema_version"' }),
  'an app factory, named in the input': () => factory('shop:create_app', 'input'),
  'an app factory with an argument, named in FLASK_APP': () => factory("shop:create_app('mine')", 'environment'),
  'plain Alembic, template generic, psycopg2': () => alembic('generic', 'psycopg2'),
  'plain Alembic, template generic, pg8000': () => alembic('generic', 'pg8000'),
  'plain Alembic, template async, asyncpg': () => alembic('async', 'asyncpg'),
  ...(has.pyproject && {
    'plain Alembic, template pyproject': () => alembic('pyproject', anyDriver, { config: 'pyproject.toml' }),
  }),
  'plain Alembic, version table and schema named in env.py': () =>
    alembic('generic', anyDriver, {
      env: stock =>
        stock
          .replaceAll(
            'target_metadata=target_metadata',
            'target_metadata=target_metadata, version_table="v", version_table_schema="meta"',
          )
          .replace(
            'with connectable.connect() as connection:\n',
            'with connectable.connect() as connection:\n        with connection.begin():\n            connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS meta")\n',
          ),
    }),
  'several version locations': () =>
    alembic('generic', anyDriver, {
      locations: ['one/versions', 'two/versions'],
      ini: stock =>
        stock
          .replace(/^# version_locations.*$/m, 'version_locations = %(here)s/one/versions:%(here)s/two/versions')
          .replace(/^((?:version_)?path_separator).*$/m, '$1 = :'),
    }),
  'two heads': () => alembic('generic', anyDriver, { scripts: forked }),
  'branches, a dependency and a merge': () => alembic('generic', anyDriver, { scripts: merged }),
}

/** A history that PostgreSQL does not run in one transaction, and whose session settings hold from script to script. */
const divided: Script[] = [
  {
    id: 'aa01',
    upgrade: `
op.execute("CREATE SCHEMA shop")
op.execute("SET search_path = shop, public")
op.create_table("items", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
op.execute("CREATE TYPE size AS ENUM ('small')")
op.execute("INSERT INTO items (name) VALUES ('a'), ('b'), ('c')")`,
  },
  {
    id: 'aa02',
    upgrade: `
with op.get_context().autocommit_block():
    op.create_index("items_name", "items", ["name"], postgresql_concurrently=True)
    op.execute("VACUUM items")`,
  },
  {
    id: 'aa03',
    upgrade: `
bind = op.get_bind()
assert bind.execute(sa.text("SHOW search_path")).scalar() == "shop, public"
for n in range(8):
    bind.execute(sa.text("INSERT INTO items (name) VALUES (:name)"), {"name": "n%d" % n})
with op.get_context().autocommit_block():
    op.execute("ALTER TYPE size ADD VALUE 'large'")
    op.execute("ALTER TYPE size ADD VALUE 'huge'")`,
  },
  {
    id: 'aa04',
    upgrade: `
op.execute("ALTER TABLE items ADD COLUMN size size DEFAULT 'large'")
for n in range(8):
    op.get_bind().execute(sa.text("INSERT INTO items (name) VALUES (:name)"), {"name": "m%d" % n})`,
  },
]

/** The ways in which a project may send it. */
export const dividedShapes: Record<string, () => Shape> = {
  ...(has.psycopg3 && { 'psycopg 3': () => flask('psycopg', { scripts: divided }) }),
  psycopg2: () => flask('psycopg2', { scripts: divided }),
  asyncpg: () => alembic('async', 'asyncpg', { scripts: divided }),
  'revisions that commit by themselves': () =>
    flask(anyDriver, { scripts: divided, migrate: 'transaction_per_migration=True' }),
}
