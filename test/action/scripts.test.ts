import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
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

test('env.py may read what scripts have at their top, before any of them runs', async () => {
  const env = (stock: string) =>
    stock.replace(
      'config = context.config\n',
      `config = context.config
for each in context.script.walk_revisions():
    assert each.module.tags == ("fast", {each.revision: 1}), each.module.tags
    assert [tag for tag in each.module.other] == ["b", "c"]
    assert callable(each.module.checks) and callable(each.module.upgrade)
    assert getattr(each.module, "nothing", 7) == 7
    COMPUTED
`,
    )
  const folder = writeProject({ scripts, env: stock => env(stock).replace('COMPUTED', 'pass') })
  const mark = join(folder, 'ran')
  const more = (id: string) => `import pathlib
pathlib.Path(${JSON.stringify(mark)}).touch()
tags: tuple = ("fast", {"${id}": 1})
other = ["a"]
first, other = "x", ["b", "c"]
computed = pathlib.Path("c")

def checks():
    return pathlib
`
  for (const id of ['a1', 'b2'])
    change(join(folder, `migrations/versions/${id}.py`), text =>
      text.replace('import sqlalchemy', `${more(id)}\nimport sqlalchemy`),
    )
  await expectApplied(folder)
  rmSync(mark)
  change(join(folder, 'migrations/env.py'), text => text.replace('    pass\n', '    each.module.computed\n'))
  const refused = await start(folder, await createDatabase(), { mode: 'apply', comment: 'false' })
  expect(refused.outputs, refused.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'render-failed' })
  expect(refused.log).toContain(
    'migrations/versions/b2.py: this script has not run at this point, and of what it has only that is known which is written out at its top: computed',
  )
  expect(existsSync(mark)).toBe(false)
})
