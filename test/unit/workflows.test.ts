import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import { readInputs } from '../../src/inputs'
import { python } from '../support/project.mts'
import { root } from '../support/runner.mts'
import { actionErrors, workflowErrors } from '../support/workflow-parser.mts'

interface Step {
  id?: string
  uses?: string
  with?: Record<string, string | number | boolean>
}

interface Job {
  permissions?: Record<string, string>
  concurrency?: Concurrency
  environment?: string
  needs?: string
  outputs?: Record<string, string>
  steps: Step[]
}

interface Concurrency {
  group: string
  'cancel-in-progress'?: boolean
}

interface Workflow {
  permissions?: Record<string, string>
  concurrency?: Concurrency
  jobs: Record<string, Job>
}

const read = (path: string) => readFileSync(join(root, path), 'utf8')
const filesOf = (folder: string, ending: string) =>
  readdirSync(join(root, folder))
    .filter(name => name.endsWith(ending))
    .map(name => `${folder}/${name}`)

const action = parse(read('action.yml')) as { inputs: Record<string, object>; outputs: Record<string, object> }
const ours = (step: Step) => step.uses?.startsWith('atomic-upgrade/atomic-upgrade@') || step.uses === './'

/** Whole workflows by where they stand: files, and what README and docs show. */
const workflows = new Map<string, string>()
/** Steps that README and docs show alone. */
const snippets = new Map<string, string>()

for (const path of [...filesOf('.github/workflows', '.yml'), ...filesOf('docs/recipes', '.yml')])
  workflows.set(path, read(path))
for (const path of ['README.md', 'CONTRIBUTING.md', ...filesOf('docs', '.md')]) {
  for (const { index, 1: yaml = '' } of read(path).matchAll(/^```ya?ml\n(.*?)^```$/gms)) {
    const name = `${path}:${read(path).slice(0, index).split('\n').length}`
    const parsed = parse(yaml) as unknown
    if (Array.isArray(parsed)) snippets.set(name, yaml)
    else workflows.set(name, yaml)
  }
}

const inJob = (steps: string) =>
  stringify({ on: 'push', permissions: {}, jobs: { example: { 'runs-on': 'ubuntu-latest', steps: parse(steps) } } })

test('there are workflows, recipes and examples to look at', () => {
  const places = [...workflows.keys(), ...snippets.keys()]
  for (const place of ['.github/workflows/ci.yml', 'docs/recipes/deploy.yml']) expect(places).toContain(place)
  expect(places.filter(place => place.startsWith('README.md')).length).toBeGreaterThan(2)
})

describe('GitHub takes', () => {
  for (const [name, yaml] of workflows) {
    test(name, async () => expect(await workflowErrors(name, yaml)).toEqual([]))
  }
  for (const [name, yaml] of snippets) {
    test(name, async () => expect(await workflowErrors(name, inJob(yaml))).toEqual([]))
  }
  test('action.yml', () => expect(actionErrors('action.yml', read('action.yml'))).toEqual([]))
})

test('GitHub’s parser does find mistakes', async () => {
  const mistaken = (from: string, to: string) =>
    workflowErrors('x.yml', read('docs/recipes/deploy.yml').replace(from, to))
  expect(await mistaken('pull-requests: write', 'pull-request: write')).not.toEqual([])
  expect(await mistaken('branches: [main]', 'branch: main')).not.toEqual([])
  expect(await mistaken('steps.migrate.outputs', 'step.migrate.outputs')).not.toEqual([])
  expect(await mistaken('group: ', 'groups: ')).not.toEqual([])
  expect(actionErrors('action.yml', read('action.yml').replace('using: node24', 'using: node5'))).not.toEqual([])
})

/** What zizmor finds in these workflows and in the files of the repository at `paths`, by our own policy. */
function audit(texts: Map<string, string>, ...paths: string[]): { found: boolean; told: string } {
  const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-workflows-'))
  const written = [...texts].map(([name, yaml]) => {
    const path = join(folder, `${name.replaceAll(/[/:]/g, '_')}.yml`)
    writeFileSync(path, yaml)
    return path
  })
  const options = ['--offline', '--no-progress', '--strict-collection', `--config=${join(root, '.github/zizmor.yml')}`]
  const { status, stdout, stderr } = spawnSync(
    join(dirname(python), 'zizmor'),
    [...options, ...written, ...paths.map(path => join(root, path))],
    { encoding: 'utf8' },
  )
  const told = stdout + stderr
  // Its status is 11 to 14 where it has findings; anything else is a failure of its own.
  if (status !== 0 && !(status && status >= 11 && status <= 14)) throw new Error(`zizmor ended with ${status}: ${told}`)
  return { found: status !== 0, told }
}

describe('zizmor', () => {
  test('finds nothing in workflows, recipes and examples, in action.yml and in what Dependabot is told', () => {
    const all = new Map([...workflows, ...[...snippets].map(([name, steps]) => [name, inJob(steps)] as const)])
    const { found, told } = audit(all, 'action.yml', '.github/dependabot.yml')
    expect(found, told).toBe(false)
    expect(told.match(/completed /g)).toHaveLength(all.size + 2)
  })

  test('does find what could be misused', () => {
    const deploy = read('docs/recipes/deploy.yml')
    for (const [from, to, name] of [
      // biome-ignore lint/suspicious/noTemplateCurlyInString: an expression of GitHub's
      ['$HEAD', '${{ github.event.head_commit.message }}', 'template-injection'],
      ['  push:', '  pull_request_target:', 'dangerous-triggers'],
      ['actions/setup-python@v6', 'somebody/setup-python@v6', 'unpinned-uses'],
    ] as const) {
      expect(deploy).toContain(from)
      expect(audit(new Map([['x', deploy.replace(from, () => to)]])).told).toContain(`[${name}]`)
    }
  })
})

describe('Our own steps have known inputs, with values that the action takes, and known outputs:', () => {
  for (const [name, yaml] of [...workflows, ...[...snippets].map(([place, steps]) => [place, inJob(steps)] as const)]) {
    test(name, () => {
      for (const { steps } of Object.values((parse(yaml) as Workflow).jobs)) {
        for (const step of steps.filter(ours)) {
          for (const input of Object.keys(step.with ?? {})) expect(Object.keys(action.inputs)).toContain(input)
          expect(() => readInputs(asGiven(step))).not.toThrow()
          if (!step.id) continue
          for (const [, output] of yaml.matchAll(new RegExp(`steps\\.${step.id}\\.outputs\\.([\\w-]+)`, 'g')))
            expect(Object.keys(action.outputs)).toContain(output)
        }
        const known = steps.map(step => step.id)
        for (const [, id] of JSON.stringify(steps).matchAll(/steps\.([\w-]+)\.outputs/g)) expect(known).toContain(id)
      }
    })
  }
})

/** The step's inputs as the runner would hand them over, with a URL for a secret and nothing for other expressions. */
function asGiven(step: Step): Record<string, string> {
  const given = Object.entries(step.with ?? {}).map(([name, value]) => {
    const text = String(value).replace(/\$\{\{.*?\}\}/g, name === 'database-url' ? 'postgresql://role:x@db/shop' : '')
    return [`INPUT_${name.toUpperCase()}`, text]
  })
  return Object.fromEntries(given)
}

describe('A whole workflow gives its steps the permissions that they need, and says so:', () => {
  for (const [name, yaml] of workflows) {
    test(name, () => {
      const workflow = parse(yaml) as Workflow
      for (const job of Object.values(workflow.jobs)) {
        const permissions = job.permissions ?? workflow.permissions
        expect(permissions).toBeDefined()
        for (const step of job.steps) {
          if (step.uses?.startsWith('actions/checkout@')) expect(permissions).toHaveProperty('contents')
          if (step.uses?.startsWith('actions/download-artifact@') && step.with?.['run-id'])
            expect(permissions).toMatchObject({ actions: 'read' })
          if (ours(step) && step.with?.comment !== false)
            expect(permissions).toMatchObject({ contents: 'read', 'pull-requests': 'write' })
        }
      }
    })
  }
})

describe('A workflow that a user copies', () => {
  const copied = [...workflows].filter(([name]) => !name.startsWith('.github/'))
  for (const [name, yaml] of copied) {
    test(`${name} leaves no token behind, pins its actions, and never stops a deploy for the next one`, () => {
      const workflow = parse(yaml) as Workflow
      for (const job of Object.values(workflow.jobs)) {
        for (const step of job.steps) {
          if (step.uses) expect(step.uses).toMatch(/@(v\d+|[0-9a-f]{40})$/)
          if (step.uses?.startsWith('actions/checkout@'))
            expect(step.with).toMatchObject({ 'persist-credentials': false })
          if (!ours(step) || !/apply/.test(String(step.with?.mode))) continue
          const concurrency = job.concurrency ?? workflow.concurrency
          expect(concurrency?.group).toBeTruthy()
          expect(concurrency?.['cancel-in-progress']).not.toBe(true)
        }
      }
    })
  }

  for (const [name, yaml] of copied.filter(([name]) => name.endsWith('.yml'))) {
    test(`${name} has the role that migrates, and the key of plans, only where the job is behind an environment`, () => {
      for (const job of Object.values((parse(yaml) as Workflow).jobs)) {
        const text = JSON.stringify(job)
        expect(job.environment !== undefined).toBe(/secrets\.(MIGRATIONS_URL|PLAN_KEY)/.test(text))
        expect(text.includes('"mode":"apply"')).toBe(text.includes('secrets.MIGRATIONS_URL'))
      }
    })
  }
})

describe('A recipe that holds production to what was shown', () => {
  const jobsOf = (name: string) => (parse(read(`docs/recipes/${name}.yml`)) as Workflow).jobs
  const stepOf = ({ steps }: Job) => steps.find(ours)!.with!

  test('hands the digest of its preview on, from job to job', () => {
    const { preview, production } = jobsOf('production-by-digest')
    expect(preview!.outputs!.digest).toBe(`\${{ steps.${preview!.steps.find(ours)!.id}.outputs.digest }}`)
    expect(production!.needs).toBe('preview')
    expect(stepOf(production!)['expected-digest']).toBe(`\${{ needs.preview.outputs.digest }}`)
  })

  test('by plan file runs nothing but the action where the role that migrates is, and only what was signed', () => {
    const { plan, production } = jobsOf('production-by-plan-file')
    const [made, applied] = [stepOf(plan!), stepOf(production!)]
    expect(production!.steps.map(({ uses }) => uses!.split('@')[0])).toEqual([
      'actions/download-artifact',
      'atomic-upgrade/atomic-upgrade',
    ])
    const [upload, download] = [plan!.steps.at(-1)!, production!.steps[0]!]
    expect(download.with!.name).toBe(upload.with!.name)
    expect(upload.with!.path).toBe(`\${{ steps.${plan!.steps.find(ours)!.id}.outputs.plan-file }}`)
    expect(applied.label).toBe(made.label)
    expect(applied['plan-file']).toBe(`${download.with!.path}/atomic-upgrade-${made.label}.plan.json`)
    for (const step of [made, applied]) expect(step['plan-key']).toBe(`\${{ secrets.PLAN_KEY }}`)
  })

  test('with review has the whole history', () => {
    const { migrate } = jobsOf('production-with-review')
    expect(stepOf(migrate!)['require-review']).toBe(true)
    expect(migrate!.steps[0]!.with).toMatchObject({ 'fetch-depth': 0 })
  })
})

test('our own repository runs no recipe', () => {
  for (const path of filesOf('.github/workflows', '.yml'))
    expect(read(path)).not.toContain('atomic-upgrade/atomic-upgrade@')
})
