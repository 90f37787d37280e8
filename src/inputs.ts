import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgsStringToArgv } from 'string-argv'
import { parse } from 'yaml'
import { asFailure, Failure } from './failure'
import type { Direction } from './plan/plan'
import type { Mode } from './plan/result'
import { type Database, readDatabaseUrls, whyEmpty } from './postgres/url'

/** The step's inputs, checked. */
export interface Inputs {
  mode: Mode
  direction: Direction
  revision: string
  /** Heads named by the user; undefined: ask the database. */
  fromRevision?: string[]
  /** By bind, in the order of the lines; empty for none. */
  databases: Map<string, Database>
  /** Several databases: whether they are committed by PREPARE TRANSACTION. */
  twoPhase: TwoPhase
  python: string[]
  flaskApp: string
  directory: string
  alembicConfig: string
  workingDirectory: string
  /** Empty where the project decides. */
  versionTable: string
  versionTableSchema: string
  label: string
  pullRequest?: number
  comment: boolean
  githubToken: string
  lockTimeout: string
  statementTimeout: string
  /** Further tries of the batch when another session was in the way. */
  retries: number
  /** Whether the batch may be several transactions, where PostgreSQL does not run it in one. */
  segments: boolean
  /** The only plan that may run; empty for any. */
  expectedDigest: string
  allowUntrusted: boolean
  /** Whether comment and summary show statements without their constants. */
  hideLiterals: boolean
  /** The plan whose SQL is run instead of the scripts; empty for none. */
  planFile: string
  /** What plan files are signed with; empty for none. */
  planKey: string
  /** Of every script, or of those from a revision on. */
  requireReview: boolean | { since: string }
}

export type TwoPhase = (typeof twoPhases)[number]

const twoPhases = ['auto', 'require', 'never'] as const
const modes = ['preview', 'rehearse', 'apply'] as const
const directions = ['upgrade', 'downgrade'] as const

/**
 * Reads the inputs as the runner hands them over (`INPUT_NAME`); an empty one means its default in action.yml.
 * Throws one Failure `invalid-input` with all mistakes.
 */
export function readInputs(environment: NodeJS.ProcessEnv): Inputs {
  const mistakes: Failure[] = []
  const input = (name: string): string => {
    const given = environment[`INPUT_${name.toUpperCase()}`]?.trim()
    return given || defaultOf(name)
  }
  const mistake = (message: string, advice?: string) =>
    mistakes.push(new Failure('invalid-input', message, advice ? { advice } : {}))
  const oneOf = <T extends string>(name: string, allowed: readonly [T, ...T[]]): T => {
    const found = allowed.find(each => each === input(name))
    if (!found) mistake(`${name} is “${input(name)}”; it can be ${list(allowed)}.`)
    return found ?? allowed[0]
  }

  const mode = oneOf('mode', modes)
  const direction = oneOf('direction', directions)
  const comment = oneOf('comment', ['true', 'false'])
  const revision = direction === 'downgrade' && input('revision') === 'head' ? '-1' : input('revision')
  if (/[:\s]/.test(revision)) mistake(`revision is “${revision}”; name the target alone, without a range.`)

  const from = input('from-revision')
  if (from && mode !== 'preview') mistake(`from-revision is only for mode: preview; mode is ${mode}.`)
  const fromRevision = from === 'base' ? [] : from.split(',').map(id => id.trim())
  if (from && fromRevision.includes('')) mistake(`from-revision is “${from}”; there is an empty id in it.`)

  let databases = new Map<string, Database>()
  const url = input('database-url')
  if (url) {
    try {
      databases = readDatabaseUrls(url)
    } catch (error) {
      mistakes.push(asFailure(error))
    }
  } else if (mode !== 'preview') mistake(`database-url is missing; mode: ${mode} needs it.`, whyEmpty)

  const python = parseArgsStringToArgv(input('python'))
  if (!python[0]) mistake('python names no command.')
  const label = input('label')
  if (label.length > 100) mistake('label is longer than 100 characters.')
  const number = input('pull-request')
  if (number && !/^[1-9]\d*$/.test(number)) mistake(`pull-request is “${number}”; it can be a number.`)
  const expectedDigest = input('expected-digest')
  if (expectedDigest && !/^sha256:[0-9a-f]{64}$/.test(expectedDigest)) {
    mistake(
      `expected-digest is “${expectedDigest}”; it can be sha256: and 64 hexadecimal digits.`,
      'Take it from the output digest of a preview, or leave it empty.',
    )
  }
  const versionTable = input('version-table')
  const retries = input('retries')
  if (!/^\d{1,2}$/.test(retries)) mistake(`retries is “${retries}”; it can be a number from 0 to 99.`)
  const hideLiterals = oneOf('hide-literals', ['true', 'false'])
  const review = input('require-review')
  const since = /^since:(\S+)$/.exec(review)?.[1]
  if (!since && !['true', 'false'].includes(review))
    mistake(`require-review is “${review}”; it can be true, false or since:REVISION.`)
  const planFile = input('plan-file')
  const planKey = input('plan-key')
  if (planFile && from) mistake('from-revision and plan-file exclude each other: the plan file knows its prior heads.')
  if (planFile && review !== 'false') {
    mistake('require-review and plan-file exclude each other: a review is of scripts, and a plan file runs none.')
  }
  if (planKey && !planFile && mode === 'apply') {
    mistake(
      'plan-key is given and plan-file is empty: with a key, only a signed plan is applied.',
      'The log of the preview says why it has made no plan file.',
    )
  }
  const twoPhase = oneOf('two-phase', twoPhases)
  const segments = oneOf('segments', ['true', 'false'])
  if (segments === 'true' && databases.size > 1) mistakes.push(severalInSegments())
  const allowUntrusted = oneOf('allow-untrusted', ['true', 'false'])

  if (mistakes.length === 1) throw mistakes[0]
  if (mistakes.length > 1) {
    throw new Failure('invalid-input', mistakes.map(each => each.message).join(' '), {
      advice: mistakes.flatMap(each => each.details.advice ?? []).join(' '),
    })
  }
  return {
    mode,
    direction,
    revision,
    ...(from && { fromRevision }),
    databases,
    twoPhase,
    python,
    flaskApp: input('flask-app'),
    directory: input('directory'),
    alembicConfig: input('alembic-config'),
    workingDirectory: input('working-directory'),
    versionTable: versionTable === 'alembic_version' ? '' : versionTable,
    versionTableSchema: input('version-table-schema'),
    label,
    ...(number && { pullRequest: Number(number) }),
    comment: comment === 'true',
    githubToken: input('github-token'),
    lockTimeout: input('lock-timeout'),
    statementTimeout: input('statement-timeout'),
    retries: Number(retries),
    segments: segments === 'true',
    expectedDigest,
    allowUntrusted: allowUntrusted === 'true',
    hideLiterals: hideLiterals === 'true',
    planFile,
    planKey,
    requireReview: since ? { since } : review === 'true',
  }
}

/** The refusal of several databases that are to be migrated in segments. */
export const severalInSegments = (): Failure =>
  new Failure('invalid-input', 'segments: true is for one database, and there are several.', {
    advice: 'Several databases are migrated in one transaction each: leave segments out.',
  })

const list = (values: readonly string[]): string => `${values.slice(0, -1).join(', ')} or ${values.at(-1)}`

let action: { inputs: Record<string, { default: string }> } | undefined

/** The default in action.yml, which stands beside dist/. */
function defaultOf(name: string): string {
  // The runner fills in `${{ github.token }}`; here an empty one means that the workflow wants none.
  if (name === 'github-token') return ''
  action ??= parse(readFileSync(join(__dirname, '..', 'action.yml'), 'utf8')) as NonNullable<typeof action>
  const input = action.inputs[name]
  if (!input) throw new Error(`action.yml has no input ${name}`)
  return input.default
}
