import { Failure, type FailureReason, type Place } from '../failure'
import { explainHeads } from '../plan/heads'
import type { Answer } from './answer'
import type { Project } from './project'

/** The error of a script while it ran; the gate's tape knows what PostgreSQL said. */
export class ScriptError extends Error {
  constructor(
    message: string,
    /** The database whose migrations ran; null before the first one. */
    readonly bind: string | null,
    readonly revision: string | null,
    readonly place: Place | undefined,
    /** Whether the script failed because the database refused something. */
    readonly fromDatabase: boolean,
  ) {
    super(message)
  }
}

/** A script that is at work; the id of what is not known yet is missing. */
export interface AtWork {
  file: string
  id?: string
}

/** What is known as a failure is told. */
export interface Telling {
  /** Once it is loaded. */
  project: Project | undefined
  at: AtWork | undefined
  /** A path of Python's for people. */
  shown(path: string): string
}

/** What the driver says of a failure, as it is thrown; undefined where it is nothing that the driver says. */
export function failureFrom(failed: NonNullable<Answer['failed']>, telling: Telling): Error | undefined {
  const { project } = telling
  const { kind, message, quoted, bind = null, revision = null, database } = failed
  if (kind === 'multiple-heads' && project) return severalHeads(message, project)
  const place = placeOf(failed, telling)
  if (kind === 'script') return new ScriptError(message, bind, revision, place, database === true)
  if (!kinds.has(kind)) return undefined
  const quotes = quoted ? [{ of: 'python', text: quoted } as const] : []
  const at = kind === 'render-failed' ? telling.at : undefined
  const told = at ? `${nameOf(at)} does not import: ${message}` : message
  const details = { ...(at && detailsOf(at)), ...(place && { place }), quotes, ...adviceFor(kind) }
  return new Failure(kind as FailureReason, told, details)
}

function placeOf(
  { frames = [], revision = null, line = null, path }: NonNullable<Answer['failed']>,
  { project, shown }: Telling,
): Place | undefined {
  const script = revision === null ? undefined : project?.scripts.get(revision)
  if (script && line !== null) return { file: script.path, line }
  const last = frames.at(-1)
  if (last) return { file: shown(last.file), line: last.line }
  if (path) return { file: shown(path), line: null }
  return script && { file: script.path, line: null }
}

/** How the driver itself says that something failed. */
const kinds = new Set([
  'invalid-input',
  'unknown-revision',
  'multiple-heads',
  'render-failed',
  'migration-failed',
  'not-transactional',
  'drift',
  'plan-changed',
  'untrusted',
])

function adviceFor(kind: string): { advice?: string } {
  switch (kind) {
    case 'render-failed':
      return {
        advice:
          'Check that the inputs python, working-directory and flask-app lead to the app, and that its dependencies are installed in this job.',
      }
    case 'unknown-revision':
      return {
        advice:
          'Check the input revision, and that the checkout holds the scripts that the database has already run (a branch behind the deployed one does not).',
      }
    case 'untrusted':
      return {
        advice:
          'Commit what Python needs to the base branch, install it in an earlier step as a package (not editable), or show pull requests in an event without secrets (pull_request). If you trust what lies there with all that this job can reach, set allow-untrusted: true.',
      }
    case 'plan-changed':
      return {
        advice:
          'See to it that nothing writes into the scripts while they run, and that each says the same of itself every time.',
      }
    default:
      return {}
  }
}

function severalHeads(message: string, { scripts, heads }: Project): Failure {
  const { told, advice, newest } = explainHeads(scripts, heads)
  return new Failure('multiple-heads', `${message}. ${told}`, { advice, place: { file: newest.path, line: null } })
}

/** The command in the input python does not start. */
export function cannotStart(python: string[], workingDirectory: string, error: Error): Failure {
  const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
  const what = missing ? 'was not found' : `could not be started (${error.message})`
  return new Failure('render-failed', `The command “${python[0]}” ${what} (input python, in ${workingDirectory}).`, {
    advice: 'Set up Python in an earlier step (actions/setup-python), or name its command in the input python.',
    cause: error,
  })
}

/** A script, as a sentence begins with it. */
const nameOf = ({ file, id }: AtWork): string => (id === undefined ? `The script ${file}` : `Revision ${id} (${file})`)

const detailsOf = ({ file, id }: AtWork) => ({
  place: { file, line: null },
  ...(id !== undefined && { revision: id }),
})

/** Python has ended before it should. */
export function endedEarly(
  python: string[],
  code: number | null,
  signal: string | null,
  at: AtWork | undefined,
): Failure {
  const where = at ? ` ${nameOf(at)} was at work.` : ''
  const how = signal ? `was ended by ${signal}` : `ended with exit code ${code}`
  return new Failure('render-failed', `“${python.join(' ')}” ${how} before it answered.${where}`, {
    ...(at && detailsOf(at)),
    advice: 'What it printed is in the log above.',
  })
}
