import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { contents } from '../support/database.mts'
import { type GitHub, pullRequest, startGitHub } from '../support/github.mts'
import { writeProject } from '../support/project.mts'
import type { Step } from '../support/runner.mts'

/** The database is at b2; c3 and d4 came by a pull request that somebody has approved, and are the batch. */
const scripts = ['a1', 'b2', 'c3', 'd4'].map(id => ({ id, upgrade: `op.execute("CREATE TABLE t_${id} (id int)")` }))
const path = (id: string): string => `migrations/versions/${id}.py`
let github: GitHub
let known: Pick<GitHub, 'pulls' | 'files' | 'reviews'>
let origin: string
let atB2: string
let digest: string
let folder: string
let url: string
let untouched: string

const git = (...args: string[]): string => {
  const who = ['-c', 'user.name=A', '-c', 'user.email=a@example.com', '-c', 'commit.gpgsign=false']
  return execFileSync('git', [...who, ...args], { cwd: folder, encoding: 'utf8', stdio: 'pipe' }).trim()
}
const push = (): void => {
  git('add', '-A')
  git('commit', '-q', '-m', 'straight to main')
}
const fileOf = (id: string): string => join(folder, path(id))
const change = (file: string, edit: (text: string) => string): void =>
  writeFileSync(file, edit(readFileSync(file, 'utf8')))
const sha256 = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex')

/** Leaves a word of having run. */
const mark = `import pathlib
(pathlib.Path(__file__).parents[2] / "ran").write_text("x")
`
const ran = (): boolean => existsSync(join(folder, 'ran'))

beforeAll(async () => {
  github = await startGitHub()
  origin = folder = writeProject({ scripts: scripts.slice(0, 1) })
  writeFileSync(join(folder, '.gitignore'), '__pycache__/\nran\n')
  git('init', '-q', '-b', 'main')
  push()
  const all = writeProject({ scripts })
  cpSync(join(all, path('b2')), fileOf('b2'))
  push()
  atB2 = await createDatabase()
  const applied = await start(folder, atB2, { mode: 'apply', comment: 'false' })
  expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'b2' })
  for (const id of ['c3', 'd4']) cpSync(join(all, path(id)), fileOf(id))
  mkdirSync(join(folder, 'elsewhere'))
  cpSync(join(all, path('d4')), join(folder, 'elsewhere/d4.py'))
  push()
  review(7, [path('c3'), path('d4'), 'elsewhere/d4.py'])
  known = { pulls: new Map(github.pulls), files: new Map(github.files), reviews: new Map(github.reviews) }
  digest = (await step({ mode: 'preview' })).outputs.digest!
  expect(digest).toMatch(/^sha256:/)
})
afterAll(() => github.stop())

beforeEach(async () => {
  Object.assign(github, {
    pulls: new Map(known.pulls),
    files: new Map(known.files),
    reviews: new Map(known.reviews),
  })
  folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-tampering-'))
  cpSync(origin, folder, { recursive: true })
  url = await createDatabase(atB2)
  untouched = await contents(url)
})

/** GitHub knows the tip of main as brought by a pull request, approved with these scripts as they are there. */
function review(number: number, files: string[]): void {
  const head = git('rev-parse', 'HEAD')
  const merged = { state: 'closed', merged_at: '2026-01-01T00:00:00Z' } as const
  github.pulls.set(head, [pullRequest(number, { ...merged, head: { label: 'acme:change', ref: 'change', sha: head } })])
  github.files.set(
    number,
    files.map(filename => ({ filename, sha: git('rev-parse', `HEAD:${filename}`), status: 'added' })),
  )
  const user = { login: 'colleague', id: 2, type: 'User' }
  github.reviews.set(number, [{ id: 1, state: 'APPROVED', commit_id: head, author_association: 'MEMBER', user }])
}

const step = (inputs: Record<string, string>): Promise<Step> =>
  start(folder, url ?? atB2, { mode: 'apply', comment: 'false', ...inputs }, { github: github.url })

async function expectRefused(refused: Step, reason: string, ...words: string[]): Promise<void> {
  expect(refused.outputs, refused.log).toMatchObject({ outcome: 'refused', 'failure-reason': reason })
  for (const word of words) expect(refused.commands.find(({ name }) => name === 'error')!.text).toContain(word)
  expect(ran(), 'code of a script has run').toBe(false)
  expect(await contents(url)).toBe(untouched)
}

/** What a script's module code may do so that the Python that runs it tells of another script than itself. */
const lies: Record<string, () => string> = {
  nothing: () => '',
  'its loader': () => `__loader__.digest = "${sha256(fileOf('c3'))}"\n`,
  'the functions of the driver': () => `import sys
for module in list(sys.modules.values()):
    if getattr(module, "__name__", "").startswith("atomic_upgrade") and hasattr(module, "digest_of"):
        module.digest_of = {"c3": "${sha256(fileOf('c3'))}", "d4": "${sha256(fileOf('d4'))}"}.get
        old = module.digest_of
        module.digest_of = lambda revision, old=old: old(revision.revision)
`,
  'Script.path': () => `from alembic.script import Script
reviewed = str(pathlib.Path(__file__).parents[2] / "reviewed.py")
Script.path = property(lambda self: reviewed, lambda *_: None)
`,
}

describe('A script that was changed after the preview is refused before any of its code runs:', () => {
  test.each(Object.keys(lies))('it changes %s', async lie => {
    const before = lies[lie]!()
    change(fileOf('c3'), text =>
      text.replace('t_c3', 't_other').replace('import sqlalchemy', `${mark}${before}import sqlalchemy`),
    )
    await expectRefused(await step({ 'expected-digest': digest }), 'plan-changed')
    await expectRefused(await step({ 'require-review': 'true' }), 'not-reviewed', 'Revision c3', 'than will run')
  })

  test('the app writes it anew when it is imported', async () => {
    const text = readFileSync(fileOf('c3'), 'utf8').replace('t_c3', 't_other')
    appendFileSync(
      join(folder, 'app.py'),
      `\nimport pathlib\n(pathlib.Path(__file__).parent / ${JSON.stringify(path('c3'))}).write_text(${JSON.stringify(text)})\n`,
    )
    await expectRefused(await step({ 'expected-digest': digest }), 'plan-changed')
    await expectRefused(await step({ 'require-review': 'true' }), 'not-reviewed')
  })

  test('another script in its place, or one more', async () => {
    const more = readFileSync(fileOf('d4'), 'utf8').replaceAll('d4', 'e5').replace('"c3"', '"d4"')
    writeFileSync(fileOf('e5'), mark + more)
    await expectRefused(await step({ 'expected-digest': digest }), 'plan-changed')
    await expectRefused(await step({ 'require-review': 'true' }), 'not-reviewed', 'Revision e5')
  })
})

describe('A script that nobody has reviewed runs nothing, neither where it is imported nor in a dry run', () => {
  test.each(['rehearse', 'apply'])('%s', async mode => {
    const more = readFileSync(fileOf('d4'), 'utf8').replaceAll('d4', 'e5').replace('"c3"', '"d4"')
    writeFileSync(
      fileOf('e5'),
      more.replace('def upgrade():', `def upgrade():\n    ${mark.trim().replace('\n', '\n    ')}`),
    )
    push()
    await expectRefused(await step({ mode, 'require-review': 'true' }), 'not-reviewed', 'Revision e5')
  })

  test('one beyond the target, which is not even imported', async () => {
    const more = readFileSync(fileOf('d4'), 'utf8').replaceAll('d4', 'e5').replace('"c3"', '"d4"')
    writeFileSync(fileOf('e5'), mark + more)
    push()
    const applied = await step({ revision: 'd4', 'require-review': 'true', 'expected-digest': digest })
    expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'd4' })
    expect(ran()).toBe(false)
  })
})

describe('The path itself has to be committed, as what it is:', () => {
  test('a link to a reviewed file elsewhere', async () => {
    rmSync(fileOf('d4'))
    symlinkSync('../../elsewhere/d4.py', fileOf('d4'))
    await expectRefused(await step({ 'require-review': 'true' }), 'not-reviewed', 'd4')
  })

  test('a link under a name of its own', async () => {
    git('rm', '-q', path('d4'))
    git('commit', '-q', '-m', 'gone')
    symlinkSync('../../elsewhere/d4.py', join(folder, 'migrations/versions/new.py'))
    await expectRefused(await step({ 'require-review': 'true' }), 'not-reviewed', 'new.py')
  })

  test('a linked folder', async () => {
    renameSync(join(folder, 'migrations'), join(folder, 'other'))
    git('add', '-A')
    git('commit', '-q', '-m', 'moved')
    review(
      8,
      ['c3', 'd4'].map(id => `other/versions/${id}.py`),
    )
    symlinkSync('other', join(folder, 'migrations'))
    await expectRefused(await step({ 'require-review': 'true' }), 'not-reviewed', 'migrations')
    // As it stands there, it was reviewed.
    push()
    const applied = await step({ 'require-review': 'true' })
    expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'd4' })
  })

  test('what git is told not to look at', async () => {
    git('update-index', '--skip-worktree', path('d4'))
    const reviewed = git('rev-parse', `HEAD:${path('d4')}`)
    change(fileOf('d4'), text => text.replace('t_d4', 't_other'))
    git('replace', reviewed, git('hash-object', '-w', path('d4')))
    await expectRefused(await step({ 'require-review': 'true' }), 'not-reviewed', 'Revision d4')
  })
})

describe('Older scripts are imported as well:', () => {
  const hook = `${mark}import alembic.op
kept = alembic.op.execute
alembic.op.execute = lambda sql, *a, **k: kept(str(sql).replace("t_c3", "t_hooked"), *a, **k)
`
  const hooked = () => {
    change(fileOf('a1'), text => text.replace('import sqlalchemy', `${hook}import sqlalchemy`))
    push()
  }

  test('one that was changed by a direct push is named, and with require-review it needs a review', async () => {
    hooked()
    await expectRefused(await step({ 'require-review': 'true' }), 'not-reviewed', 'Revision a1')
    await expectRefused(await step({ 'require-review': 'since:b2' }), 'not-reviewed', 'Revision a1')
    const named = await step({ mode: 'rehearse' })
    expect(named.outputs, named.log).toMatchObject({ outcome: 'rehearsed' })
    expect(
      named.commands
        .filter(({ name }) => name === 'warning')
        .map(({ text }) => text)
        .join('\n'),
    ).toContain(path('a1'))
    review(8, [path('a1')])
    const applied = await step({ 'require-review': 'true' })
    expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'd4' })
  })

  test('one that was changed while the head was added once more elsewhere', async () => {
    change(fileOf('a1'), text => text.replace('import sqlalchemy', `${hook}import sqlalchemy`))
    renameSync(fileOf('b2'), join(folder, 'migrations/versions/again.py'))
    push()
    await expectRefused(await step({ 'require-review': 'true' }), 'not-reviewed', 'Revision a1')
  })

  test('one that is as it was needs none, and neither does one that has only moved', async () => {
    renameSync(fileOf('a1'), join(folder, 'migrations/versions/first.py'))
    push()
    const applied = await step({ 'require-review': 'true' })
    expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'd4' })
    expect(applied.commands.filter(({ name }) => name === 'warning')).toEqual([])
  })
})

describe('While the batch runs,', () => {
  const others = (where: 'import' | 'upgrade', what: string) =>
    change(fileOf('c3'), text =>
      where === 'import'
        ? text.replace('import sqlalchemy', `${what}\nimport sqlalchemy`)
        : text.replace('def upgrade():', `def upgrade():\n${what.replaceAll(/^/gm, '    ')}`),
    )
  const later = `import pathlib
later = pathlib.Path(__file__).with_name("d4.py")
later.write_text(later.read_text().replace("t_d4", "t_other"))`

  test.each(['import', 'upgrade'] as const)('a later script that is written anew (%s) is refused', async where => {
    others(where, later)
    const shown = (await step({ mode: 'preview' })).outputs.digest!
    git('checkout', '-q', path('d4'))
    const refused = await step({ 'expected-digest': shown })
    expect(refused.outputs, refused.log).toMatchObject({ 'failure-reason': 'plan-changed', 'new-head': 'b2' })
    expect(await contents(url)).toBe(untouched)
  })

  /** What a script may do when it is imported so that another one would be made of something else. */
  const hooks: Record<string, string> = {
    'the loader': `import importlib.machinery, builtins
kept = compile
def other(source, *a, **k):
    return kept(source.replace(b"t_d4", b"t_other") if isinstance(source, bytes) else source, *a, **k)
builtins.compile = other
importlib.machinery.SourceFileLoader.source_to_code = lambda self, data, path, **k: other(data, path, "exec")
importlib.machinery.SourceFileLoader.get_data = lambda self, path: open(path, "rb").read().replace(b"t_d4", b"t_other")`,
    'Alembic’s functions': `import alembic.util, alembic.script.base, types
def other(folder, name):
    text = (__import__("pathlib").Path(folder) / name).read_text().replace("t_d4", "t_other")
    module = types.ModuleType(name)
    exec(text, module.__dict__)
    return module
alembic.util.load_python_file = other
def from_path(cls, script, path):
    module = other(*__import__("os").path.split(path))
    return alembic.script.base.Script(module, module.revision, path)
alembic.script.base.Script._from_path = classmethod(from_path)`,
  }
  test.each(Object.keys(hooks))('a later script is what was read, whatever another changes: %s', async what => {
    others('import', hooks[what]!)
    const shown = (await step({ mode: 'preview' })).outputs.digest!
    const applied = await step({ 'expected-digest': shown })
    expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'd4' })
    expect(await contents(url)).toContain('t_d4')
    expect(await contents(url)).not.toContain('t_other')
  })

  test.each([true, false])('a script says something else of itself than can be read (digest: %s)', async expected => {
    change(fileOf('c3'), text => text.replace('\n\ndef upgrade', '\nglobals()["down_revision"] = "a1"\n\ndef upgrade'))
    const inputs = expected ? { 'expected-digest': (await step({ mode: 'preview' })).outputs.digest || digest } : {}
    const refused = await step(inputs)
    expect(refused.outputs, refused.log).toMatchObject({ 'failure-reason': 'plan-changed', 'new-head': 'b2' })
    expect(await contents(url)).toBe(untouched)
  })
})

describe('A script that computes its place', () => {
  const computed = () => change(fileOf('c3'), text => text.replace('revision = "c3"', `${mark}revision = f"c{3}"`))

  test('runs, but nothing vouches for it', async () => {
    computed()
    const told = `Nothing can vouch for ${path('c3')}: only running it tells its revision.`
    await expectRefused(await step({ 'expected-digest': digest }), 'plan-changed', told)
    await expectRefused(await step({ 'require-review': 'true' }), 'not-reviewed', told)
    const preview = await step({ mode: 'preview' })
    expect(preview.outputs, preview.log).toMatchObject({ outcome: 'previewed', 'plan-file': '' })
    expect(preview.log).toContain(`There is no plan file, because of ${path('c3')}: only running it tells`)
    const applied = await step({})
    expect(applied.outputs, applied.log).toMatchObject({ outcome: 'applied', 'new-head': 'd4' })
  })
})
