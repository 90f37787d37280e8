import { accessSync, constants, existsSync, lstatSync, readdirSync, readFileSync, type Stats, statSync } from 'node:fs'
import { basename, delimiter, dirname, join, resolve } from 'node:path'
import { followed } from './links'
import { bytewise, isWithin, realOf } from './paths'
import type { Trusted } from './trust'

/** The command of the input `python`: what it reads and imports, it does before anything of ours stands in Python. */
export interface Command {
  words: string[]
  workingDirectory: string
  workspace: string
  environment: NodeJS.ProcessEnv
}

/** What `poetry run`, `uv run`, `pipenv run` and the like read before they start a Python, which they choose by it. */
const configuration = [
  ...['pyproject.toml', 'poetry.toml', 'uv.toml', 'pdm.toml', '.pdm.toml', 'hatch.toml', 'pixi.toml', 'Pipfile'],
  ...['.python-version', '.python-versions', 'setup.py', 'setup.cfg', 'hatch_plugins.py', 'hatch_build.py'],
]

/** Where they look for an environment: a folder, or a file that has its path. */
const pointers = ['.venv', '.pdm-python']

/** Variables that lead them to one. */
const variables = [
  ...['UV_PROJECT', 'UV_PROJECT_ENVIRONMENT', 'UV_PYTHON', 'UV_WORKING_DIRECTORY', 'UV_CONFIG_FILE', 'UV_ENV_FILE'],
  ...['VIRTUAL_ENV', 'PIPENV_PIPFILE', 'PIPENV_DOTENV_LOCATION', 'PDM_PROJECT'],
]

/** Every path by which the command may find a Python, or what it reads first. */
export function waysOf(command: Command): string[] {
  const named = pathsIn(command).flatMap(path => [path, dirname(path)])
  if (isInterpreter(command)) return named
  const pointed = foldersOf(command)
    .flatMap(folder => pointers.map(name => join(folder, name)))
    .flatMap(path => (isFile(path) ? [path, resolve(dirname(path), readFileSync(path, 'utf8').trim())] : [path]))
    .flatMap(path => [path, dirname(path)])
  return [...named, ...pathsTold(command), ...pointed]
}

/** What of the checkout the command reads, runs, or might import: files, some of which are not there. */
export function filesOf(command: Command, trusted: Trusted): string[] {
  const isInside = (path: string) => trusted.roots.some(root => isWithin(realOf(dirname(path)), root))
  const named = filesNamed(pathsIn(command), trusted)
  const told = isInterpreter(command) ? [] : filesNamed(pathsTold(command), trusted)
  // An interpreter that is committed finds its packages by such a file.
  const homes = named.flatMap(path => [join(dirname(path), 'pyvenv.cfg'), join(dirname(path), '../pyvenv.cfg')])
  const names = readsVariables(command) ? [...configuration, '.env'] : configuration
  const read = isInterpreter(command) ? [] : foldersOf(command).flatMap(folder => names.map(name => join(folder, name)))
  const ignoresVariables = command.words.some(word => /^-[a-zA-Z]*[EI]/.test(word))
  const imported = importedFrom(command, trusted).flatMap(folder => modulesBelow(folder, ignoresVariables))
  return [
    ...[...named, ...told].filter(path => !leadsOut(path, trusted)),
    ...[...homes, ...read].filter(isInside),
    ...imported,
  ]
}

/** Whether cached bytecode lies where the command may import from the checkout. */
export const findsBytecode = (command: Command, trusted: Trusted): boolean =>
  importedFrom(command, trusted)
    .flatMap(folder => modulesBelow(folder, true))
    .some(path => basename(dirname(path)) === '__pycache__')

/** The folders of the checkout that the command may import from. */
function importedFrom(command: Command, trusted: Trusted): string[] {
  const { words, workingDirectory } = command
  const programs = filesNamed(pathsIn(command), trusted).map(realOf).filter(isProgram)
  const folders = pathsIn(command).filter(
    path => isFolder(path) && readdirSync(path).some(name => /^__main__\./.test(name)),
  )
  // `-m` and `-c` of Python, and whatever a program may do.
  const runsMore = programs.length > 0 || words.some(word => /^-[bBdEiIOPqRsSuvx]*[mc]|^--module\b/.test(word))
  return [...(runsMore ? [workingDirectory] : []), ...programs.map(path => dirname(path)), ...folders]
    .map(realOf)
    .filter(folder => trusted.roots.some(root => isWithin(folder, root)))
}

/** The paths that variables tell. */
const pathsTold = ({ workingDirectory, environment }: Command): string[] =>
  variables
    .flatMap(name => environment[name]?.split(' ') ?? [])
    .filter(Boolean)
    .map(path => resolve(workingDirectory, path))

/** Those of these that are files of the checkout, but for those of an environment that a step before has installed. */
function filesNamed(paths: string[], { roots, files, links }: Trusted): string[] {
  return paths.filter(path => {
    if (!isFile(path)) return false
    const real = join(realOf(dirname(path)), basename(path))
    const isKnown = [files, links].some(known => known[bytewise(real)] !== undefined)
    return roots.some(root => isWithin(real, root)) && (isKnown || !looksInstalled(path))
  })
}

/** Whether links of the trusted commit's lead out of the checkout, such as to an interpreter. */
function leadsOut(path: string, { roots, links }: Trusted): boolean {
  const isInside = (each: string) => roots.some(root => isWithin(each, root))
  const { file, links: way } = followed(path)
  return !isInside(file) && way.every(link => !isInside(link.file) || links[bytewise(link.file)] !== undefined)
}

/** Every path that a word may mean. */
function pathsIn({ words, workingDirectory, environment: { PATH = '' } }: Command): string[] {
  return words.flatMap((word, at) => {
    if (/[\\/]/.test(word)) return partsOf(word).map(path => resolve(workingDirectory, path))
    const onPath = PATH.split(delimiter).map(folder => resolve(workingDirectory, folder, word))
    const found = onPath.filter(isFile).slice(0, 1)
    if (at === 0) return found
    // One like `run` is a command of the word before it.
    const before = words.slice(0, at).findLast(each => !each.startsWith('-')) ?? ''
    const isFileName = word.includes('.') || /^(python|pypy|py$|\w*sh$)/.test(basename(before))
    const relative = partsOf(word).map(path => resolve(workingDirectory, path))
    return [...found, ...relative.filter(path => isFileName || isFolder(path))]
  })
}

/** A word, and what it has behind `=` or an option of one letter. */
const partsOf = (word: string): string[] => [...word.split('='), word.replace(/^-\w/, '')].filter(Boolean)

/** The working directory and the folders that words name, with those above them. */
function foldersOf(command: Command): string[] {
  const { workingDirectory, workspace } = command
  const named = pathsIn(command).map(path => (isFolder(path) ? path : dirname(path)))
  const folders = [workingDirectory, ...named].map(realOf)
  return [...new Set(folders.flatMap(folder => foldersBetween(folder, realOf(workspace))))]
}

/** A folder and those above it, up to `top`; the folder alone where it lies elsewhere. */
function foldersBetween(folder: string, top: string): string[] {
  if (folder === top || !isWithin(folder, top)) return [folder]
  return [folder, ...foldersBetween(dirname(folder), top)]
}

/** Whether the command is Python itself, with options that load nothing. */
function isInterpreter(command: Command): boolean {
  const [name = '', ...options] = command.words
  if (!/^python[\w.-]*$/.test(basename(name)) || /\.(py|sh|bat|cmd)$/.test(name)) return false
  const isPlain = options.every((option, at) => {
    const before = options[at - 1] ?? ''
    return /^-([bBdEiIOPqRsSuvx]+|[XW].*)$/.test(option) || /^-[XW]$/.test(before)
  })
  const [path] = pathsIn({ ...command, words: [name] })
  return isPlain && (path === undefined || looksInstalled(path) || !isWithin(realOf(path), realOf(command.workspace)))
}

/** Whether the command may take variables from a file `.env`. */
function readsVariables({ words }: Command): boolean {
  const [first = '', ...rest] = words
  const name = basename(first)
  const [, glued] = /^-\w*m(.*)$/.exec(rest.find(word => /^-[a-zA-Z]*m/.test(word)) ?? '') ?? []
  const module = glued || rest[rest.findIndex(word => /^-[a-zA-Z]*m$/.test(word)) + 1]
  const tool = name.startsWith('python') ? (glued === undefined ? 'python' : module) : name
  return !['python', 'poetry', 'uv', 'pdm', 'hatch', 'env'].includes(tool ?? '')
}

/** Whether a file lies in something like a virtual environment. */
function looksInstalled(path: string): boolean {
  const folder = dirname(path)
  return [folder, dirname(folder)].some(
    home =>
      ['pyvenv.cfg', 'conda-meta'].some(name => existsSync(join(home, name))) ||
      ['lib', 'Lib'].some(
        name =>
          isFolder(join(home, name)) && readdirSync(join(home, name)).some(each => /^python\d|^os\.py$/.test(each)),
      ),
  )
}

/** What can stand in an `import`; node_modules can, and nobody means it. */
const isImportable = (name: string): boolean =>
  /^[\p{L}\p{Nl}_][\p{L}\p{M}\p{N}\p{Pc}]*$/u.test(name) && name !== 'node_modules'

const isModule = (name: string): boolean => {
  const [stem = '', ...suffixes] = name.split('.')
  return isImportable(stem) && /^(pyw?|pyc)$|(^|\.)(so|pyd|sl|dylib)$/i.test(suffixes.join('.'))
}

/** Every file below a folder that an `import` may find from there; with what is cached in `__pycache__`, if that is asked. */
function modulesBelow(folder: string, withCached: boolean, seen = new Set<string>()): string[] {
  const real = realOf(folder)
  if (seen.has(real)) return []
  seen.add(real)
  const names = readdirSync(real)
  // Of a virtual environment, these hold programs and the packages.
  const others = names.includes('pyvenv.cfg')
    ? ['bin', 'Scripts', 'lib', 'lib64', 'Lib', 'include', 'Include', 'share']
    : []
  return names.flatMap(name => {
    const path = join(real, name)
    if (!isFolder(path)) return isModule(name) ? [path] : []
    if (name === '__pycache__') return withCached ? readdirSync(path).map(each => join(path, each)) : []
    if (!isImportable(name) || others.includes(name)) return []
    const below = modulesBelow(path, withCached, seen)
    return below.length > 0 && lstatSync(path).isSymbolicLink() ? [path, ...below] : below
  })
}

const statOf = (path: string): Stats | undefined => {
  try {
    return statSync(path, { throwIfNoEntry: false })
  } catch {
    return undefined
  }
}
const isFile = (path: string): boolean => statOf(path)?.isFile() === true
const isFolder = (path: string): boolean => statOf(path)?.isDirectory() === true

function isProgram(path: string): boolean {
  try {
    if (!/\.(py\w?|sh)$|^[^.]+$/i.test(basename(path))) accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
