import { existsSync, realpathSync } from 'node:fs'
import { devNull } from 'node:os'
import { delimiter, dirname, resolve, sep } from 'node:path'

/**
 * The environment of the user's Python: the step's own, without what could be used in the step's name.
 *
 * `secrets` are the forms of the database's password, `token` the GitHub token. A value that is a credential is replaced
 * by a word that says so, since an app may insist on finding something there.
 */
export function childEnvironment(
  environment: NodeJS.ProcessEnv,
  { secrets, token }: { secrets: string[]; token: string },
): Record<string, string> {
  // libpq, and so we, would take the password from there where the URL has none.
  const known = environment.PGPASSWORD ? [...secrets, environment.PGPASSWORD] : secrets
  const child: Record<string, string> = {}
  for (const [name, value] of Object.entries(environment)) {
    if (value === undefined || withheld.test(name)) continue
    child[name] = withoutCredentials(name, value, known, token)
  }
  // On branches, the order in which Alembic goes through revisions depends on the hash seed.
  child.PYTHONHASHSEED ??= '0'
  child.PYTHONUNBUFFERED ??= '1'
  // libpq would look for a password in the home directory.
  child.PGPASSFILE = process.platform === 'win32' ? 'NUL' : '/dev/null'
  return child
}

/**
 * The environment of a Python that loads nothing from the checkout (`roots`) before our driver watches: a `sitecustomize`
 * on PYTHONPATH would run before anything of ours, and cached bytecode in the place of a source. `findsBytecode` where
 * there is some that the command itself may load.
 */
export function environmentOutside(
  environment: Record<string, string>,
  { roots, workingDirectory, findsBytecode }: { roots: string[]; workingDirectory: string; findsBytecode: boolean },
): Record<string, string> {
  // Also what a link in the checkout leads out of it to.
  const isInside = (path: string): boolean => {
    const real = existsSync(path) ? realpathSync(path) : path
    if (roots.some(root => `${real}${sep}`.startsWith(`${root}${sep}`))) return true
    return dirname(path) !== path && isInside(dirname(path))
  }
  const isOutside = (entry: string) => !isInside(resolve(workingDirectory, entry))
  const { PYTHONPATH, PYTHONPYCACHEPREFIX, ...child } = environment
  if (PYTHONPATH) child.PYTHONPATH = PYTHONPATH.split(delimiter).filter(isOutside).join(delimiter)
  // Nothing is found below it, nor can anything be written.
  if (findsBytecode) child.PYTHONPYCACHEPREFIX = devNull
  else if (PYTHONPYCACHEPREFIX && isOutside(PYTHONPYCACHEPREFIX)) child.PYTHONPYCACHEPREFIX = PYTHONPYCACHEPREFIX
  return child
}

/** Inputs, tokens, the runner's files for outputs, and what would steer libpq past the gate. */
const withheld =
  /^(INPUT_.*|ACTIONS_.*|GITHUB_(TOKEN|OUTPUT|ENV|PATH|STATE|STEP_SUMMARY)|GH_TOKEN|GH_ENTERPRISE_TOKEN|GITHUB_ENTERPRISE_TOKEN|RUNNER_TOKEN|PG(PASSWORD|PASSFILE|SERVICE|SERVICEFILE|SSL\w*|REQUIREAUTH|REQUIRESSL|CHANNELBINDING|GSS\w*|TARGETSESSIONATTRS|LOADBALANCEHOSTS|HOSTADDR))$/i

const placeholder = 'withheld-by-atomic-upgrade'

/** GitHub's tokens, whoever put them there; source: GitHub's documentation of its token formats. */
const gitHubToken = /\b(?:gh[opsur]_|github_pat_)[\w.-]{16,}/g

/** Passwords in a PostgreSQL URL (the user without one is what the gate expects), in libpq's `key=value` form, in JSON. */
const passwordsInUrls = /(postgres(?:ql)?(?:\+\w+)?:\/\/[^:/@\s]*):(?:[^@\s]*|[^@/\r\n]*)@(?:[^@/?\s]*@)*/gi
const passwordsInPairs = /((?:^|[?&;\s])(?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*'|[^&\s]+)/gi
const passwordsInJson = /("password"\s*:\s*")(?:\\.|[^"\\])*/gi

function withoutCredentials(name: string, value: string, secrets: string[], token: string): string {
  const basic = Buffer.from(`x-access-token:${token}`).toString('base64')
  if (token !== '' && (value.includes(token) || value.includes(basic))) return placeholder
  const text = value
    .replace(gitHubToken, placeholder)
    .replace(passwordsInUrls, '$1@')
    .replace(passwordsInPairs, `$1${placeholder}`)
    .replace(passwordsInJson, `$1${placeholder}`)
  const named = /PASS|PWD|SECRET|CREDENTIAL|TOKEN|_KEY$|_PW$/i.test(name)
  return secrets.reduce((rest, secret) => {
    if (named && rest === secret) return placeholder
    return isTelling(secret) ? rest.replaceAll(secret, placeholder) : rest
  }, text)
}

/** A short password, or one like `postgres` that is a word, turns up in harmless values too, such as PATH. */
const isTelling = (secret: string): boolean => secret.length >= 8 && !/^[a-z]{0,15}$/i.test(secret)
