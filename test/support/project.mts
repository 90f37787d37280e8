import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { root } from './runner.mts'

/**
 * The Python that script/bootstrap sets up, with the fixture's packages and every driver that is tested; script/matrix
 * names others.
 */
export const python =
  process.env.ATOMIC_UPGRADE_PYTHON ??
  join(root, '.venv', process.platform === 'win32' ? 'Scripts/python.exe' : 'bin/python')

export interface Script {
  id: string
  /** By default the one before it. */
  down?: string | string[] | null
  message?: string
  /** Of its file. */
  name?: string
  /** Python: the body of `upgrade()`, with `op`, `sa` and `db` at hand. */
  upgrade: string
  downgrade?: string
  /** Python at the module's level, before `upgrade()`. */
  module?: string
}

export interface ProjectOptions {
  scripts: Script[]
  /** Further arguments of `Migrate(app, db, …)`. */
  migrate?: string
  /** `SQLALCHEMY_ENGINE_OPTIONS`, as Python. */
  engineOptions?: string
  /** Changes the stock env.py. */
  env?: (stock: string) => string
  /** Python at the end of app.py. */
  app?: string
  /** Databases beside the default one: then the env.py is the stock one for several, and scripts have `engine_name` at hand. */
  binds?: string[]
}

/** Writes a Flask-Migrate project with the stock env.py into a new directory and returns its path. */
export function writeProject(options: ProjectOptions): string {
  const { scripts, migrate = '', engineOptions = '{}', env, app = '', binds = [] } = options
  const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-project-'))
  const fixture = join(root, 'migrations-fixture', binds.length > 0 ? 'several-databases' : '')
  mkdirSync(join(folder, 'migrations', 'versions'), { recursive: true })
  for (const name of ['env.py', 'alembic.ini', 'script.py.mako'])
    cpSync(join(fixture, 'migrations', name), join(folder, 'migrations', name))
  if (env) {
    const path = join(folder, 'migrations', 'env.py')
    writeFileSync(path, env(readText(path)))
  }
  writeFileSync(
    join(folder, 'app.py'),
    `import os
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = ${engineOptions}
app.config["SQLALCHEMY_BINDS"] = {${binds.map(bind => `"${bind}": os.environ.get("${bindVariable(bind)}", "postgresql+psycopg://nobody@nowhere/${bind}")`)}}
db = SQLAlchemy(app)
Migrate(app, db${migrate && `, ${migrate}`})
${app}
`,
  )
  const argument = binds.length > 0 ? 'engine_name' : ''
  let previous: string | null = null
  for (const {
    id,
    down = previous,
    message = id,
    name = `${id}.py`,
    upgrade,
    downgrade = 'pass',
    module = '',
  } of scripts) {
    writeFileSync(
      join(folder, 'migrations', 'versions', name),
      `"""${message}"""

import sqlalchemy as sa
from alembic import op
from app import db

revision = ${JSON.stringify(id)}
down_revision = ${down === null ? 'None' : JSON.stringify(down)}
${module && `${module}\n`}

def upgrade(${argument}):
${indent(upgrade)}


def downgrade(${argument}):
${indent(downgrade)}
`,
    )
    previous = id
  }
  return folder
}

/** Where the app finds the URL of a database beside the default one. */
export const bindVariable = (bind: string): string => `${bind.toUpperCase()}_DATABASE_URL`

const indent = (body: string): string =>
  body
    .trim()
    .split('\n')
    .map(line => `    ${line}`)
    .join('\n')

const readText = (path: string): string => readFileSync(path, 'utf8')

/** Runs the raw `flask` command in a project, as a deploy without the action would. */
export async function flask(
  folder: string,
  url: string,
  ...args: string[]
): Promise<{ failed: boolean; output: string }> {
  const run = promisify(execFile)
  const options = { cwd: folder, env: { ...process.env, DATABASE_URL: url, PYTHONHASHSEED: '0' } }
  try {
    const { stdout, stderr } = await run(python, ['-m', 'flask', ...args], options)
    return { failed: false, output: stdout + stderr }
  } catch (error) {
    return { failed: true, output: String((error as { stderr?: string }).stderr) }
  }
}
