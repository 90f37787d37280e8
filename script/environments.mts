import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename, join } from 'node:path'

const root = join(import.meta.dirname, '..')

/** The packages that are supported, as lists for pip. */
export const newest = 'test/requirements.txt'
export const oldest = 'test/requirements-oldest.txt'

/** The Python of a virtual environment in .cache/ with these packages, made with a Python of that version. */
export function environmentOf(
  { python: version, requirements }: { python: string; requirements: string },
  python: string,
): string {
  const folder = join(root, '.cache', `python-${version}-${basename(requirements, '.txt')}`)
  const command = join(folder, 'bin', 'python')
  const stamp = join(folder, 'requirements.txt')
  const wanted = [requirements, 'migrations-fixture/requirements.txt'].map(name =>
    readFileSync(join(root, name), 'utf8'),
  )
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted.join()) return command
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(join(root, '.cache'), { recursive: true })
  execFileSync(python, ['-m', 'venv', folder], { stdio: 'inherit' })
  const args = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', requirements]
  execFileSync(command, args, { cwd: root, stdio: 'inherit' })
  writeFileSync(stamp, wanted.join())
  return command
}

/** The versions of what the requirements name. Throws where the environment has others. */
export function installed(python: string, requirements: string): Record<string, string> {
  const pinned = (name: string): [string, string][] =>
    readFileSync(join(root, name), 'utf8')
      .split('\n')
      .flatMap(line => {
        if (line.startsWith('-r ../')) return pinned(line.slice('-r ../'.length))
        const [, packageName, version] = /^([\w-]+)(?:\[\w+\])?==(\S+)$/.exec(line) ?? []
        return packageName ? [[packageName, version!]] : []
      })
  const packages = Object.fromEntries(pinned(requirements))
  const script = 'import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))'
  const found = execFileSync(python, ['-c', script, ...Object.keys(packages)], { encoding: 'utf8' })
    .trim()
    .split(' ')
  const different = Object.values(packages).filter((version, index) => version !== found[index])
  if (different.length > 0) throw new Error(`${python} has other packages than ${requirements} says.`)
  return packages
}

/** The command of a Python of this minor version, on the PATH or among pyenv's. */
export function findPython(version: string): string | undefined {
  const pyenv = join(process.env.PYENV_ROOT ?? join(homedir(), '.pyenv'), 'versions')
  const fromPyenv = existsSync(pyenv) ? readdirSync(pyenv).filter(name => name.startsWith(`${version}.`)) : []
  const candidates = [`python${version}`, ...fromPyenv.map(name => join(pyenv, name, 'bin', 'python'))]
  const script = 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])'
  return candidates.find(command => {
    const { stdout } = spawnSync(command, ['-c', script], { encoding: 'utf8' })
    return stdout?.trim() === version
  })
}
