import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { readOutputs } from './output-file.mts'
import { commandsIn, type WorkflowCommand } from './workflow-commands.mts'

export const root = resolve(import.meta.dirname, '../..')

/** What a step leaves behind. */
export interface Step {
  exitCode: number | null
  outputs: Record<string, string>
  /** Everything on stdout and stderr. */
  log: string
  summary: string
  /** The workflow commands that the runner finds in the log, in their order. */
  commands: WorkflowCommand[]
}

export interface StepOptions {
  inputs: Record<string, string>
  /** Further environment variables of the job. */
  environment?: Record<string, string>
  event?: { name: string; payload: object }
  /** Base address of the stand-in for GitHub. */
  github?: string
  /** Where the checkout is. */
  workspace: string
  /** The action's folder, where action.yml and dist/ are. */
  action?: string
  /** Gets the child process, to signal it, or to leave it alone with its output. */
  started?: (pid: number, child: ChildProcess) => void
  /** Gets the log as it comes. */
  output?: (text: string) => void
}

/** Node 24, as action.yml asks for, from the npm package. */
export const node24 = join(root, 'node_modules', 'node', 'bin', process.platform === 'win32' ? 'node.exe' : 'node')

const { parse } = createRequire(import.meta.url)('yaml') as typeof import('yaml')

/** Starts the built action as GitHub's runner does: defaults from action.yml, inputs in the environment, files for outputs. */
export async function runStep(options: StepOptions): Promise<Step> {
  const action = options.action ?? root
  const { inputs: declared, runs } = parse(readFileSync(join(action, 'action.yml'), 'utf8')) as {
    inputs: Record<string, { default?: string }>
    runs: { main: string }
  }
  const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-step-'))
  const file = (name: string, content = '') => {
    writeFileSync(join(folder, name), content)
    return join(folder, name)
  }
  const inputs: Record<string, string> = {}
  for (const [name, { default: value = '' }] of Object.entries(declared)) {
    inputs[`INPUT_${name.toUpperCase()}`] = /github\.token/.test(value) ? 'ghs_standin' : String(value)
  }
  for (const [name, value] of Object.entries(options.inputs)) inputs[`INPUT_${name.toUpperCase()}`] = value
  const github = options.github ?? 'http://127.0.0.1:9'
  const environment: Record<string, string> = {
    PATH: process.env.PATH ?? '',
    HOME: process.env.HOME ?? folder,
    LANG: 'C.UTF-8',
    CI: 'true',
    GITHUB_ACTIONS: 'true',
    GITHUB_REPOSITORY: 'acme/shop',
    GITHUB_RUN_ID: '4711',
    GITHUB_SERVER_URL: 'https://github.com',
    GITHUB_API_URL: github,
    GITHUB_GRAPHQL_URL: `${github}/graphql`,
    GITHUB_WORKSPACE: options.workspace,
    GITHUB_EVENT_NAME: options.event?.name ?? 'workflow_dispatch',
    GITHUB_EVENT_PATH: file('event.json', JSON.stringify(options.event?.payload ?? {})),
    GITHUB_SHA: '0123456789abcdef0123456789abcdef01234567',
    GITHUB_OUTPUT: file('output'),
    GITHUB_STEP_SUMMARY: file('summary'),
    GITHUB_ENV: file('env'),
    GITHUB_PATH: file('path'),
    GITHUB_STATE: file('state'),
    RUNNER_TEMP: folder,
    TMPDIR: tmpdir(),
    ...(process.env.NODE_COMPILE_CACHE && { NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE }),
    ACTIONS_RUNTIME_TOKEN: 'runtime-token-standin',
    ...inputs,
    ...options.environment,
  }
  const child = spawn(node24, [join(action, runs.main)], { cwd: options.workspace, env: environment })
  if (child.pid !== undefined) options.started?.(child.pid, child)
  let log = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', text => {
      log += text
      options.output?.(text)
    })
  }
  const exitCode = await new Promise<number | null>(done => child.once('close', done))
  const step: Step = {
    exitCode,
    outputs: Object.fromEntries(readOutputs(readFileSync(join(folder, 'output'), 'utf8'))),
    log,
    summary: readFileSync(join(folder, 'summary'), 'utf8'),
    commands: commandsIn(log),
  }
  if (!step.outputs['sql-file'] && !step.outputs['plan-file']) rmSync(folder, { recursive: true, force: true })
  return step
}

/** PATH with a folder in front. */
export const withPath = (folder: string): string => [folder, dirname(node24), process.env.PATH].join(delimiter)
