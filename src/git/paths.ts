import { join, resolve, sep } from 'node:path'
import { followed } from './links'

/**
 * Git's paths, and Linux's, are bytes and need not be UTF-8. A path that comes from git's objects, or is compared with
 * one that does, is a string whose characters are its bytes (latin1).
 */
export const bytewise = (path: string): string => Buffer.from(path).toString('latin1')

/** Such a path for people, and for what takes no other. */
export const readable = (path: string): string => Buffer.from(path, 'latin1').toString()

/** The file of a path in a repository, for Node's functions. */
export const fileOf = (root: string, path: string): Buffer => Buffer.from(join(bytewise(root), path), 'latin1')

/** Where a path really leads; of one that does not exist, as far as it does. */
export const realOf = (path: string): string => followed(resolve(path)).file

export const isWithin = (path: string, folder: string): boolean => `${path}${sep}`.startsWith(`${folder}${sep}`)
