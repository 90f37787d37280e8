/** A script as the base has it, or as it is here. */
export interface KnownScript {
  id: string
  /** Relative to the repository's root. */
  path: string
  source: string
}

/** A script of the base that is not the same here. */
export interface Edited {
  id: string
  path: string
  isGone: boolean
}

/**
 * Which scripts of the base were edited or deleted: databases that ran them will not run them again. A script is known
 * by its id, so it may move; line ends do not count. A deleted one counts where its folder still has scripts, for other
 * projects of the repository have histories of their own.
 */
export function editedOf(base: KnownScript[], here: KnownScript[]): Edited[] {
  const known = new Map(here.map(script => [script.id, script]))
  const folders = new Set(here.map(folderOf))
  return base.flatMap((script): Edited[] => {
    const { id, path } = script
    const now = known.get(id)
    if (now) return textOf(now) === textOf(script) ? [] : [{ id, path: now.path, isGone: false }]
    return folders.has(folderOf(script)) ? [{ id, path, isGone: true }] : []
  })
}

const folderOf = ({ path }: KnownScript): string => path.slice(0, path.lastIndexOf('/') + 1)

/** As the digest of a script takes it. */
const textOf = ({ source }: KnownScript): string => source.replaceAll(/\r\n?/g, '\n')
