import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { Validator } from '@cfworker/json-schema'
import { Failure } from '../failure'
import type { Direction, RenderedStatement } from './plan'
import schema from './plan-file.schema.json'

/** What a plan file holds, in the names of plan-file.schema.json. */
export interface PlanContent {
  /** `owner/name`; empty outside of GitHub. */
  repository: string
  label: string
  /** As the output `digest`. */
  digest: string
  direction: Direction
  databases: PlannedDatabase[]
}

export interface PlannedDatabase {
  bind: string
  /** The database that was asked; null where none was. */
  database: { name: string; 'system-identifier': string } | null
  'version-table': { name: string; schema: string | null; exists: boolean }
  'prior-heads': string[]
  'new-heads': string[]
  revisions: PlannedRevision[]
}

export interface PlannedRevision {
  id: string
  message: string
  path: string
  digest: string
  statements: RenderedStatement[]
}

/** Where a plan is applied, and with which key; what it was made with has to be equal. */
export interface Circumstances {
  repository: string
  label: string
  /** Empty for none. */
  key: string
}

/** How large a plan file may be, in bytes: it is held in memory several times over. */
export const mostBytes = 256 * 1024 * 1024

const format = 'atomic-upgrade/plan'
const version = 1

/** The text of a plan file; signed where there is a key. */
export function writePlanFile(plan: PlanContent, key: string): string {
  const checksum = checksumOf(plan)
  const file = { format, version, plan, checksum, ...(key && { signature: signatureOf(plan, key) }) }
  return `${JSON.stringify(file, null, 2)}\n`
}

/**
 * Reads a plan file. Throws a Failure `plan-changed` where it is none, is of another version, was altered, is of another
 * repository or label, or is not signed with the key.
 */
export function readPlanFile(text: string, { repository, label, key }: Circumstances): PlanContent {
  const file = parse(text)
  if (file?.format !== format) throw refused('The plan file is not one of Atomic Upgrade, or was cut short.')
  if (file.version !== version) {
    const other = typeof file.version === 'number' ? file.version : 'unknown'
    throw refused(`The plan file is of version ${other}; this release of the action reads ${version}.`)
  }
  const { valid, errors } = new Validator(schema as object, '2020-12').validate(file)
  if (!valid) {
    const where = errors.at(-1)?.instanceLocation.slice(0, 200)
    throw refused(`The plan file was altered: ${where} is not what a plan has there.`)
  }
  const { plan, checksum, signature = '' } = file as { plan: PlanContent; checksum: string; signature?: string }
  if (checksum !== checksumOf(plan))
    throw refused('The plan file was altered: its content is not that of its checksum.')
  if (plan.repository !== repository || plan.label !== label) {
    throw refused(`The plan file is ${whose(plan)}, and this step is ${whose({ repository, label })}.`)
  }
  if (key && !signature) throw refused('The plan file is not signed, and this step has a plan-key.')
  if (key && !sameText(signature, signatureOf(plan, key))) {
    throw refused('The plan file is not signed with the plan-key of this step.')
  }
  return plan
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    const file = JSON.parse(text)
    return typeof file === 'object' && file !== null ? file : undefined
  } catch {
    return undefined
  }
}

const refused = (message: string): Failure =>
  new Failure('plan-changed', message, { advice: 'Make a new plan with mode: preview, and have that reviewed.' })

const whose = ({ repository, label }: { repository: string; label: string }): string =>
  `of ${repository || 'no repository'} with ${label ? `the label ${label}` : 'no label'}`

const bytesOf = (plan: PlanContent): string => JSON.stringify(plan)

const checksumOf = (plan: PlanContent): string => `sha256:${createHash('sha256').update(bytesOf(plan)).digest('hex')}`

const signatureOf = (plan: PlanContent, key: string): string =>
  `hmac-sha256:${createHmac('sha256', key).update(bytesOf(plan)).digest('hex')}`

/** In a time that does not tell how much of it is right. */
function sameText(a: string, b: string): boolean {
  const [one, other] = [Buffer.from(a), Buffer.from(b)]
  return one.length === other.length && timingSafeEqual(one, other)
}
