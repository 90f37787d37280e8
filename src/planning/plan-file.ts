import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { resolve } from 'node:path'
import { Failure, messageOf } from '../failure'
import type { Step } from '../opening/surroundings'
import { mostBytes, type PlanContent, readPlanFile } from '../plan/plan-file'
import { unfitOf } from '../plan/unfit'

/** Reads the plan file of the inputs. Throws a Failure: `plan-changed` where it does not fit, `invalid-input`. */
export function readPlan({ inputs, surroundings }: Step): PlanContent {
  const { label, planKey: key, direction } = inputs
  const content = readPlanFile(textOf(inputs.planFile), { repository: surroundings.repository, label, key })
  const unfit = unfitOf(content)
  if (unfit) throw refused(`The plan file is none that this release would write, because ${unfit}.`)
  if (direction === 'downgrade' && content.direction === 'upgrade') {
    throw refused('The plan file is an upgrade, and this step is to be a downgrade.')
  }
  return content
}

/** Throws a Failure where it is no regular file, or too large: a device or a pipe may have no end. */
function textOf(file: string): string {
  const { O_RDONLY, O_NONBLOCK = 0 } = constants
  let descriptor: number | undefined
  try {
    // A pipe that nobody writes to would be waited for.
    descriptor = openSync(resolve(file), O_RDONLY | O_NONBLOCK)
    if (!fstatSync(descriptor).isFile()) throw new Error('it is not a regular file')
    return decoded(bytesOf(descriptor))
  } catch (error) {
    if (error instanceof Failure) throw error
    throw new Failure('invalid-input', `The plan file ${file} cannot be read: ${messageOf(error)}.`, {
      advice: 'plan-file is the path of the file itself, from the workspace; download the artifact in an earlier step.',
      cause: error,
    })
  } finally {
    if (descriptor !== undefined) closeSync(descriptor)
  }
}

/** What the file says of its size is not asked: it may grow meanwhile. */
function bytesOf(descriptor: number): Buffer {
  const chunks: Buffer[] = []
  for (let size = 0; ; ) {
    const chunk = Buffer.allocUnsafe(1024 * 1024)
    const read = readSync(descriptor, chunk)
    if (read === 0) return Buffer.concat(chunks)
    chunks.push(chunk.subarray(0, read))
    size += read
    if (size > mostBytes) throw new Error('it is over 256 MiB')
  }
}

function decoded(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw refused('The plan file was altered: it is not UTF-8.')
  }
}

/** The plan file is not what this step needs. */
export const refused = (message: string): Failure =>
  new Failure('plan-changed', message, { advice: 'Make a new plan with mode: preview, and have that reviewed.' })
