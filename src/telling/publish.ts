import { messageOf } from '../failure'
import { commentProblem, findComment, type StickyComment } from '../github/comments'
import { type Event, type PullRequest, pullRequestOf } from '../github/event'
import type { Inputs } from '../inputs'
import type { Log } from '../log'
import type { Result } from '../plan/result'
import { commentLimit, marker, renderReport, summaryLimit } from '../report/comment'
import { withoutConstants } from '../report/discretion'
import { wasApplied } from '../report/life'

/** Shows the result to people: on the pull request while the step runs, in the job summary at its end. */
export class Publisher {
  readonly #pullRequest: PullRequest | undefined
  #comment: Promise<StickyComment | undefined>
  /** Why the comment is not what it should be. */
  #problem = ''

  /** Starts to look for the comment; nothing here ever fails the step. */
  constructor(
    private readonly event: Event,
    private readonly inputs: Pick<Inputs, 'comment' | 'githubToken' | 'hideLiterals' | 'label' | 'pullRequest'>,
    private readonly log: Log,
    private readonly cancelled: AbortSignal,
  ) {
    const { comment, pullRequest: number } = inputs
    if (comment && event.repository) this.#pullRequest = number ? { number } : pullRequestOf(event)
    this.#comment = this.#find()
  }

  /** The text of the comment as it stands there; empty where there is none, or it cannot be had. */
  async standing(): Promise<string> {
    try {
      return (await this.#comment)?.body ?? ''
    } catch {
      return ''
    }
  }

  /** Brings the comment up to date; returns its address, empty where there is none. */
  async comment(result: Result): Promise<string> {
    if (this.#problem) this.#comment = this.#find()
    this.#problem = ''
    try {
      const comment = await this.#comment
      if (!comment) {
        if (result.outcome && this.#pullRequest) this.log.info('No pull request was found for this commit.')
        return ''
      }
      // Most pull requests have no migration, and nobody wants to be told so.
      const isNothing = result.outcome === 'up-to-date' && !result.edited.length
      const { body: standing = '' } = comment
      if (isNothing && comment.body === undefined) return ''
      // What was applied stays to be seen.
      if (isNothing && wasApplied(standing)) return await comment.write(standing)
      const surroundings = { run: this.event.runUrl, standing }
      return await comment.write(renderReport(this.#shown(result), surroundings, commentLimit))
    } catch (error) {
      this.#problem = commentProblem(error)
      // While the step is under way there will be another chance.
      if (result.outcome) this.log.warning(this.#problem)
      return ''
    }
  }

  /** Appends to the job summary, where the runner has one. */
  async summarize(result: Result): Promise<void> {
    if (!process.env.GITHUB_STEP_SUMMARY) return
    try {
      const text = renderReport(this.#shown(result), { run: '', problem: this.#problem }, summaryLimit)
      const { summary } = await import('@actions/core')
      await summary.addRaw(text).write()
    } catch (error) {
      this.log.warning(`The job summary could not be written: ${messageOf(error)}`)
    }
  }

  #shown(result: Result): Result {
    return this.inputs.hideLiterals ? withoutConstants(result) : result
  }

  #find(): Promise<StickyComment | undefined> {
    const { event, cancelled, inputs } = this
    const { githubToken: token, label } = inputs
    if (!this.#pullRequest) return Promise.resolve(undefined)
    const found = token
      ? findComment(event, { pullRequest: this.#pullRequest, token, marker: marker(label), cancelled })
      : Promise.reject(new Error('there is no github-token'))
    // It is awaited later, if ever.
    found.catch(() => {})
    return found
  }
}
