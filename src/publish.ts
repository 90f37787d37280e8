import * as core from '@actions/core'
import { commentProblem, findComment, type StickyComment } from './github/comments'
import { type Event, pullRequestOf } from './github/event'
import type { Inputs } from './inputs'
import type { Log } from './log'
import type { Result } from './plan/result'
import { marker, renderReport } from './report/comment'

/** GitHub's limit of one step's summary, in bytes. */
const summaryLimit = 1024 * 1024

/** Shows the result to people: on the pull request while the step runs, in the job summary at its end. */
export class Publisher {
  #comment: Promise<StickyComment | undefined>
  #warned = false

  /** Starts to look for the comment; nothing here ever fails the step. */
  constructor(
    private readonly event: Event,
    inputs: Pick<Inputs, 'comment' | 'githubToken' | 'label' | 'pullRequest'>,
    private readonly log: Log,
  ) {
    const pullRequest = inputs.pullRequest ?? pullRequestOf(event)
    const wanted = inputs.comment && event.repository && (pullRequest !== undefined || event.name === 'push')
    this.#comment = wanted ? this.#find(inputs, pullRequest) : Promise.resolve(undefined)
    this.#comment.catch(() => {})
  }

  /** Brings the comment up to date; returns its address, empty where there is none. */
  async comment(result: Result): Promise<string> {
    try {
      const comment = await this.#comment
      return (await comment?.write(renderReport(result, { run: this.event.runUrl }))) ?? ''
    } catch (error) {
      if (!this.#warned) this.log.warning(commentProblem(error))
      this.#warned = true
      return ''
    }
  }

  /** Appends to the job summary, where the runner has one. */
  async summarize(result: Result): Promise<void> {
    try {
      // A character may be up to four bytes long.
      const links = { run: '' }
      let text = renderReport(result, links, summaryLimit)
      if (Buffer.byteLength(text) > summaryLimit) text = renderReport(result, links, summaryLimit / 4)
      if (process.env.GITHUB_STEP_SUMMARY) await core.summary.addRaw(text).write()
    } catch (error) {
      this.log.warning(`The job summary could not be written: ${error instanceof Error ? error.message : error}`)
    }
  }

  #find({ githubToken, label }: Pick<Inputs, 'githubToken' | 'label'>, pullRequest?: number) {
    if (!githubToken) return Promise.reject(new Error('there is no github-token'))
    return findComment(this.event, {
      token: githubToken,
      marker: marker(label),
      ...(pullRequest !== undefined && { pullRequest }),
    })
  }
}
