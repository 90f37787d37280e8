import { readlinkSync } from 'node:fs'
import { dirname, isAbsolute, join, parse, sep } from 'node:path'

/** A symbolic link, where it really lies, with its own words for where it leads. */
export interface Link {
  file: string
  target: string
}

/** As many as Linux follows. */
const most = 40

/** Where a path really leads, as realpath tells it, with every symbolic link on the way there. */
export function followed(path: string): { file: string; links: Link[] } {
  const links: Link[] = []
  let { root: file } = parse(path)
  const rest = namesIn(path.slice(file.length))
  for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
    if (name === '..') file = dirname(file)
    else {
      const next = join(file, name)
      const target = targetOf(next)
      if (target === undefined || links.length === most) file = next
      else {
        links.push({ file: next, target })
        if (isAbsolute(target)) file = parse(target).root
        rest.unshift(...namesIn(isAbsolute(target) ? target.slice(file.length) : target))
      }
    }
  }
  return { file, links }
}

const namesIn = (path: string): string[] =>
  path.split(sep === '\\' ? /[\\/]/ : '/').filter(name => name !== '' && name !== '.')

function targetOf(file: string): string | undefined {
  try {
    return readlinkSync(file)
  } catch {
    return undefined
  }
}
