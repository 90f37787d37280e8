/** A workflow command as the runner understands it. */
export interface WorkflowCommand {
  name: string
  properties: Record<string, string>
  text: string
}

/** The commands that the runner has; it does not care about their case. */
export const commandNames = [
  'add-mask',
  'add-matcher',
  'add-path',
  'debug',
  'echo',
  'endgroup',
  'error',
  'group',
  'notice',
  'remove-matcher',
  'save-state',
  'set-env',
  'set-output',
  'stop-commands',
  'warning',
]

/** What .NET's `TrimStart` takes for white space. */
const trimmed = /^[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/

/** Its searches go by culture, which overlooks characters without a width. */
const separator = /:[\u00ad\u200b-\u200f\u2060\ufeff]*:/

/**
 * The command that the runner finds in a line, read as its ActionCommand.cs does: `::name a=b,c=d::text` at the start,
 * else `##[name a=b;c=d]text` anywhere. A character without a width in either of the two beginnings makes it cut out
 * something else than a command's name.
 */
export function commandIn(line: string): WorkflowCommand | undefined {
  const message = line.replace(trimmed, '')
  if (message.startsWith('::')) {
    const end = 2 + message.slice(2).search(separator)
    const found = end < 2 ? undefined : command(message.slice(2, end), message.slice(end + 2), ',')
    if (found) return found
  }
  for (const { index } of message.matchAll(/##\[/g)) {
    const end = message.indexOf(']', index)
    const found = end < 0 ? undefined : command(message.slice(index + 3, end), message.slice(end + 1), ';')
    if (found) return found
  }
  return undefined
}

/** The commands in what a process has written on one of its streams. */
export const commandsIn = (log: string): WorkflowCommand[] =>
  log.split(/\r\n|\r|\n/).flatMap(line => commandIn(line) ?? [])

function command(info: string, text: string, between: string): WorkflowCommand | undefined {
  const at = info.indexOf(' ')
  const name = (at < 0 ? info : info.slice(0, at)).toLowerCase()
  if (!commandNames.includes(name)) return undefined
  const pairs = at < 0 ? [] : info.slice(at + 1).split(between)
  const properties = pairs.flatMap(pair => {
    const [, key, value] = /^\s*([^=]+)=(.+)$/s.exec(pair) ?? []
    return key === undefined ? [] : [[key, unescaped(value!)]]
  })
  return { name, properties: Object.fromEntries(properties), text: unescaped(text) }
}

const unescaped = (text: string): string =>
  text
    .replaceAll('%3A', ':')
    .replaceAll('%2C', ',')
    .replaceAll('%0A', '\n')
    .replaceAll('%0D', '\r')
    .replaceAll('%25', '%')
