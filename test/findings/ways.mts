import { spawn } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { bindVariable, python } from '../support/project.mts'
import { runStep } from '../support/runner.mts'
import type { Scenario, WayName } from './scenario.mts'

/** A project and the databases it is run on, by their binds. */
export interface Stage {
  scenario: Scenario
  folder: string
  /** With SQLAlchemy's driver in them. */
  urls: Map<string, string>
}

/** How one run ended, as far as it says itself. */
export interface Run {
  exitCode: number | null
  /** Its error in one line; empty where it names none. */
  error: string
  /** The revisions whose scripts it ran, as it says. */
  ran: string[]
}

/** A run in two parts: what is made before the database is touched, and the rest. */
type Way = (stage: Stage) => Promise<() => Promise<Run>>

const target = ({ scenario }: Stage) => scenario.target ?? 'head'
const direction = ({ scenario }: Stage) => scenario.direction ?? 'upgrade'

const rangeOf = (stage: Stage) => `${stage.scenario.from ? `${stage.scenario.from}:` : ''}${target(stage)}`

export const ways: Record<WayName, Way> = {
  async raw(stage) {
    const words = target(stage) === '-1' ? [] : [target(stage)]
    return () => flask(stage, [direction(stage), ...words])
  },

  /** As a step with `shell: bash` runs the pipeline on GitHub; several databases one after another. */
  async psql(stage) {
    const rendered = ['$PYTHON', '-m', 'flask', 'db', direction(stage), '-d', '$DIRECTORY', rangeOf(stage), '--sql']
    const flaskCommand = rendered.map(word => `"${word}"`).join(' ')
    const environment = {
      ...environmentOf(stage),
      PYTHON: python,
      DIRECTORY: join(stage.folder, 'migrations'),
      FLASK_APP: join(stage.folder, 'app.py'),
    }
    const cwd = mkdtempSync(join(tmpdir(), 'atomic-upgrade-sql-'))
    const bash = async (...commands: string[]) => {
      const ended = await command(['bash', '-eo', 'pipefail', '-c', commands.join('\n')], cwd, environment)
      return { exitCode: ended.exitCode, error: errorIn(ended.output), ran: [] }
    }
    const psql = (url: string, more = '') => `psql -X -q -1 -v ON_ERROR_STOP=1 ${more} '${plain(url)}'`
    const [only, ...more] = stage.urls.values()
    if (more.length > 0) {
      const files = [...stage.urls].map(([bind, url]) => psql(url, `-f ${bind === 'default' ? '' : bind}.sql`))
      return () => bash(flaskCommand, ...files)
    }
    if (stage.scenario.twice !== 'one after another') return () => bash(`${flaskCommand} | ${psql(only!)}`)
    const made = await bash(`${flaskCommand} >batch.sql`)
    if (made.exitCode !== 0) throw new Error(`The batch is not rendered: ${made.error}`)
    return () => bash(psql(only!, '-f batch.sql'))
  },

  async action(stage) {
    return async () => {
      const { exitCode, commands, log } = await step(stage, 'apply')
      const error = commands.find(({ name }) => name === 'error')?.text ?? ''
      return {
        exitCode,
        error: oneLine(error),
        ran: [...log.matchAll(/^.*?[✓✗] (\w+)/gm)].map(([, id]) => id!),
      }
    }
  },
}

/** What a preview shows of the batch. Throws where it fails. */
export async function preview(way: WayName, stage: Stage): Promise<string> {
  if (way === 'action') {
    const { exitCode, log, summary } = await step(stage, 'preview')
    return shownBy(exitCode, log, summary)
  }
  const { exitCode, output } = await flaskDb(stage, [direction(stage), rangeOf(stage), '--sql'])
  return shownBy(exitCode, output, output)
}

function shownBy(exitCode: number | null, log: string, shown: string): string {
  if (exitCode !== 0) throw new Error(`The preview fails: ${log}`)
  return shown
}

function step(stage: Stage, mode: 'preview' | 'apply') {
  const { folder, urls } = stage
  const several = [...urls].map(([bind, url]) => `${bind}=${url}`).join('\n')
  const inputs = {
    mode,
    comment: 'false',
    python,
    direction: direction(stage),
    revision: target(stage),
    'database-url': urls.size === 1 ? [...urls.values()][0]! : several,
  }
  // The app insists on finding something there.
  const nowhere = [...urls].map(([bind, url]) => [variableOf(bind), `${new URL(url).protocol}//nobody@nowhere/${bind}`])
  const environment = urls.size === 1 ? {} : Object.fromEntries(nowhere)
  return runStep({ workspace: folder, inputs, environment })
}

/** Runs `flask db …` in a project. */
export async function flask(stage: Stage, words: string[]): Promise<Run> {
  const { exitCode, output } = await flaskDb(stage, words)
  const ran = [...output.matchAll(/Running (?:upgrade .*?-> (\w+)|downgrade (\w+) ->)/g)]
  return { exitCode, error: errorIn(output), ran: ran.map(([, up, down]) => (up ?? down)!) }
}

const flaskDb = (stage: Stage, words: string[]) =>
  command([python, '-m', 'flask', 'db', ...words], stage.folder, environmentOf(stage))

const variableOf = (bind: string) => (bind === 'default' ? 'DATABASE_URL' : bindVariable(bind))

/** What the app and the shell find in their environment. */
export function environmentOf({ urls }: Stage): Record<string, string> {
  const found = Object.fromEntries([...urls].map(([bind, url]) => [variableOf(bind), url]))
  return { ...(process.env as Record<string, string>), ...found, PYTHONHASHSEED: '0', LC_ALL: 'C.UTF-8' }
}

/** A URL as psql reads it. */
export const plain = (url: string): string => url.replace(/^postgresql\+\w+:/, 'postgresql:')

/** Runs a program to its end, with the Python of the project first on the PATH. */
export function command(words: string[], cwd: string, env: Record<string, string>) {
  const [file, ...args] = words
  const child = spawn(file!, args, { cwd, env: { ...env, PATH: `${dirname(python)}:${env.PATH}` } })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', text => (output += text))
  return new Promise<{ exitCode: number | null; output: string }>((resolve, reject) => {
    child.once('error', reject).once('close', exitCode => resolve({ exitCode, output }))
  })
}

/** The line that says what went wrong: the last exception's, Flask-Migrate's own, or the server's by way of psql. */
function errorIn(output: string): string {
  const lines = output.split('\n')
  const exception = lines.findLast(line => /^((\w+\.)+\w+|\w+(Error|Exception)): /.test(line))
  const told = lines.find(line => /^(ERROR \[flask_migrate\]|(psql:.* )?(ERROR|FATAL): |psql: error:)/.test(line))
  return oneLine(exception ?? told ?? '')
}

/** Without what is different in every run. */
function oneLine(text: string): string {
  return text
    .split('\n')[0]!
    .replace(/^ERROR \[flask_migrate\] Error: /, '')
    .replace(/^psql:[^:]*:(\d+:)? /, '')
    .replaceAll(/0x[0-9a-f]+/g, '0x…')
    .replaceAll(/port "?\d+"?/g, 'port …')
    .replaceAll(/(127\.0\.0\.1):\d+/g, '$1:…')
    .replaceAll(/_sa_[0-9a-f]{32}/g, '_sa_…')
    .replaceAll(/\s+/g, ' ')
    .slice(0, 300)
    .trim()
}
