import { delimiter, resolve } from 'node:path'
import { filesOf, findsBytecode, waysOf } from '../git/command'
import { requireKnown, requireSignature, sourcesBelow, type Trusted, trustedFiles } from '../git/trust'
import type { Step } from './surroundings'

/** What Python may load from the checkout. */
export interface Watched extends Trusted {
  /** Whether Python would find cached bytecode before the driver watches. */
  findsBytecode: boolean
}

/**
 * In an event that has secrets, a pull request's own scripts or SQL are not run. Resolves to what Python may load from
 * the checkout; undefined where that is not asked, or no Python runs. Throws a Failure `untrusted`.
 */
export async function checkTrust({ inputs, surroundings }: Step): Promise<Watched | undefined> {
  const { trustedTips: tips, environment } = surroundings
  if (!tips) return undefined
  const { directory, alembicConfig, planFile, planKey, python, flaskApp } = inputs
  if (planFile) return void requireSignature(planKey)
  const { GITHUB_WORKSPACE: workspace = process.cwd(), PYTHONPATH = '', FLASK_APP = '' } = environment
  const workingDirectory = resolve(inputs.workingDirectory)
  const named = (path: string) => resolve(workingDirectory, path)
  const scripts = named(alembicConfig || directory)
  const command = { words: python, workingDirectory, workspace, environment }
  const [app = ''] = (flaskApp || FLASK_APP).split(':')
  const trusted = await trustedFiles({
    workspace,
    workingDirectory,
    scripts: [scripts],
    named: [...waysOf(command), ...[...PYTHONPATH.split(delimiter), app].map(named)],
    tips,
  })
  requireKnown([...filesOf(command, trusted), ...(alembicConfig ? [scripts] : sourcesBelow(scripts))], trusted)
  return { ...trusted, findsBytecode: findsBytecode(command, trusted) }
}
