import { Failure } from '../failure'
import { allOf, type Step } from '../opening/surroundings'
import type { Target } from '../opening/target'
import type { Batch } from '../planning/plan'
import { preparedSlots } from '../postgres/prepared'

/** Whether several databases can be committed as one. */
export interface TwoPhase {
  isPossible: boolean
  /** What is not covered without it; empty for nothing. */
  uncovered: string
}

/**
 * Whether the batch can be committed in two phases: it moves several databases, and every server has a place for a
 * prepared transaction left. Throws a Failure `not-permitted` where the workflow requires it.
 */
export async function canPrepare(
  { inputs, surroundings }: Step,
  batches: Pick<Batch, 'plan' | 'target'>[],
): Promise<TwoPhase> {
  const moving = batches.filter(({ plan }) => plan.revisions.length > 0)
  const targets = moving.flatMap(({ target }) => target ?? [])
  if (targets.length < 2) return { isPossible: false, uncovered: '' }
  const lacking = inputs.twoPhase === 'never' ? 'two-phase is never' : await lackingSlots(targets)
  if (!lacking) return { isPossible: true, uncovered: '' }
  const refusal = new Failure('not-permitted', `Two-phase commit is required and not possible: ${lacking}.`, {
    advice: 'Set max_prepared_transactions on the server (it needs a restart), or set two-phase: auto.',
  })
  if (inputs.twoPhase === 'require' && inputs.mode !== 'preview') throw refusal
  const uncovered =
    inputs.twoPhase === 'require'
      ? `An apply will be refused. ${refusal.message}`
      : `The databases are committed one after another (${lacking}): a crash between two of these commits is not covered.`
  surroundings.log.info(uncovered)
  return { isPossible: false, uncovered }
}

async function lackingSlots(targets: Target[]): Promise<string> {
  const identified = await allOf(targets.map(async target => ({ target, system: (await target.identify()).system })))
  for (const { target, system } of identified) {
    const { most, taken } = await preparedSlots(target.client)
    const needed = identified.filter(other => other.system === system).length
    if (most === 0) return `max_prepared_transactions is 0 on the server of ${target.bind}`
    if (most - taken < needed) {
      return `of ${most} max_prepared_transactions on the server of ${target.bind}, ${taken} are taken`
    }
  }
  return ''
}
