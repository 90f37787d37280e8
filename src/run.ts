import { afterFailure, faultIn, type Reached, stepOf } from './committing/after-failure'
import type { Ended } from './committing/ended'
import { transact } from './committing/transact'
import type { Inputs } from './inputs'
import { open } from './opening/open'
import type { Surroundings } from './opening/surroundings'
import { type Result, revisionsOf } from './plan/result'
import { loadParser } from './plan/statements'
import { requireDigest } from './planning/expected-digest'
import { load } from './planning/load'
import { nameEditedOlder } from './planning/older'
import { type Planned, planBatch } from './planning/plan'
import { findPriorHeads } from './planning/prior-heads'
import { requireReview } from './planning/review'
import { warningsOf } from './report/blame'
import { withoutConstants } from './report/discretion'
import { halvesOf } from './report/segments'
import { stateOf } from './report/state'
import { Running } from './running/running'
import type { Publisher } from './telling/publish'
import { resultOf } from './telling/result'
import { canPrepare } from './trying/can-prepare'
import { refuseObstacles } from './trying/obstacles'
import { type Tried, tryBatch } from './trying/try'

/**
 * The story: open, plan, decide whether it may run, dry run, publish, run in one transaction, verify, commit, publish.
 * Resolves to what has come of it, a failure too, with the heads as the databases have them then.
 */
export async function run(inputs: Inputs, surroundings: Surroundings, publisher: Publisher): Promise<Result> {
  const { log, signal, stuck, atEnd } = surroundings
  const story = new Story({ stage: 'begun', inputs, surroundings }, publisher)
  let ended: Ended
  try {
    ended = await Promise.race([story.tell(), stuck])
    // What came to its end all the same stays what it is.
    ended = { ...ended, failure: faultIn(signal) ?? ended.failure }
  } catch (error) {
    ended = await afterFailure(story.reached, error)
  }
  await atEnd.disposeAsync()
  const result = story.result(ended)
  const commentUrl = (await publisher.comment(result)) || story.commentUrl
  await publisher.summarize(result)
  if (commentUrl) log.info(`Comment: ${commentUrl}`)
  log.info(`Outcome: ${result.outcome}. ${stateOf(result)}`.trimEnd())
  return { ...result, commentUrl }
}

/** The stages in their order, and how far they have come. */
class Story {
  commentUrl = ''
  #uncovered = ''

  constructor(
    public reached: Reached,
    private readonly publisher: Publisher,
  ) {}

  /** What has come of it, for people. */
  result(ended: Ended | null): Result {
    return resultOf(this.reached, ended, this.#uncovered)
  }

  /** Throws what ends it before. */
  async tell(): Promise<Ended> {
    const opened = this.#reach(await open(stepOf(this.reached)))
    await loadParser()
    const loaded = this.#reach(await load(opened))
    const found = this.#reach(await findPriorHeads(loaded))
    const planned = this.#reach(await planBatch(found))
    const isPending = revisionsOf(planned.databases).length > 0
    if (isPending) await this.#mayRun(planned)
    // Until here no script was imported.
    const tried = this.#reach(await tryBatch(planned))
    if (!isPending) return endedBy('up-to-date')
    return tried.inputs.mode === 'preview' ? await this.#preview(tried) : await this.#run(tried)
  }

  #reach<Stage extends Reached>(stage: Stage): Stage {
    this.reached = stage
    return stage
  }

  async #mayRun(planned: Planned): Promise<void> {
    const { inputs, source } = planned
    if (inputs.expectedDigest) await requireDigest(planned, inputs.expectedDigest, () => this.publisher.standing())
    if (source.is !== 'scripts') return
    if (inputs.mode !== 'preview') await requireReview(planned, source)
    await nameEditedOlder(planned, source)
  }

  async #preview(tried: Tried): Promise<Ended> {
    this.#uncovered = (await canPrepare(tried, tried.databases)).uncovered
    this.#warn(tried, warningsOf)
    return endedBy('previewed')
  }

  async #run(tried: Tried): Promise<Ended> {
    refuseObstacles(tried)
    this.#warn(tried, halvesOf)
    this.commentUrl = await this.publisher.comment(this.result(null))
    return await transact(this.#reach(new Running(tried)))
  }

  /** A warning is an annotation, which the pull request shows. */
  #warn({ inputs, surroundings }: Tried, warnings: (result: Result) => string[]): void {
    const result = this.result(null)
    for (const warning of warnings(inputs.hideLiterals ? withoutConstants(result) : result)) {
      surroundings.log.warning(warning)
    }
  }
}

const endedBy = (outcome: Ended['outcome']): Ended => ({ outcome, failure: null, heads: new Map() })
