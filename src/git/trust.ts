import { Failure } from '../failure'
import { git, succeeds } from './repository'

/**
 * Throws a Failure `untrusted` unless the checkout in `directory` is, as it stands, a commit of the base branch: one of
 * `tips` or an ancestor of one, with no file changed, and no script added under the folder `scripts`.
 */
export async function requireBaseCheckout(directory: string, tips: string[], scripts: string): Promise<void> {
  const head = await git(directory, ['rev-parse', 'HEAD']).then(
    text => text.trim(),
    () => undefined,
  )
  if (head === undefined) throw untrusted('there is no git checkout that would tell where the scripts come from')
  const ancestors = tips.map(tip => tip !== '' && succeeds(directory, ['merge-base', '--is-ancestor', head, tip]))
  if (!tips.includes(head) && !(await Promise.all(ancestors)).includes(true)) {
    throw untrusted(`the checked-out commit ${head.slice(0, 12)} is not known to be on the base branch`)
  }
  const changed = await git(directory, ['status', '--porcelain', '--untracked-files=no'])
  const added = await git(directory, ['status', '--porcelain', '--', `:(glob)${scripts}/**/*.py`])
  const [first] = `${changed}${added}`.split('\n').filter(Boolean)
  if (first) throw untrusted(`the checkout is not as it was committed (${first.trim()})`)
}

/** Throws a Failure `untrusted` where plan files are not signed: an artifact may come from a pull request's own run. */
export function requireSignature(key: string): void {
  if (key) return
  throw new Failure(
    'untrusted',
    'This event has secrets, and the plan file may be a stranger’s: no plan-key is given.',
    {
      advice:
        'Sign plan files with plan-key in the run that makes them. If whoever can make one may run it, set allow-untrusted: true.',
    },
  )
}

function untrusted(why: string): Failure {
  return new Failure('untrusted', `This event has secrets, and the scripts may be a stranger’s: ${why}.`, {
    advice:
      'Check out the base branch (actions/checkout without ref), or show pull requests in an event without secrets (pull_request). If you trust these scripts with what this job can reach, set allow-untrusted: true.',
  })
}
