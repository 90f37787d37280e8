import { existsSync, lstatSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { filesOf } from '../../src/git/command'

const workspace = realpathSync(mkdtempSync(join(tmpdir(), 'atomic-upgrade-command-')))
afterAll(() => rmSync(workspace, { recursive: true }))

const committed = ['run', 'manage.py', 'python/a.py', 'sub/x.py', 'pyproject.toml']
const others = [
  ...['local.py', 'build/lib/shop/m.py', '.env', 'uv', 'not-importable/x.py', 'node_modules/x/x.py'],
  ...['.venv/pyvenv.cfg', '.venv/bin/poetry', '.venv/bin/python', 'venv/pyvenv.cfg', 'venv/bin/activate_this.py'],
]
for (const path of [...committed, ...others]) {
  mkdirSync(dirname(join(workspace, path)), { recursive: true })
  writeFileSync(join(workspace, path), '')
}
const files = Object.fromEntries(committed.map(path => [join(workspace, path), 'blob']))
const modules = ['build/lib/shop/m.py', 'local.py']

/** What of the workspace a command would be refused for. */
const refusedFor: Record<string, string[]> = {
  python: [],
  'python3.12 -u': [],
  'python -X utf8 -W error': [],
  '.venv/bin/python': [],
  '/opt/python/bin/python': [],
  'env A=b python': [],
  'poetry run python': [],
  '.venv/bin/poetry run python': [],
  'uv run --no-sync --active python': [],
  'uv run --project sub python': [],
  'hatch -e dev run python': [],
  'pipenv run python': ['.env'],
  'uv run --env-file .env python': ['.env'],
  'python -m poetry run python': modules,
  'python -Bmpoetry run python': modules,
  'env python -m poetry run python': modules,
  'python -m pipenv run python': ['.env', ...modules],
  'python manage.py': modules,
  'python -c pass': modules,
  './run': ['.env', ...modules],
  './uv': [...modules, 'uv'],
}

test.each(Object.entries(refusedFor))('%s', (line, expected) => {
  const command = { words: line.split(' '), workingDirectory: workspace, workspace, environment: { PATH: '/nowhere' } }
  const found = filesOf(command, { roots: [workspace], files, links: {} })
    .filter(path => existsSync(path) && !lstatSync(path).isDirectory() && !files[path])
    .map(path => relative(workspace, path))
  expect([...new Set(found)].sort()).toEqual([...expected].sort())
})
