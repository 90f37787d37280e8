import { basename, delimiter, dirname, join, resolve, sep } from 'node:path'
import { requireKnown, requireSignature, sourcesBelow, type Trusted, trustedFiles } from '../git/trust'
import type { Step } from './surroundings'

/**
 * In an event that has secrets, a pull request's own scripts or SQL are not run. Resolves to what Python may load from
 * the checkout; undefined where that is not asked, or no Python runs. Throws a Failure `untrusted`.
 */
export async function checkTrust({ inputs, surroundings }: Step): Promise<Trusted | undefined> {
  const { trustedTips: tips, environment } = surroundings
  if (!tips) return undefined
  const { directory, alembicConfig, planFile, planKey, python, flaskApp } = inputs
  if (planFile) return void requireSignature(planKey)
  const { GITHUB_WORKSPACE = process.cwd(), PYTHONPATH = '', FLASK_APP = '' } = environment
  const workingDirectory = resolve(inputs.workingDirectory)
  const named = (path: string) => resolve(workingDirectory, path)
  const scripts = named(alembicConfig || directory)
  const [module = ''] = (flaskApp || FLASK_APP).split(':')
  const trusted = await trustedFiles({
    workspace: GITHUB_WORKSPACE,
    workingDirectory,
    scripts: [scripts],
    named: [
      ...python.flatMap(word => word.split('=')).flatMap(path => [path, dirname(path)]),
      ...PYTHONPATH.split(delimiter),
      module,
    ].map(named),
    tips,
  })
  const read = foldersBetween(workingDirectory, resolve(GITHUB_WORKSPACE)).flatMap(folder =>
    configurationOf(python).map(name => join(folder, name)),
  )
  requireKnown([...read, ...(alembicConfig ? [scripts] : sourcesBelow(scripts))], trusted)
  return trusted
}

/** What `poetry run`, `uv run`, `pipenv run` and the like read before they start a Python, which they choose by it. */
const configurationOfWrappers = [
  ...['pyproject.toml', 'poetry.toml', 'uv.toml', 'pdm.toml', 'hatch.toml', 'pixi.toml', 'Pipfile'],
  ...['.python-version', 'setup.py', 'setup.cfg'],
]

/** The files that a command reads before it starts Python; none for Python itself. */
function configurationOf([command = '']: string[]): string[] {
  const name = basename(command)
  if (name.startsWith('python')) return []
  const takesVariables = !['poetry', 'uv', 'pdm', 'hatch', 'env'].includes(name)
  return takesVariables ? [...configurationOfWrappers, '.env'] : configurationOfWrappers
}

/** A folder and those above it, up to `top`; the folder alone where it lies elsewhere. */
function foldersBetween(folder: string, top: string): string[] {
  if (!`${folder}${sep}`.startsWith(`${top}${sep}`)) return [folder]
  return folder === top ? [folder] : [folder, ...foldersBetween(dirname(folder), top)]
}
