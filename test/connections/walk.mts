import { programOf } from './programs.mts'
import type { Stage } from './stage.mts'

/** How many programs ended how; of the refused ones by their reasons. */
export type Counts = Map<string, number>

/** Plays the programs of these numbers, the last one included; `tell` hears of progress. Throws in the end if some ended otherwise than they should. */
export async function walk(stage: Stage, from: number, to: number, tell = (_played: number) => {}): Promise<Counts> {
  const counts: Counts = new Map()
  const wrong: string[] = []
  for (let seed = from; seed <= to; seed++) {
    const program = programOf(seed)
    const verdict = await stage.play(program)
    if (verdict.kind === 'wrong') {
      wrong.push(`program ${seed} ended otherwise\n${JSON.stringify(program)}\n${verdict.told}`)
      console.log(wrong.at(-1))
      continue
    }
    const kind = verdict.kind === 'refused' ? verdict.reason : verdict.kind
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
    if ((seed - from + 1) % 500 === 0) tell(seed - from + 1)
  }
  if (wrong.length > 0) throw new Error(`${wrong.length} programs ended otherwise, the first one:\n${wrong[0]}`)
  return counts
}

const words: Record<string, string> = {
  same: 'the same results, errors and rows as on a server itself',
  waits: 'on a server itself it would have waited for a lock of its own',
  'rolled back behind another': 'refused: a connection that had written rolled back after another had written',
  'read what is not committed': 'refused: a connection read what another had changed and not committed',
  'read what is newer than its snapshot':
    'refused: at REPEATABLE READ, one read what another had changed since its snapshot',
  'asked for a lock of another': 'refused: a connection asked for an advisory lock that another held',
  'passed by what another has locked': 'refused: SKIP LOCKED where another had locked rows of the table',
}

/** As a table for people. */
export function tableOf(counts: Counts): string {
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0)
  const rows = [...counts]
    .sort(([, a], [, b]) => b - a)
    .map(([kind, count]) => `| ${words[kind] ?? kind} | ${count} | ${((100 * count) / total).toFixed(1)} % |`)
  return ['| programs | | |', '| --- | ---: | ---: |', ...rows, `| all | ${total} | |`].join('\n')
}
