import { Python } from './python'
import type { Step } from './surroundings'
import { openTargets, type Target } from './target'
import { checkTrust } from './trust'

/** What the step works with: the user's Python, and its databases. */
export interface Opened extends Step {
  readonly stage: 'opened'
  /** undefined with a plan file, which runs none. */
  readonly python: Python | undefined
  /** In the order of the inputs; none where no database is asked. */
  readonly targets: Target[]
}

/**
 * Decides whether the checkout may be run at all, starts Python and connects to the databases. Throws a Failure:
 * `untrusted`, `connection-failed`, `invalid-input`.
 */
export async function open(step: Step): Promise<Opened> {
  const trusted = await checkTrust(step)
  // Python takes longest to start, so it goes first; everything else is done while the app imports.
  const python = step.inputs.planFile ? undefined : new Python(step, trusted)
  return { ...step, stage: 'opened', python, targets: await openTargets(step) }
}
