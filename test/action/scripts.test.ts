import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { python, writeProject } from '../support/project.mts'

const scripts = ['a1', 'b2'].map(id => ({ id, upgrade: `op.execute("CREATE TABLE t_${id} (id int)")` }))

const change = (file: string, edit: (text: string) => string): void =>
  writeFileSync(file, edit(readFileSync(file, 'utf8')))

async function expectApplied(folder: string): Promise<void> {
  const url = await createDatabase()
  const step = await start(folder, url, { mode: 'apply', comment: 'false' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'b2' })
  expect(await contents(url)).toContain('t_b2')
}

test('app and env.py may ask for the scripts, and env.py may say where they lie', async () => {
  const asked = `from alembic.config import Config
from alembic.script import ScriptDirectory
config = Config()
config.set_main_option("script_location", "migrations")
config.set_main_option("version_locations", "elsewhere")
assert [each.doc for each in ScriptDirectory.from_config(config).walk_revisions()] == ["b2", "a1"]
`
  const env = (stock: string) =>
    stock.replace(
      'config = context.config\n',
      `config = context.config
import sys
sys.path.insert(0, "lib")
context.script.version_locations = ["elsewhere"]
assert context.script.get_heads() == ["b2"]
`,
    )
  const folder = writeProject({ scripts, app: asked, env })
  renameSync(join(folder, 'migrations/versions'), join(folder, 'elsewhere'))
  mkdirSync(join(folder, 'migrations/versions'))
  mkdirSync(join(folder, 'lib'))
  writeFileSync(join(folder, 'lib/helper.py'), '')
  change(join(folder, 'elsewhere/b2.py'), text => text.replace('import sqlalchemy', 'import helper\nimport sqlalchemy'))
  await expectApplied(folder)
})

test('a script may have its id from its name, read the database, and run another project’s scripts', async () => {
  const folder = writeProject({ scripts })
  for (const id of ['a1', 'b2'])
    change(join(folder, `migrations/versions/${id}.py`), text => text.replace(/^revision.*$/m, ''))
  mkdirSync(join(folder, 'other/versions'), { recursive: true })
  writeFileSync(join(folder, 'other/versions/z1.py'), 'revision = "z1"\ndown_revision = None\nanswer = 42\n')
  change(join(folder, 'migrations/versions/b2.py'), text =>
    text.replace(
      'def upgrade():',
      `def upgrade():
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    config = Config()
    config.set_main_option("script_location", "other")
    assert ScriptDirectory.from_config(config).get_revision("z1").module.answer == 42
    assert op.get_bind().execute(sa.text("SELECT 1")).scalar() == 1`,
    ),
  )
  await expectApplied(folder)
})

test('scripts may have no source', async () => {
  const folder = writeProject({ scripts })
  change(join(folder, 'migrations/alembic.ini'), text => text.replace('[alembic]', '[alembic]\nsourceless = true'))
  for (const id of ['a1', 'b2']) {
    const file = join(folder, `migrations/versions/${id}.py`)
    execFileSync(python, ['-c', `import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[1] + "c")`, file])
    rmSync(file)
  }
  await expectApplied(folder)
})
