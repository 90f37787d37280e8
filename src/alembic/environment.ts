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
  const child: Record<string, string> = {}
  for (const [name, value] of Object.entries(environment)) {
    if (value === undefined || withheld.test(name)) continue
    child[name] = withoutCredentials(name, value, secrets, token)
  }
  // On branches, the order in which Alembic goes through revisions depends on the hash seed.
  child.PYTHONHASHSEED ??= '0'
  child.PYTHONUNBUFFERED ??= '1'
  // libpq would look for a password in the home directory.
  child.PGPASSFILE = process.platform === 'win32' ? 'NUL' : '/dev/null'
  return child
}

/** Inputs, tokens, the runner's files for outputs, and what would steer libpq past the gate. */
const withheld =
  /^(INPUT_.*|ACTIONS_.*|GITHUB_(TOKEN|OUTPUT|ENV|PATH|STATE|STEP_SUMMARY)|GH_TOKEN|GH_ENTERPRISE_TOKEN|GITHUB_ENTERPRISE_TOKEN|RUNNER_TOKEN|PG(PASSWORD|PASSFILE|SERVICE|SERVICEFILE|SSL\w*|REQUIREAUTH|REQUIRESSL|CHANNELBINDING|GSS\w*|TARGETSESSIONATTRS|LOADBALANCEHOSTS|HOSTADDR))$/i

const placeholder = 'withheld-by-atomic-upgrade'

function withoutCredentials(name: string, value: string, secrets: string[], token: string): string {
  if (token !== '' && value.includes(token)) return placeholder
  // Databases of our kind lose their password; a URL's user without one is what the gate expects.
  const text = value
    .replace(/\b(postgres(?:ql)?(?:\+\w+)?:\/\/[^:/@\s]*):[^@\s]*@/gi, '$1@')
    .replace(/([?&]password=)[^&\s]*/gi, `$1${placeholder}`)
  const named = /PASS|PWD|SECRET|CREDENTIAL|TOKEN|_KEY$|_PW$/i.test(name)
  return secrets.reduce((rest, secret) => {
    if (named && rest === secret) return placeholder
    // A short password, or one that is also the user's name, would turn up in harmless values.
    return secret.length >= 8 ? rest.replaceAll(secret, placeholder) : rest
  }, text)
}
