import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'

export const root = resolve(import.meta.dirname, '../..')

/** What a step leaves behind. */
export interface Step {
  exitCode: number | null
  outputs: Record<string, string>
  /** Everything on stdout and stderr. */
  log: string
  summary: string
  /** Workflow commands on stdout, by their names. */
  commands: { name: string; properties: Record<string, string>; text: string }[]
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
  /** Gets the child process, to signal it. */
  started?: (pid: number) => void
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
    ACTIONS_RUNTIME_TOKEN: 'runtime-token-standin',
    ...inputs,
    ...options.environment,
  }
  const child = spawn(node24, [join(action, runs.main)], { cwd: options.workspace, env: environment })
  if (child.pid !== undefined) options.started?.(child.pid)
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
    outputs: readOutputs(readFileSync(join(folder, 'output'), 'utf8')),
    log,
    summary: readFileSync(join(folder, 'summary'), 'utf8'),
    commands: readCommands(log),
  }
  const sqlFile = step.outputs['sql-file']
  if (!sqlFile) rmSync(folder, { recursive: true, force: true })
  return step
}

/** `name<<delimiter`, the value's lines, `delimiter`; source: GitHub's documentation of multiline outputs. */
function readOutputs(text: string): Record<string, string> {
  const outputs: Record<string, string> = {}
  const lines = text.split('\n')
  for (let i = 0; i < lines.length; i++) {
    const match = /^([^=<]+)<<(.+)$/.exec(lines[i]!)
    if (!match) continue
    const end = lines.indexOf(match[2]!, i + 1)
    outputs[match[1]!] = lines.slice(i + 1, end).join('\n')
    i = end
  }
  return outputs
}

function readCommands(log: string): Step['commands'] {
  return [...log.matchAll(/^\s*::([\w-]+)(?: ([^:]*))?::(.*)$/gm)].map(([, name = '', properties = '', text = '']) => ({
    name,
    properties: Object.fromEntries(
      properties
        .split(',')
        .filter(Boolean)
        .map(pair => {
          const at = pair.indexOf('=')
          return [pair.slice(0, at), unescape_(pair.slice(at + 1))]
        }),
    ),
    text: unescape_(text),
  }))
}

const unescape_ = (text: string): string =>
  text
    .replaceAll('%3A', ':')
    .replaceAll('%2C', ',')
    .replaceAll('%0A', '\n')
    .replaceAll('%0D', '\r')
    .replaceAll('%25', '%')

/** PATH with a folder in front. */
export const withPath = (folder: string): string => [folder, dirname(node24), process.env.PATH].join(delimiter)
