import { offline } from './offline.mts'
import type { Chapter } from './scenario.mts'
import { seed } from './seed.mts'
import { several } from './several.mts'
import { endings, forbidden, races, transactions } from './transactions.mts'

/** Every scenario, in the order of the page. */
export const chapters: Chapter[] = [seed, transactions, endings, forbidden, races, several, offline]
