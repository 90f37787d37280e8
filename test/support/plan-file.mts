import { createHash, createHmac } from 'node:crypto'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { start } from './action.mts'
import { runStep, type StepOptions } from './runner.mts'

/** Where a later job is: no checkout, no app, and no Python either. */
const elsewhere = mkdtempSync(join(tmpdir(), 'atomic-upgrade-elsewhere-'))

/** Applies a plan file, as a later job does; further inputs go before these. */
export function apply(
  url: string,
  planFile: string,
  inputs: Record<string, string> = {},
  options: Partial<StepOptions> = {},
) {
  const given = {
    mode: 'apply',
    'database-url': url,
    'plan-file': planFile,
    python: 'no-python-here',
    comment: 'false',
  }
  return runStep({ workspace: elsewhere, inputs: { ...given, ...inputs }, ...options })
}

/** The plan file of a preview. */
export async function planOf(folder: string, url: string, inputs: Record<string, string> = {}): Promise<string> {
  const step = await start(folder, url, { comment: 'false', ...inputs })
  expect(step.outputs['plan-file'], step.log).not.toBe('')
  return step.outputs['plan-file']!
}

/** Writes the file anew with something changed, and returns its path. */
export function altered(planFile: string, edit: (text: string) => string): string {
  const before = readFileSync(planFile, 'utf8')
  const after = edit(before)
  expect(after).not.toBe(before)
  const path = join(mkdtempSync(join(tmpdir(), 'atomic-upgrade-altered-')), 'plan.json')
  writeFileSync(path, after)
  return path
}

/** Like `altered`, by somebody who knows how a checksum is made, and with a key also a signature. */
// biome-ignore lint/suspicious/noExplicitAny: a plan file's content, whatever is made of it.
export function forged(planFile: string, edit: (plan: any) => void, key = ''): string {
  return altered(planFile, text => {
    const file = JSON.parse(text)
    edit(file.plan)
    const bytes = JSON.stringify(file.plan)
    file.checksum = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
    if (key) file.signature = `hmac-sha256:${createHmac('sha256', key).update(bytes).digest('hex')}`
    return JSON.stringify(file)
  })
}
