import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { python, writeProject } from '../support/project.mts'
import { withPath } from '../support/runner.mts'

/** Everything of this file, removed with it. */
const scratch = mkdtempSync(join(tmpdir(), 'atomic-upgrade-trust-'))
let count = 0
const fresh = (name: string) => join(scratch, `${name}-${++count}`)

let url: string
let before: string
beforeAll(async () => {
  url = await createDatabase()
  before = await contents(url)
})
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

function git(folder: string, ...args: string[]): string {
  const settings = ['user.name=A', 'user.email=a@example.com', 'protocol.file.allow=always', 'commit.gpgsign=false']
  return execFileSync('git', [...settings.flatMap(each => ['-c', each]), ...args], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim()
}

/** One checkout that a step before the action left behind. */
class Layout {
  readonly folder = fresh('workspace')
  /** Written by a stranger's code as soon as it runs. */
  readonly canary = fresh('canary')
  base = ''
  environment: Record<string, string> = {}

  constructor(app = '', migrate = '') {
    const project = writeProject({
      scripts: [{ id: 'a1', upgrade: 'op.execute("SELECT 1")' }],
      app,
      migrate,
    })
    cpSync(project, this.folder, { recursive: true })
    rmSync(project, { recursive: true })
    this.write('.gitignore', '__pycache__/\n*.ignored.py\nlocal_*\n.env\n.venv\npr/\n')
  }

  /** Python that would leave the canary. */
  get foreign(): string {
    return `open(${JSON.stringify(this.canary)}, "w").close()\n`
  }

  /** A script that would follow a1. */
  get script(): string {
    return `${this.foreign}revision = "b2"\ndown_revision = "a1"\ndef upgrade(): pass\ndef downgrade(): pass\n`
  }

  write(path: string, text: string): void {
    const file = join(this.folder, path)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, text)
  }

  /** A program that leaves the canary. */
  program(path: string): void {
    this.write(path, `#!/bin/sh\ntouch ${this.canary}\nexec ${python} "$@"\n`)
    chmodSync(join(this.folder, path), 0o755)
  }

  edit(path: string, change: (text: string) => string): void {
    this.write(path, change(readFileSync(join(this.folder, path), 'utf8')))
  }

  /** Makes the commit that the base branch is at. */
  commit(folder = this.folder): string {
    git(folder, 'init', '-q', '-b', 'main')
    git(folder, 'add', '.')
    git(folder, 'commit', '-q', '-m', 'base')
    this.base = git(folder, 'rev-parse', 'HEAD')
    return this.base
  }

  /** A fork's head in a repository of its own, with a script more. */
  fork(path: string): void {
    git(this.folder, 'clone', '-q', this.folder, path)
    this.write(`${path}/migrations/versions/b2.py`, this.script)
    git(join(this.folder, path), 'add', '.')
    git(join(this.folder, path), 'commit', '-q', '-m', 'of the fork')
  }

  /** Another repository with the same project, to be a submodule. */
  library(): string {
    const folder = fresh('library')
    cpSync(join(this.folder, 'migrations'), join(folder, 'migrations'), { recursive: true })
    git(folder, 'init', '-q', '-b', 'main')
    git(folder, 'add', '.')
    git(folder, 'commit', '-q', '-m', 'library')
    return folder
  }

  run(mode: 'rehearse' | 'apply', inputs: Record<string, string> = {}, name = 'issue_comment') {
    return start(
      this.folder,
      url,
      { comment: 'false', mode, ...inputs },
      {
        event: { name, payload: { issue: { number: 7 } } },
        environment: { GITHUB_SHA: this.base, ...this.environment },
      },
    )
  }
}

interface Case {
  app?: string
  migrate?: string
  /** What the base branch has. */
  base?: (layout: Layout) => void
  /** What is there besides, or instead. */
  found?: (layout: Layout) => void
  inputs?: Record<string, string>
  /** What the log says. */
  says?: RegExp
}

function prepare({ app, migrate, base, found }: Case): Layout {
  const layout = new Layout(app, migrate)
  base?.(layout)
  layout.commit()
  found?.(layout)
  return layout
}

/** An env.py of plain Alembic, which asks no app. */
const plainEnv = `from alembic import context
from sqlalchemy import create_engine
with create_engine(context.config.get_main_option("sqlalchemy.url")).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
`
  .replace(
    'with create_engine',
    `if context.is_offline_mode():
    context.configure(url="postgresql://", literal_binds=True)
    context.run_migrations()
else:
  with create_engine`,
  )
  .replaceAll('\n    ', '\n      ')

/** What python-dotenv does, as far as Flask asks it. */
const dotenv = `import os
def find_dotenv(name, usecwd=False): return name if os.path.isfile(name) else ""
def dotenv_values(path, encoding=None):
    with open(path, encoding=encoding) as file: return dict(line.strip().split("=", 1) for line in file)
`

const pyc = (layout: Layout, source: string, target: string, like = '') => {
  const code = `import os, py_compile, shutil, sys
source, target, like = sys.argv[1:]
if like: shutil.copystat(like, source)
py_compile.compile(source, cfile=target, dfile=like or source, doraise=True)`
  mkdirSync(dirname(join(layout.folder, target)), { recursive: true })
  execFileSync(python, ['-c', code, source, join(layout.folder, target), like])
}

function withSubmodule(layout: Layout): void {
  git(layout.folder, 'init', '-q')
  git(layout.folder, 'submodule', 'add', '-q', layout.library(), 'sub')
}

/** What Git LFS commits in a file's place. */
function pointer(payload: string): string {
  const oid = createHash('sha256').update(payload).digest('hex')
  return `version https://git-lfs.github.com/spec/v1\noid sha256:${oid}\nsize ${payload.length}\n`
}

const tag = execFileSync(python, ['-c', 'import sys; print(sys.implementation.cache_tag)'], { encoding: 'utf8' }).trim()

const refused: Record<string, Case> = {
  'the fork in a folder, and a directory in it': {
    found: layout => layout.fork('pr'),
    inputs: { directory: 'pr/migrations' },
    says: /the checked-out commit \w{12} in pr is not known to be on the base branch/,
  },
  'the fork in a folder, as the working directory': {
    found: layout => layout.fork('pr'),
    inputs: { 'working-directory': 'pr' },
    says: /in pr is not known to be on the base branch/,
  },
  'the fork in a folder, and its app': {
    found: layout => {
      layout.fork('pr')
      layout.write('pr/app.py', `${layout.foreign}from flask import Flask\napp = Flask("x")\n`)
    },
    inputs: { 'flask-app': 'pr/app.py' },
    says: /in pr is not known/,
  },
  'the fork at the root, and the base in a folder': {
    found: layout => {
      git(layout.folder, 'clone', '-q', layout.folder, 'pr')
      layout.write('helper.py', layout.foreign)
      git(layout.folder, 'add', '.')
      git(layout.folder, 'commit', '-q', '-m', 'of the fork')
    },
    inputs: { 'working-directory': 'pr' },
    says: /the checked-out commit \w{12} is not known to be on the base branch/,
  },
  'an artifact outside of the checkout': {
    found: layout => {
      layout.fork('pr')
      rmSync(join(layout.folder, 'pr/.git'), { recursive: true })
      renameSync(join(layout.folder, 'pr'), join(scratch, 'artifact'))
    },
    inputs: { directory: join(scratch, 'artifact/migrations') },
    says: /artifact\/migrations lies in no git checkout/,
  },
  'a link in the place of a folder, to one with the same files and more': {
    found: layout => {
      const elsewhere = fresh('migrations')
      cpSync(join(layout.folder, 'migrations'), elsewhere, { recursive: true })
      writeFileSync(join(elsewhere, 'versions/b2.py'), layout.script)
      rmSync(join(layout.folder, 'migrations'), { recursive: true })
      symlinkSync(elsewhere, join(layout.folder, 'migrations'))
    },
    says: /lies in no git checkout/,
  },
  'a link in the place of a package, to one with the same files and more': {
    app: 'import package.more',
    base: layout => layout.write('package/__init__.py', ''),
    found: layout => {
      layout.write('local_package/__init__.py', '')
      layout.write('local_package/more.py', layout.foreign)
      rmSync(join(layout.folder, 'package'), { recursive: true })
      symlinkSync('local_package', join(layout.folder, 'package'))
    },
    says: /not as it was committed \(M package\)/,
  },
  'a tracked file that is gone': {
    app: 'try:\n    import guard\nexcept ImportError: pass',
    base: layout => layout.write('guard.py', ''),
    found: layout => rmSync(join(layout.folder, 'guard.py')),
    says: /not as it was committed \(D guard.py\)/,
  },
  'a file that is added to the index only': {
    app: 'import staged',
    found: layout => {
      layout.write('staged.py', layout.foreign)
      git(layout.folder, 'add', 'staged.py')
    },
    says: /not as it was committed \(A staged.py\)/,
  },
  'a file that the app would have made, and finds': {
    app: 'try:\n    open("local_made.py", "x").close()\nexcept FileExistsError: pass\nimport local_made',
    found: layout => layout.write('local_made.py', layout.foreign),
    says: /local_made.py is not in the trusted commit/,
  },
  'the fork in a folder that the command names': {
    found: layout => layout.fork('pr'),
    inputs: { python: `env --chdir=pr ${python}` },
    says: /in pr is not known/,
  },
  'SQL that a script reads': {
    app: 'open("local_rows.sql").read()',
    found: layout => layout.write('local_rows.sql', 'DROP TABLE t'),
    says: /local_rows.sql is not in the trusted commit/,
  },
  'the fork in a folder that Migrate() names': {
    migrate: 'directory="pr/migrations"',
    found: layout => layout.fork('pr'),
    says: /pr\/migrations.* is not in the trusted commit/,
  },
  'a folder that Migrate() names and git ignores': {
    migrate: 'directory="local_migrations"',
    found: layout => {
      cpSync(join(layout.folder, 'migrations'), join(layout.folder, 'local_migrations'), { recursive: true })
      layout.write('local_migrations/versions/b2.py', layout.script)
    },
    says: /local_migrations\/alembic.ini is not in the trusted commit/,
  },
  'a folder that version_locations names': {
    base: layout =>
      layout.edit('migrations/alembic.ini', ini =>
        ini.replace('[alembic]', '[alembic]\nversion_locations = %(here)s/versions %(here)s/../local_versions'),
      ),
    found: layout => layout.write('local_versions/b2.py', layout.script),
    says: /the checkout is not as it was committed \(\?\? local_versions\/b2\.py\)/,
  },
  'a folder that script_location names': {
    base: layout => layout.write('alembic.ini', '[alembic]\nscript_location = local_scripts\n'),
    found: layout => {
      layout.write('local_scripts/env.py', plainEnv)
      layout.write('local_scripts/versions/a1.py', layout.script.replace('"a1"', 'None'))
    },
    inputs: { 'alembic-config': 'alembic.ini' },
    says: /local_scripts\/\S+ is not in the trusted commit/,
  },
  'an alembic.ini that git does not know': {
    base: layout => {
      layout.write('trusted/env.py', plainEnv)
      layout.write('trusted/versions/a1.py', layout.script.replace('"a1"', 'None').replace(layout.foreign, ''))
    },
    found: layout => {
      layout.write('local.conf.txt', '[alembic]\nscript_location = evil\n')
      layout.write('evil/env.py', layout.foreign + plainEnv)
      layout.write('evil/versions/a1.py', layout.script.replace('"a1"', 'None'))
    },
    inputs: { 'alembic-config': 'local.conf.txt' },
    says: /\?\? local.conf.txt/,
  },
  'a script that git ignores': {
    found: layout => layout.write('migrations/versions/b2.ignored.py', layout.script),
    says: /not as it was committed \(\?\? migrations\/versions\/b2.ignored.py\)/,
  },
  'a script in a folder whose name is a pattern': {
    base: layout => cpSync(join(layout.folder, 'migrations'), join(layout.folder, 'mig[1]'), { recursive: true }),
    found: layout => layout.write('mig[1]/versions/b2.py', layout.script),
    inputs: { directory: 'mig[1]' },
    says: /\?\? mig\[1\]\/versions\/b2.py/,
  },
  'a submodule at another commit': {
    base: withSubmodule,
    found: layout => {
      layout.write('sub/migrations/versions/b2.py', layout.script)
      git(join(layout.folder, 'sub'), 'add', '.')
      git(join(layout.folder, 'sub'), 'commit', '-q', '-m', 'other')
      git(layout.folder, 'update-index', '--assume-unchanged', 'sub')
    },
    inputs: { directory: 'sub/migrations' },
    says: /the submodule sub is at \w{12}, and \w{12} is recorded/,
  },
  'a submodule with a changed script': {
    base: withSubmodule,
    found: layout => {
      layout.write('sub/migrations/versions/a1.py', layout.script.replace('"a1"', 'None'))
      git(layout.folder, 'config', 'submodule.sub.ignore', 'all')
    },
    inputs: { directory: 'sub/migrations' },
    says: /the checkout in sub is not as it was committed \(M migrations\/versions\/a1.py\)/,
  },
  'files in the place of a submodule that was not checked out': {
    base: withSubmodule,
    found: layout => {
      rmSync(join(layout.folder, 'sub/.git'))
      layout.write('sub/migrations/versions/b2.py', layout.script)
    },
    inputs: { directory: 'sub/migrations' },
    says: /\?\? sub\/migrations/,
  },
  'a symbolic link to the fork, in the folder’s place': {
    found: layout => {
      layout.fork('pr')
      symlinkSync('pr/migrations', join(layout.folder, 'local_link'))
    },
    inputs: { directory: 'local_link' },
    says: /in pr is not known/,
  },
  'a script that is a symbolic link out of the checkout': {
    found: layout => {
      const elsewhere = fresh('elsewhere.py')
      writeFileSync(elsewhere, layout.script)
      symlinkSync(elsewhere, join(layout.folder, 'migrations/versions/b2.ignored.py'))
    },
    says: /\?\? migrations\/versions\/b2.ignored.py/,
  },
  'a module that is a symbolic link of nobody’s to one that is trusted': {
    app: 'import local_link',
    base: layout => layout.write('attic/old.py', layout.foreign),
    found: layout => symlinkSync('attic/old.py', join(layout.folder, 'local_link.py')),
    says: /local_link.py is a symbolic link that the trusted commit does not have/,
  },
  'a link of the commit’s that leads out of the checkout': {
    app: 'import outside',
    base: layout => {
      const elsewhere = fresh('elsewhere.py')
      writeFileSync(elsewhere, layout.foreign)
      symlinkSync(elsewhere, join(layout.folder, 'outside.py'))
    },
    says: /outside.py leads out of the checkout/,
  },
  'bytecode without source': {
    app: 'try:\n    import extra\nexcept Exception: pass',
    found: layout => {
      const source = fresh('extra.py')
      writeFileSync(source, layout.foreign)
      pyc(layout, source, 'extra.pyc')
    },
    says: /extra.pyc is not in the trusted commit/,
  },
  'an extension module': {
    app: 'try:\n    import _bisect_of_theirs\nexcept Exception: pass',
    found: layout => {
      const found = execFileSync(python, ['-c', 'import _zoneinfo; print(_zoneinfo.__file__)'], { encoding: 'utf8' })
      cpSync(found.trim(), join(layout.folder, '_bisect_of_theirs.abi3.so'))
    },
    says: /_bisect_of_theirs.abi3.so is not in the trusted commit/,
  },
  'a helper that git does not know, asked for in a try': {
    app: 'try:\n    import helper\nexcept BaseException: pass',
    found: layout => layout.write('helper/__init__.py', layout.foreign),
    says: /helper\/__init__.py is not in the trusted commit/,
  },
  'a helper that a script asks for as it runs': {
    base: layout =>
      layout.write(
        'migrations/versions/a1.py',
        'revision = "a1"\ndown_revision = None\ndef upgrade():\n    try:\n        import local_helper\n    except Exception: pass\ndef downgrade(): pass\n',
      ),
    found: layout => layout.write('local_helper.py', layout.foreign),
    says: /local_helper.py is not in the trusted commit/,
  },
  'a part of a namespace package': {
    app: 'import space.theirs',
    base: layout => layout.write('space/ours.py', ''),
    found: layout => layout.write('space/theirs.py', layout.foreign),
    says: /space\/theirs.py is not in the trusted commit/,
  },
  'a helper in an archive': {
    app: 'import sys\nsys.path.insert(0, "local_archive")\nimport zipped',
    found: layout => {
      const code = `import sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], "w") as z: z.writestr("zipped.py", sys.argv[2])`
      execFileSync(python, ['-c', code, join(layout.folder, 'local_archive'), layout.foreign])
    },
    says: /local_archive is not in the trusted commit/,
  },
  'a file that the app runs itself': {
    app: 'exec(open("local_code.py").read())',
    found: layout => layout.write('local_code.py', layout.foreign),
    says: /local_code.py is not in the trusted commit/,
  },
  'a file of another name that the app loads as a module': {
    app: 'import runpy\nrunpy.run_path("local_code")',
    found: layout => layout.write('local_code', layout.foreign),
    says: /local_code is not in the trusted commit/,
  },
  'settings that the app reads': {
    app: 'app.config.from_pyfile("local_settings.txt", silent=True)',
    found: layout => layout.write('local_settings.txt', layout.foreign),
    says: /local_settings.txt is not in the trusted commit/,
  },
  'what logging is configured by': {
    app: 'import logging.config\nlogging.config.fileConfig("local_log.txt")',
    found: layout =>
      layout.write(
        'local_log.txt',
        `[loggers]\nkeys=root\n[formatters]\nkeys=\n[logger_root]\nhandlers=h\n[handlers]\nkeys=h\n[handler_h]\nclass=NullHandler\nargs=(${layout.foreign.trim()},)[:0]\n`,
      ),
    says: /local_log.txt is not in the trusted commit/,
  },
  'variables for uv to read': {
    found: layout => {
      layout.environment.UV_ENV_FILE = 'local_variables'
      layout.write('local_variables', 'PYTHONPATH=pr\n')
    },
    inputs: { python: 'uv run python' },
    says: /\?\? local_variables/,
  },
  'a helper that is changed behind the index’s back': {
    app: 'import helper',
    base: layout => layout.write('helper.py', 'x = 1\n'),
    found: layout => {
      git(layout.folder, 'update-index', '--assume-unchanged', 'helper.py')
      layout.write('helper.py', layout.foreign)
    },
    says: /not as it was committed \(M helper.py\)/,
  },
  'a helper that the index leaves out': {
    app: 'import helper',
    base: layout => layout.write('helper.py', 'x = 1\n'),
    found: layout => {
      git(layout.folder, 'update-index', '--skip-worktree', 'helper.py')
      layout.write('helper.py', layout.foreign)
    },
    says: /not as it was committed \(M helper.py\)/,
  },
  'a commit that is replaced': {
    app: 'import helper',
    base: layout => layout.write('helper.py', 'x = 1\n'),
    found: layout => {
      layout.write('helper.py', layout.foreign)
      git(layout.folder, 'commit', '-q', '-a', '-m', 'theirs')
      const theirs = git(layout.folder, 'rev-parse', 'HEAD')
      git(layout.folder, 'replace', layout.base, theirs)
      git(layout.folder, 'update-ref', 'HEAD', layout.base)
    },
    says: /not as it was committed \(M helper.py\)/,
  },
  'a commit that is grafted onto the base': {
    app: 'import helper',
    base: layout => layout.write('helper.py', 'x = 1\n'),
    found: layout => {
      layout.write('helper.py', layout.foreign)
      git(layout.folder, 'commit', '-q', '-a', '-m', 'theirs')
      layout.write('.git/info/grafts', `${layout.base} ${git(layout.folder, 'rev-parse', 'HEAD')}\n`)
    },
    says: /is not known to be on the base branch/,
  },
  'a filter that hides the change': {
    app: 'import helper',
    base: layout => layout.write('helper.py', 'x = 1\n'),
    found: layout => {
      layout.write('.git/info/attributes', 'helper.py filter=theirs\n')
      git(layout.folder, 'config', 'filter.theirs.clean', `printf 'x = 1\\n'; touch ${layout.canary}`)
      layout.write('helper.py', layout.foreign)
    },
    says: /helper.py is not as the trusted commit has it/,
  },
  'a .flaskenv that git does not know': {
    found: layout => {
      const packages = fresh('packages')
      mkdirSync(packages)
      writeFileSync(join(packages, 'dotenv.py'), dotenv)
      layout.environment.PYTHONPATH = packages
      layout.write('.flaskenv', 'FLASK_APP=local_app\n')
      layout.write('local_app.py', layout.foreign)
    },
    says: /\.flaskenv is not in the trusted commit/,
  },
  'a folder of Alembic’s name': {
    found: layout => layout.write('alembic/__init__.py', layout.foreign),
    says: /alembic\/__init__.py is not in the trusted commit/,
  },
  'a sitecustomize on PYTHONPATH': {
    // Debian's Python has one of its own.
    app: 'import sys\nsys.modules.pop("sitecustomize", None)\nimport sitecustomize',
    found: layout => {
      const elsewhere = fresh('elsewhere')
      mkdirSync(elsewhere)
      writeFileSync(join(elsewhere, 'sitecustomize.py'), layout.foreign)
      symlinkSync(elsewhere, join(layout.folder, 'local_link'))
      layout.environment.PYTHONPATH = ['local_link', 'local_path'].join(delimiter)
      layout.write('local_path/encodings/__init__.py', layout.foreign)
    },
    says: /local_link is a symbolic link that the trusted commit does not have/,
  },
  'a module in a folder that is installed editable': {
    app: 'import local_package',
    found: layout => {
      virtualEnvironment(layout, join(layout.folder, 'src'))
      layout.write('src/local_package.py', layout.foreign)
    },
    inputs: { python: '.venv/bin/python' },
    says: /src\/local_package.py is not in the trusted commit/,
  },
  'a virtual environment of the fork’s': {
    found: layout => {
      layout.fork('pr')
      virtualEnvironment(layout, '', 'pr/.venv')
    },
    inputs: { python: 'pr/.venv/bin/python' },
    says: /in pr is not known/,
  },
  'what a wrapper reads': {
    found: layout => layout.write('poetry.toml', '[virtualenvs]\npath = "pr"\n'),
    inputs: { python: `env ${python}` },
    says: /\?\? poetry.toml/,
  },
  'what a wrapper reads that is a module': {
    found: layout => layout.write('poetry.toml', '[virtualenvs]\npath = "pr"\n'),
    inputs: { python: `${python} -X utf8 -m poetry run python` },
    says: /\?\? poetry.toml/,
  },
  'what a wrapper reads in the folder that it is told': {
    base: layout => layout.write('sub/pyproject.toml', ''),
    found: layout => layout.write('sub/uv.toml', 'python-preference = "system"\n'),
    inputs: { python: `env -Csub ${python}` },
    says: /\?\? sub\/uv.toml/,
  },
  'a virtual environment of the fork’s, to which a file points': {
    found: layout => {
      layout.fork('pr')
      virtualEnvironment(layout, '', 'pr/.venv')
      layout.write('.pdm-python', join(layout.folder, 'pr/.venv/bin/python'))
    },
    inputs: { python: 'pdm run python' },
    says: /in pr is not known/,
  },
  'a virtual environment of the fork’s, to which a link leads': {
    found: layout => {
      layout.fork('pr')
      virtualEnvironment(layout, '', 'pr/.venv')
      symlinkSync('pr/.venv', join(layout.folder, '.venv'))
    },
    inputs: { python: 'poetry run python' },
    says: /in pr is not known/,
  },
  'a module beside the one that the command names': {
    base: layout => layout.write('wrapper.py', wrapper),
    found: layout => layout.write('subprocess.py', layout.foreign),
    inputs: { python: `${python} -m wrapper` },
    says: /\?\? subprocess.py/,
  },
  'a part of the package that the command names': {
    base: layout => layout.write('tools/wrapper.py', `from tools import part\n${wrapper}`),
    found: layout => layout.write('tools/part/__init__.py', layout.foreign),
    inputs: { python: `env ${python} -Bm tools.wrapper` },
    says: /\?\? tools\/part\/__init__.py/,
  },
  'a module beside the script that the command names': {
    base: layout => layout.write('bin/wrapper.py', wrapper),
    found: layout => layout.write('bin/subprocess.py', layout.foreign),
    inputs: { python: `${python} bin/wrapper.py` },
    says: /\?\? bin\/subprocess.py/,
  },
  'cached bytecode where the command lets nobody turn it off': {
    base: layout => layout.write('tools/wrapper.py', wrapper),
    found: layout => {
      const source = fresh('wrapper.py')
      writeFileSync(source, layout.foreign)
      pyc(layout, source, `tools/__pycache__/wrapper.${tag}.pyc`, join(layout.folder, 'tools/wrapper.py'))
    },
    inputs: { python: `${python} -E -m tools.wrapper` },
    says: /\?\? tools\/__pycache__\/wrapper/,
  },
  'a command that git does not know': {
    base: layout => layout.write('bin/README', ''),
    found: layout => layout.program('bin/python'),
    inputs: { python: './bin/python' },
    says: /\?\? bin\/python/,
  },
  'a command that git does not know, on the PATH': {
    found: layout => {
      layout.program('local_bin/chosen')
      layout.environment.PATH = withPath(join(layout.folder, 'local_bin'))
    },
    inputs: { python: `env chosen` },
    says: /\?\? local_bin\/chosen/,
  },
  'what tells a committed interpreter where its packages are': {
    base: layout => {
      mkdirSync(join(layout.folder, 'tools'))
      symlinkSync(python, join(layout.folder, 'tools/python'))
    },
    found: layout => {
      const lib = execFileSync(python, [
        '-c',
        'import sysconfig; print(sysconfig.get_path("purelib", "venv", {"base": ""}))',
      ])
      layout.write(join('local_env', lib.toString().trim(), 'sitecustomize.py'), layout.foreign)
      layout.write('pyvenv.cfg', `home = ${dirname(python)}\n`)
      cpSync(join(layout.folder, 'local_env/lib'), join(layout.folder, 'lib'), { recursive: true })
    },
    inputs: { python: 'tools/python' },
    says: /\?\? pyvenv.cfg/,
  },
  'a file of another’s that takes the place of one that the app has made': {
    app: `import os
open("local_made.py", "w").close()
os.replace("local_code.txt", "local_made.py")
import local_made`,
    found: layout => layout.write('local_code.txt', layout.foreign),
    says: /local_made.py is not in the trusted commit/,
  },
  'a folder of another’s that takes the place of one that the app has made': {
    app: `import os, pathlib
os.mkdir("local_made")
open("local_made/part.py", "w").close()
pathlib.Path("local_made").rename("local_old")
os.rename("local_theirs", "local_made")
import local_made.part`,
    found: layout => layout.write('local_theirs/part.py', layout.foreign),
    says: /local_made\/part.py is not in the trusted commit/,
  },
  'code that the app opens for more than reading': {
    app: 'with open("local_code.py", "a+") as file: exec((file.seek(0), file.read())[1])',
    found: layout => layout.write('local_code.py', layout.foreign),
    says: /local_code.py is not in the trusted commit/,
  },
  'code that the app opens by a descriptor': {
    app: 'import os\nexec(os.read(os.open("local_code.py", os.O_RDWR | os.O_APPEND), 9999))',
    found: layout => layout.write('local_code.py', layout.foreign),
    says: /local_code.py is not in the trusted commit/,
  },
  'code that the app opens by a descriptor, in a folder that it has opened': {
    app: 'import os\nexec(os.read(os.open("local_code.py", os.O_RDONLY, dir_fd=os.open("folder", os.O_RDONLY)), 9999))',
    base: layout => layout.write('folder/README', ''),
    found: layout => layout.write('folder/local_code.py', layout.foreign),
    says: /folder\/local_code.py is not in the trusted commit/,
  },
}

/** A command that starts Python; a file of the checkout. */
const wrapper = 'import subprocess, sys\nsys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))\n'

/** A virtual environment in the checkout, with the packages of the tests' own and one more. */
function virtualEnvironment(layout: Layout, more = '', path = '.venv'): void {
  const folder = join(layout.folder, path)
  execFileSync(python, ['-m', 'venv', '--without-pip', folder])
  const lib = join(folder, 'lib', readdirSync(join(folder, 'lib'))[0]!, 'site-packages')
  const packages = execFileSync(python, ['-c', 'import flask; print(flask.__file__)'], { encoding: 'utf8' })
  writeFileSync(join(lib, 'more.pth'), [dirname(dirname(packages.trim())), more, ''].join('\n'))
  writeFileSync(join(lib, 'shop_of_ours.py'), 'x = 1\n')
}

const runs: Record<string, Case> = {
  'the base as it is, beside files that Python does not load': {
    app: `import os, helper, linked.helper, of_src
assert os.environ["PYTHONPATH"].startswith("src")
open("local_data.json").close()
open("local.log", "a").close()
with open("local_generated.py", "w") as file: file.write("x = 1")
import local_generated`,
    base: layout => {
      layout.write('helper.py', `x = 1\n${'#'.repeat(layout.foreign.length - 7)}\n`)
      layout.write('real/helper.py', '# $Id$\nx = 1\n')
      symlinkSync('real', join(layout.folder, 'linked'))
      layout.write('src/of_src.py', 'x = 1\n')
      layout.write('docs/large.txt', 'large')
      layout.write('large.bin', pointer('payload'))
      layout.write('secret.json', '{}')
      layout.write('.gitattributes', 'secret.json filter=of-a-program\n')
    },
    found: layout => {
      layout.environment.PYTHONPATH = ['src', '/nowhere'].join(delimiter)
      layout.program('local_bin/git')
      layout.environment.PATH = withPath(join(layout.folder, 'local_bin'))
      layout.fork('pr')
      // Data, and code that nobody asks for; the driver has its own json.
      layout.write('local_data.json', '{}')
      layout.write('node_modules/x/setup.py', layout.foreign)
      layout.write('json.py', layout.foreign)
      git(layout.folder, 'sparse-checkout', 'set', '--no-cone', '/*', '!/docs/')
      expect(existsSync(join(layout.folder, 'docs'))).toBe(false)
      // As git itself would have written them.
      const blob = git(layout.folder, 'rev-parse', 'HEAD:real/helper.py')
      layout.write('real/helper.py', `# $Id: ${blob} $\nx = 1\n`)
      layout.edit('src/of_src.py', text => text.replaceAll('\n', '\r\n'))
      layout.write('large.bin', 'payload')
      layout.write('secret.json', 'decrypted')
      // Python knows stale bytecode by the time and the size of its source.
      const [source, helper] = [fresh('helper.py'), join(layout.folder, 'helper.py')]
      utimesSync(helper, 1_700_000_000, 1_700_000_000)
      writeFileSync(source, layout.foreign)
      pyc(layout, source, `__pycache__/helper.${tag}.pyc`, helper)
    },
  },
  'files whose names are no UTF-8': {
    app: 'import os, sys\nsys.path.insert(0, os.fsdecode(b"caf\\xe9"))\nimport coffee',
    base: layout => {
      const named = (path: string) => Buffer.from(join(layout.folder, path), 'latin1')
      mkdirSync(named('caf\xe9'))
      writeFileSync(named('caf\xe9/coffee.py'), 'x = 1\n')
      writeFileSync(named('caf\xe9/\xff.json'), '{}')
      symlinkSync('a1.py', named('migrations/versions/\xfe'))
      layout.write('.gitattributes', '*.json filter=of-a-program\n')
    },
    found: layout => {
      writeFileSync(Buffer.from(join(layout.folder, 'caf\xe9/\xff.json'), 'latin1'), 'decrypted')
      layout.write('docs/größe.txt', '')
    },
  },
  'what the run itself has put in place': {
    app: `import os, pathlib, shutil, tempfile, threading
def put(name, move):
    with tempfile.NamedTemporaryFile("w", dir=".", delete=False) as file: file.write("x = 1")
    move(file.name, name)
put("local_replaced.py", os.replace)
put("local_moved.py", shutil.move)
put("local_renamed.py", lambda old, new: pathlib.Path(old).rename(new))
put("local_copied.py", shutil.copy)
put("local_linked.py", lambda old, new: os.path.lexists(new) or os.link(old, new) if not os.path.lexists(new) else os.replace(old, new))
for path in ("local_symlink.py", "local_appended.py"):
    if os.path.lexists(path): os.remove(path)
os.symlink("local_moved.py", "local_symlink.py")
with open("local_appended.py", "a") as file: file.write("x = 1")
os.rename("local_renamed.py", "local_renamed_again.py")
shutil.rmtree("local_folder", ignore_errors=True)
os.mkdir("local_folder.new")
with open("local_folder.new/part.py", "w") as file: file.write("x = 1")
os.rename("local_folder.new", "local_folder")
with open("settings.cfg", "a") as file: file.write("y = 2\\n")
import local_replaced, local_moved, local_renamed_again, local_copied, local_linked, local_symlink, local_appended
import local_folder.part
assert "y" in open("settings.cfg").read()`,
    base: layout => layout.write('settings.cfg', 'x = 1\n'),
  },
  'a command that is a module of the checkout': {
    base: layout => layout.write('tools/wrapper.py', wrapper),
    found: layout => {
      const source = fresh('wrapper.py')
      writeFileSync(source, layout.foreign)
      const ours = join(layout.folder, 'tools/wrapper.py')
      utimesSync(ours, 1_700_000_000, 1_700_000_000)
      writeFileSync(source, layout.foreign.padEnd(wrapper.length, '#'))
      pyc(layout, source, `tools/__pycache__/wrapper.${tag}.pyc`, ours)
      layout.write('node_modules/flatted/python/flatted.py', layout.foreign)
      layout.environment.PYTHONPATH = 'local-path'
      layout.write('local-path/sitecustomize.py', layout.foreign)
      virtualEnvironment(layout)
    },
    inputs: { python: '.venv/bin/python -Xutf8 -m tools.wrapper' },
  },
  'a worktree of a repository whose names are SHA-256, whatever it is told to be': {
    base: layout =>
      git(layout.folder, 'init', '-q', '--object-format=sha256', '--separate-git-dir', fresh('repository')),
    found: layout => {
      git(layout.folder, 'worktree', 'add', '-q', '--detach', 'pr')
      git(layout.folder, 'config', 'extensions.worktreeConfig', 'true')
      const repository = git(join(layout.folder, 'pr'), 'rev-parse', '--absolute-git-dir')
      writeFileSync(join(repository, 'config.worktree'), '[core]\n\tworktree = /\n')
    },
    inputs: { directory: 'pr/migrations' },
  },
  'a clone that borrows its objects, and has the folders of a cone': {
    base: layout => {
      layout.write('docs/large.txt', 'large')
      layout.write('README', '')
    },
    found: layout => {
      git(layout.folder, 'clone', '-q', '--shared', '--sparse', layout.folder, 'pr')
      git(join(layout.folder, 'pr'), 'sparse-checkout', 'set', 'migrations')
      expect(existsSync(join(layout.folder, 'pr/docs'))).toBe(false)
    },
    inputs: { directory: 'pr/migrations' },
  },
  'a submodule at the commit that is recorded': {
    base: withSubmodule,
    inputs: { directory: 'sub/migrations' },
  },
  'an older commit of the base, checked out beside it': {
    found: layout => {
      git(layout.folder, 'clone', '-q', layout.folder, 'older')
      layout.write('newer.txt', 'newer')
      git(layout.folder, 'add', 'newer.txt')
      git(layout.folder, 'commit', '-q', '-m', 'newer')
      layout.base = git(layout.folder, 'rev-parse', 'HEAD')
      const older = join(layout.folder, 'older')
      git(older, 'fetch', '-q')
      // Whatever a repository configures, git runs nothing of it.
      git(older, 'config', 'core.fsmonitor', `touch ${layout.canary}`)
      git(older, 'config', 'filter.of-a-program.clean', `touch ${layout.canary}`)
      git(older, 'config', 'core.worktree', '/')
      git(older, 'config', 'remote.origin.promisor', 'true')
      git(older, 'config', 'remote.origin.uploadpack', `touch ${layout.canary}; false`)
      layout.write('older/.git/info/attributes', '* filter=of-a-program\n')
    },
    inputs: { directory: 'older/migrations' },
  },
  'a virtual environment in the checkout': {
    app: 'import shop_of_ours, src_of_ours',
    base: layout => layout.write('src/src_of_ours.py', ''),
    found: layout => virtualEnvironment(layout, join(layout.folder, 'src')),
    inputs: { python: '.venv/bin/python' },
  },
}

const events = [
  ...['pull_request_target', 'issue_comment', 'workflow_run', 'issues', 'discussion', 'discussion_comment'],
  ...['fork', 'watch', 'gollum', 'status', 'check_run', 'check_suite'],
]

/** Each layout in one of the events, which take turns: what is looked at is the same in all of them. */
const inTurns = (layouts: Record<string, Case>) =>
  Object.entries(layouts).map(([name, layout], at) => [name, events[at % events.length]!, layout] as const)

describe('a stranger’s event refuses', () => {
  test.each(inTurns(refused))('%s (%s)', async (_, event, layoutOf) => {
    const layout = prepare(layoutOf)
    const step = await layout.run('apply', layoutOf.inputs, event)
    expect(existsSync(layout.canary), step.log).toBe(false)
    expect(step.outputs, step.log).toMatchObject({ outcome: 'refused', 'failure-reason': 'untrusted' })
    expect(step.exitCode).toBe(1)
    expect(step.log).toMatch(layoutOf.says ?? / /)
  })
})

describe('a stranger’s event runs', () => {
  test.each(inTurns(runs))('%s (%s)', async (_, event, layoutOf) => {
    const layout = prepare(layoutOf)
    const step = await layout.run('rehearse', layoutOf.inputs, event)
    expect(step.outputs.outcome, step.log).toBe('rehearsed')
    expect(existsSync(layout.canary)).toBe(false)
  })
})

test('what a script asks for only as it runs for real ends the batch', async () => {
  const layout = prepare({
    base: layout =>
      layout.edit('migrations/versions/a1.py', text =>
        text.replace(
          'op.execute("SELECT 1")',
          'op.execute("CREATE TABLE t (id int)"); op.get_context().as_sql or __import__("local_helper")',
        ),
      ),
    found: layout => layout.write('local_helper.py', layout.foreign),
  })
  const step = await layout.run('apply')
  expect(existsSync(layout.canary), step.log).toBe(false)
  expect(step.outputs, step.log).toMatchObject({
    outcome: 'rolled-back',
    'failure-reason': 'untrusted',
    'new-head': '',
  })
  expect(step.log).toContain('local_helper.py is not in the trusted commit')
})

test('none of them has left anything in the database', async () => {
  expect(await contents(url)).toBe(before)
})
