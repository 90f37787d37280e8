import { readdirSync, readFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join, posix, sep } from 'node:path'
import { preProcessFile } from 'typescript'
import { describe, expect, test } from 'vitest'

const source = join(import.meta.dirname, '..', '..', 'src')

/** Every file of src/ that can be imported by its path there, without `.ts`. */
type House = Map<string, string>

const house: House = new Map(
  readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter(path => /\.(ts|json)$/.test(path))
    .map(path => [path.replace(/\.ts$/, '').split(sep).join('/'), readFileSync(join(source, path), 'utf8')]),
)

/** What a file imports: paths within src/ as in the house, packages and Node's modules by their names. */
function importsOf(file: string, text: string): string[] {
  return preProcessFile(text, true, true).importedFiles.map(({ fileName }) =>
    fileName.startsWith('.') ? posix.join(posix.dirname(file), fileName).replace(/\.[cm]?[jt]s$/, '') : fileName,
  )
}

const folderOf = (path: string): string => (path.includes('/') ? path.split('/')[0]! : '')

const pure = ['plan', 'report']
/** The packages that do no input or output; the parser loads its own WASM. */
const purePackages: Record<string, string[]> = {
  plan: ['libpg-query', 'node:crypto', 'node:v8', '@cfworker/json-schema'],
  report: [],
}

/** The stages in the order of the story: each may know those before it. */
const stages = ['opening', 'planning', 'trying', 'running', 'committing', 'telling']
/** What the stages stand on, which knows nothing of them, nor of each other. */
const grounds = ['alembic', 'postgres', 'github', 'git']

/** The files at the top; what they may use beyond the pure parts. */
const top: Record<string, string[]> = {
  main: ['run', 'inputs', 'log', 'telling/outputs', 'telling/publish', 'telling/result', 'github/event'],
  run: ['inputs', ...stages],
  inputs: ['postgres/url'],
  log: [],
  failure: [],
}

/** Every arrow that the house does not have, as `from → to`. */
function strangers(files: House): string[] {
  return [...files].flatMap(([file, text]) => {
    const folder = folderOf(file)
    return importsOf(file, text)
      .filter(target => !isAllowed(file, folder, target, files))
      .map(target => `${file} → ${target}`)
  })
}

function isAllowed(file: string, folder: string, target: string, files: House): boolean {
  if (!files.has(target)) {
    // A package, or something of Node's.
    if (target.startsWith('.') || target.includes('../')) return false
    return !pure.includes(folder) || purePackages[folder]!.includes(target)
  }
  const to = folderOf(target)
  if (target === 'failure') return true
  if (folder === '') return [target, to].some(each => top[file]?.includes(each)) || pure.includes(to)
  if (folder === 'plan') return to === 'plan'
  if (!stages.includes(folder)) return to === folder || to === 'plan'
  if (stages.includes(to)) return stages.indexOf(to) <= stages.indexOf(folder)
  return [...pure, ...grounds].includes(to) || target === 'inputs' || target === 'log'
}

/** The files that import each other in a circle, and those between two circles. */
function circling(files: House): string[] {
  let left = new Map([...files].map(([file, text]) => [file, importsOf(file, text)]))
  for (let before = Number.POSITIVE_INFINITY; left.size < before; ) {
    before = left.size
    const imported = new Set([...left.values()].flat())
    left = new Map(
      [...left].filter(([file, targets]) => imported.has(file) && targets.some(target => left.has(target))),
    )
  }
  return [...left.keys()]
}

describe('the house', () => {
  test('is there, with all of its rooms', () => {
    const folders = new Set([...house.keys()].map(folderOf))
    expect([...folders].sort()).toEqual(['', ...pure, ...stages, ...grounds].sort())
    expect([...house.keys()].filter(path => folderOf(path) === '').sort()).toEqual(Object.keys(top).sort())
  })

  test('has no arrow that leads the wrong way', () => {
    expect(strangers(house)).toEqual([])
  })

  test('has no circle', () => {
    expect(circling(house)).toEqual([])
    const back = `import type { Opened } from './open'\n${house.get('opening/target')}`
    expect(circling(new Map(house).set('opening/target', back))).toEqual(
      expect.arrayContaining(['opening/open', 'opening/target']),
    )
  })

  test('imports nothing that does not exist', () => {
    const packages = JSON.parse(readFileSync(join(dirname(source), 'package.json'), 'utf8')) as {
      dependencies: Record<string, string>
    }
    const known = new Set([...house.keys(), ...Object.keys(packages.dependencies)])
    const unknown = [...house].flatMap(([file, text]) =>
      importsOf(file, text).filter(target => !known.has(target) && !isBuiltin(target)),
    )
    expect(unknown).toEqual([])
  })

  test('does without globals that reach outside, where it is pure', () => {
    for (const [file, text] of house) {
      if (!pure.includes(folderOf(file))) continue
      const words = text.replaceAll(/\/\*.*?\*\/|\/\/.*$/gms, '')
      expect(words, file).not.toMatch(
        /\b(process|globalThis|fetch|console|setTimeout|performance)\b\s*[.(]|\bnew Date\b|Date\.now|Math\.random/,
      )
    }
  })
})

describe('an arrow that leads the wrong way is seen', () => {
  const wrong: [string, string][] = [
    ['plan/plan', "import { readFileSync } from 'node:fs'"],
    ['plan/plan', "import { readFileSync } from 'fs'"],
    ['plan/plan', "import net from 'node:net'"],
    ['plan/sql', "import { spawn } from 'node:child_process'"],
    ['plan/sql', "import pg from 'pg'"],
    ['plan/sql', "import * as core from '@actions/core'"],
    ['plan/sql', "import { prose } from '../report/markdown'"],
    ['plan/sql', "import type { Database } from '../postgres/url'"],
    ['plan/sql', "import { log } from '../log'"],
    ['report/words', "import { readFile } from 'node:fs/promises'"],
    ['report/words', "import * as core from '@actions/core'"],
    ['report/words', "import { getOctokit } from '@actions/github'"],
    ['report/words', "import type { Client } from 'pg'"],
    ['report/words', "import { readHeads } from '../postgres/heads'"],
    ['report/words', "import { log } from '../log'"],
    ['report/words', "export { splitStatements } from '../github/event'"],
    ['alembic/process', "import { connect } from '../postgres/connection'"],
    ['alembic/process', "import { readEvent } from '../github/event'"],
    ['alembic/process', "import { count } from '../report/words'"],
    ['alembic/process', "import { log } from '../log'"],
    ['alembic/process', "import type { Step } from '../opening/surroundings'"],
    ['postgres/heads', "import { DryRun } from '../alembic/dry-run'"],
    ['postgres/heads', "import type { Target } from '../opening/target'"],
    ['git/history', "import { readEvent } from '../github/event'"],
    ['report/state', "import { resultOf } from '../telling/result'"],
    ['plan/result', "import type { Course } from '../running/course'"],
    ['opening/open', "import { load } from '../planning/load'"],
    ['planning/plan', "import { tryBatch } from '../trying/try'"],
    ['trying/try', "import { Running } from '../running/running'"],
    ['running/segments', "import { commit } from '../committing/commit'"],
    ['committing/transact', "import { resultOf } from '../telling/result'"],
    ['telling/outputs', "import { run } from '../run'"],
    ['opening/open', "import { run } from '../run'"],
    ['postgres/heads', "const { readEvent } = await import('../github/event')"],
    ['postgres/gate/gate', "import { readEvent } from '../../github/event'"],
    ['postgres/gate/gate', "import type { Inputs } from '../../inputs'"],
    ['github/event', "import { DryRun } from '../alembic/dry-run'"],
    ['github/event', "const { connect } = require('../postgres/connection')"],
    ['github/event', "import { renderReport } from '../report/comment'"],
    ['main', "import { connect } from './postgres/connection'"],
    ['main', "import { DryRun } from './alembic/dry-run'"],
    ['run', "import { DryRun } from './alembic/dry-run'"],
    ['inputs', "import { connect } from './postgres/connection'"],
    ['inputs', "import { DryRun } from './alembic/dry-run'"],
    ['log', "import { readEvent } from './github/event'"],
    ['failure', "import { log } from './log'"],
    ['run', "import './main'"],
  ]
  for (const [file, line] of wrong) {
    test(`${file}: ${line}`, () => {
      const text = house.get(file)
      expect(text, `${file} is gone`).toBeDefined()
      const found = strangers(new Map(house).set(file, `${line}\n${text}`))
      expect(found).toHaveLength(1)
      expect(found[0]).toMatch(new RegExp(`^${file} → `))
    })
  }
})
