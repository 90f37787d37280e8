import { notRehearsableFailure, notTransactionalFailure } from '../report/blame'
import type { Tried } from './try'

/** Throws a Failure `not-transactional` where a statement of the batch cannot be part of one transaction. */
export function refuseObstacles({ inputs, databases }: Tried): void {
  const [first, ...more] = databases.flatMap(({ forecast }) => forecast.obstacles)
  if (!first) return
  const divisions = databases.flatMap(({ forecast }) => forecast.division ?? [])
  if (inputs.mode === 'rehearse' && divisions.some(({ obstacles }) => obstacles.length === 0)) {
    throw notRehearsableFailure([first, ...more])
  }
  throw notTransactionalFailure([first, ...more], { inSegments: divisions.length > 0 })
}
