import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { digestedOf, digestOf } from '../../src/plan/digest'
import type { Plan } from '../../src/plan/plan'
import { planOf, revision } from './hostile'

const database = (bind: string, plan: Plan) => ({ bind, plan })
const one = (plan: Plan) => digestOf(digestedOf({ direction: plan.direction, databases: [database('default', plan)] }))

const first = revision({ id: 'a1', digest: '1'.repeat(64) })
const second = revision({ id: 'b2', digest: '2'.repeat(64) })
const plan = planOf([first, second], { priorHeads: [], newHeads: ['b2'] })

describe('A digest', () => {
  test('is that of the JSON which docs/plans.md describes', () => {
    const json = `{"format":"atomic-upgrade/digest","version":1,"direction":"upgrade","databases":[{"bind":"default","prior-heads":[],"new-heads":["b2"],"revisions":[["a1","${'1'.repeat(64)}"],["b2","${'2'.repeat(64)}"]]}]}`
    expect(JSON.stringify(digestedOf({ direction: 'upgrade', databases: [database('default', plan)] }))).toBe(json)
    expect(one(plan)).toBe(`sha256:${createHash('sha256').update(json).digest('hex')}`)
  })

  test('is the same as ever', () => {
    expect(one(plan)).toBe('sha256:98c82870763fb3a547746f7d04367b8a11248b8476f2e116b0f399824aec9f0b')
  })

  test('does not depend on what a script is called, says or renders to, nor on how the target was named', () => {
    const moved = { ...second, path: 'elsewhere/b2.py', message: 'other words', created: 'now', statements: [] }
    const { statements: _, ...unseen } = { ...first, notRenderable: { reason: 'no', line: 1 } }
    expect(one({ ...plan, target: 'b2', revisions: [unseen, moved] })).toBe(one(plan))
  })

  test('does not depend on the order of the databases', () => {
    const [a, b] = [database('accounts', plan), database('zones', planOf([]))]
    const digest = (...databases: ReturnType<typeof database>[]) =>
      digestOf(digestedOf({ direction: 'upgrade', databases }))
    expect(digest(b, a)).toBe(digest(a, b))
    expect(digest(a)).not.toBe(digest(a, b))
  })

  const changes: Record<string, Plan> = {
    'the prior heads': { ...plan, priorHeads: ['a0'] },
    'the new heads': { ...plan, newHeads: ['a1', 'b2'] },
    'a revision that is gone': { ...plan, revisions: [first] },
    'another revision': { ...plan, revisions: [first, second, revision({ id: 'c3' })] },
    'their order': { ...plan, revisions: [second, first] },
    'one byte of a script': { ...plan, revisions: [first, { ...second, digest: '3'.repeat(64) }] },
    'the direction': { ...plan, direction: 'downgrade' },
  }
  for (const [name, changed] of Object.entries(changes)) {
    test(`changes with ${name}`, () => expect(one(changed)).not.toBe(one(plan)))
  }

  test('changes with the bind', () => {
    const other = digestOf(digestedOf({ direction: 'upgrade', databases: [database('other', plan)] }))
    expect(other).not.toBe(one(plan))
  })
})
