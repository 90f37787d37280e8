import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { parse } from 'yaml'
import { command, environmentOf, plain, type Stage, ways } from '../findings/ways.mts'
import { python } from '../support/project.mts'
import { root, runStep, type Step } from '../support/runner.mts'
import type { Batch } from './batches.mts'
import type { Link } from './link.mts'

/** What brings a database that stands at the start of a batch to its end. */
export interface Contestant {
  name: string
  /** What is done before the clock runs, such as the preview that makes a plan file. */
  prepare?: (batch: Batch, url: string) => Promise<unknown>
  run: (batch: Batch, url: string, prepared: unknown, environment?: Record<string, string>) => Promise<unknown>
  /** Whether it leaves the database as it was. */
  reads?: boolean
  /** Whether its bytes pass this process. */
  passesHere?: boolean
}

const stageOf = ({ folder, from, to }: Batch, url: string): Stage => ({
  scenario: { name: '', project: folder, from, target: to, expected: 'unchanged' },
  folder,
  urls: new Map([['default', url]]),
})

async function flask(batch: Batch, url: string, ...words: string[]): Promise<void> {
  const { exitCode, output } = await command(
    [python, '-m', 'flask', 'db', ...words],
    batch.folder,
    environmentOf(stageOf(batch, url)),
  )
  if (exitCode !== 0) throw new Error(`flask db ${words.join(' ')} failed:\n${output}`)
}

const range = ({ from, to }: Batch) => (from ? `${from}:${to}` : to)

export const raw: Contestant = {
  name: 'flask db upgrade',
  run: (batch, url) => flask(batch, url, 'upgrade', batch.to),
}

/** Every byte passes a Node process that does nothing else: less than this no gate in Node can add. */
export const throughProxy = (link: Link): Contestant => ({
  name: 'flask db upgrade, through a bare proxy',
  passesHere: true,
  run: (batch, url) => raw.run(batch, link.through(url), undefined),
})

export const fourCalls: Contestant = {
  name: 'current, heads, upgrade --sql, upgrade',
  async run(batch, url) {
    await flask(batch, url, 'current')
    await flask(batch, url, 'heads')
    await flask(batch, url, 'upgrade', range(batch), '--sql')
    await flask(batch, url, 'upgrade', batch.to)
  },
}

export const heads: Contestant = {
  name: 'flask db current',
  reads: true,
  run: (batch, url) => flask(batch, url, 'current'),
}

export const psql: Contestant = {
  name: 'upgrade --sql | psql -1',
  async run(batch, url) {
    const start = await ways.psql(stageOf(batch, url))
    const { exitCode, error } = await start()
    if (exitCode !== 0) throw new Error(`psql failed: ${error}`)
  },
}

/** Starts the built action, and throws when it does not end with this outcome. */
export async function step(
  batch: Batch,
  url: string,
  inputs: Record<string, string>,
  {
    outcome = 'applied',
    github,
    environment = {},
  }: { outcome?: string; github?: string; environment?: Record<string, string> | undefined } = {},
): Promise<Step> {
  const ended = await runStep({
    workspace: batch.folder,
    action: actionFolder,
    inputs: {
      'database-url': url,
      python,
      mode: 'apply',
      comment: String(github !== undefined),
      revision: batch.to,
      ...inputs,
    },
    environment,
    ...(github !== undefined && { github, event: { name: 'pull_request', payload: { pull_request: { number: 42 } } } }),
  })
  if (ended.outputs.outcome !== outcome) throw new Error(`The action did not end as ${outcome}:\n${ended.log}`)
  return ended
}

/** Where the action is that is measured. */
export const actionFolder = process.env.ATOMIC_UPGRADE_ACTION ?? root

/** Dry run, comment, the run through the gate, and the comment brought up to date. */
export const action = (github: string): Contestant => ({
  name: 'the action: apply',
  run: (batch, url) => step(batch, url, {}, { github }),
})

/** The same without a pull request. */
export const actionAlone: Contestant = {
  name: 'the action: apply',
  run: (batch, url, _, environment) => step(batch, url, {}, { environment }),
}

export const preview: Contestant = {
  name: 'the action: preview',
  reads: true,
  run: (batch, url, _, environment) => step(batch, url, { mode: 'preview' }, { outcome: 'previewed', environment }),
}

const declared = parse(readFileSync(join(actionFolder, 'action.yml'), 'utf8')) as { inputs: object }
export const knowsPlanFiles = 'plan-file' in declared.inputs

/** The plan that a preview has written, without Python; nowhere to find the project, either. */
export const planFile: Contestant = {
  name: 'the action: apply of a plan file',
  async prepare(batch, url) {
    const { outputs, log } = await step(batch, url, { mode: 'preview' }, { outcome: 'previewed' })
    if (!outputs['plan-file']) throw new Error(`The preview has no plan file:\n${log}`)
    return outputs['plan-file']
  },
  run(batch, url, path) {
    const elsewhere = { ...batch, folder: mkdtempSync(join(tmpdir(), 'atomic-upgrade-bench-')) }
    return step(elsewhere, url, { 'plan-file': path as string, python: 'no-python', revision: '' })
  },
}

/** The least that can be: one connection that is sent each revision's SQL in one message, and BEGIN and COMMIT. */
export const messages: Contestant = {
  name: 'one message for each revision',
  async prepare(batch, url) {
    const { output } = await command([python, '-m', 'flask', 'db', 'upgrade', range(batch), '--sql'], batch.folder, {
      ...environmentOf(stageOf(batch, url)),
      PYTHONWARNINGS: 'ignore',
    })
    const [, ...parts] = output.replaceAll(/^INFO .*\n/gm, '').split(/^-- Running upgrade .*$/m)
    if (parts.length !== batch.revisions) throw new Error(`${parts.length} revisions in the SQL of ${batch.revisions}`)
    parts.push(parts.pop()!.replace(/^COMMIT;$/m, ''))
    return parts
  },
  async run(_, url, parts) {
    const client = new pg.Client({ connectionString: plain(url) })
    await client.connect()
    try {
      for (const sql of ['BEGIN', ...(parts as string[]), 'COMMIT']) await client.query(sql)
    } finally {
      await client.end()
    }
  },
}
