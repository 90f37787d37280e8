import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/failure'
import { digestOf } from '../../src/plan/digest'
import type { Revision } from '../../src/plan/plan'
import { commentLimit, renderReport } from '../../src/report/comment'
import { planHiddenIn } from '../../src/report/hidden'
import { lifeOf, wasApplied } from '../../src/report/life'
import { hostile, planOf, resultOf, revision } from './hostile'
import { expectIntact, runLink } from './intact'
import { digestedIn, type Flat, nested } from './result'

/** The comment after a run; `standing` is how it was before. */
function told(standing: string, result: Flat, run = runLink): string {
  const whole = nested(result)
  return renderReport({ ...whole, digested: digestedIn(result) }, { run, standing }, commentLimit)
}

const digestOfPlan = (result: Flat): string => digestOf(digestedIn(result))
const previewedIn = (text: string): string => lifeOf(text).previewed?.text ?? ''
const historyOf = (text: string): string[] => lifeOf(text).history.map(line => line.replace(/\(https[^)]*\)/, ''))

const two = planOf([revision({ id: 'a1' }), revision({ id: 'b2' })])
const preview = resultOf({ plan: two })
const applied = resultOf({
  mode: 'apply',
  outcome: 'applied',
  plan: two,
  runs: [{ id: 'a1', duration: 12, statements: 1 }],
})
const { outcome: _, ...applying } = resultOf({ mode: 'apply', plan: two })
const changed = planOf([revision({ id: 'a1' }), revision({ id: 'b2', digest: 'e'.repeat(64) })])
const failure = new Failure('migration-failed', 'Revision b2 failed: no.', { revision: 'b2' })

describe('What was previewed', () => {
  test('stays word for word under whatever an apply tells', () => {
    const first = told('', preview)
    const shown = previewedIn(first)
    expect(shown).toContain(`Digest: \`${digestOfPlan(preview)}\``)
    expect(shown).toContain('CREATE TABLE t (id int);')
    let text = first
    for (const result of [
      applying,
      resultOf({ mode: 'apply', outcome: 'refused', plan: changed, failure: new Failure('plan-changed', 'No.') }),
      resultOf({ mode: 'apply', outcome: 'rolled-back', plan: two, failure }),
      resultOf({ mode: 'apply', outcome: 'up-to-date', plan: planOf([]) }),
      applied,
    ]) {
      text = told(text.replaceAll('\n', '\r\n').trimEnd(), result)
      expect(text).toContain(`<details><summary>The plan as it was previewed</summary>\n\n${shown}\n\n</details>`)
      expect(planHiddenIn(text.split('\n')[1]!, digestOfPlan(preview))).toEqual(digestedIn(preview))
    }
    expect(historyOf(text)).toEqual([
      expect.stringMatching(/^- 📋 \[preview\]: upgrade by 2 revisions, digest `sha256:\w{12}…`$/),
      expect.stringMatching(/^- ❌ \[apply\]: refused, nothing ran \(plan-changed\), digest/),
      expect.stringMatching(/^- ❌ \[apply\]: failed, everything rolled back \(migration-failed\), digest/),
      expect.stringMatching(/^- ✅ \[apply\]: upgraded by 2 revisions, digest/),
    ])
  })

  test('is not repeated by the plan that is applied, if that is the same one', () => {
    const text = told(told('', preview), applied)
    expect(text).not.toContain('not the plan that was previewed')
    expect(text.match(/CREATE TABLE t/g)).toHaveLength(2)
    expect(text).toContain('| 1 | `a1` | create customers | 1 | 0.01&nbsp;s | `a1.py` |')
  })

  test('is told from another plan that is applied: by what differs, and by both digests', () => {
    const other = { ...applied, plan: changed }
    const text = told(told('', preview), other)
    expect(text).toContain(
      `> This is not the plan that was previewed: the script of revision b2 changed. Its digest is \`${digestOfPlan(other)}\`, and the digest of that one is \`${digestOfPlan(preview)}\`.`,
    )
    expect(text.match(/CREATE TABLE t/g)).toHaveLength(4)
    const forgotten = told('', preview).replace(/\n<!-- atomic-upgrade-plan .*\n/, '\n\n')
    expect(told(forgotten, other)).toContain('> This is not the plan that was previewed. Its digest is ')
  })

  test('is replaced by a preview of another plan, and the runs before it stay listed', () => {
    const before = told(told('', preview), resultOf({ mode: 'apply', outcome: 'rolled-back', plan: two, failure }))
    const text = told(before, resultOf({ plan: changed }))
    expect(previewedIn(text)).toContain(digestOfPlan({ ...preview, plan: changed }))
    expect(text).not.toContain(digestOfPlan(preview))
    expect(historyOf(text)).toHaveLength(3)
    expect(historyOf(text)[2]).toMatch(/^- 📋 \[preview\]: upgrade by 2 revisions/)
    expect(previewedIn(told(text, applied))).toBe(previewedIn(text))
  })

  test('is no more, when a later preview fails or has nothing to do', () => {
    const first = told('', preview)
    const failed = told(first, resultOf({ outcome: 'refused', failure: new Failure('multiple-heads', 'Two.') }))
    expect(previewedIn(failed)).toBe('')
    expect(historyOf(failed)).toHaveLength(2)
    expect(previewedIn(told(first, resultOf({ outcome: 'up-to-date', plan: planOf([]) })))).toBe('')
  })

  test('need not be there: an apply that comes first shows its own plan, and another one in its place', () => {
    const text = told('', applied)
    expect(previewedIn(text)).toBe('')
    expect(text).toContain('CREATE TABLE t')
    const again = told(text, { ...applied, plan: changed })
    expect(again).not.toContain('previewed')
    expect(historyOf(again)).toHaveLength(2)
  })
})

test('the same preview again, by another run, changes nothing', () => {
  const first = told('', preview)
  expect(told(first.replaceAll('\n', '\r\n').trimEnd(), preview, `${runLink}2`)).toBe(first)
  const done = told(first, applied)
  expect(told(done, applied)).toBe(done)
  expect(historyOf(told(done, applied, `${runLink}2`))).toHaveLength(3)
})

test('the last ten runs are listed, and that there were more', () => {
  let text = told('', preview)
  for (let i = 0; i < 30; i++) text = told(text, applied, `${runLink}${i}`)
  const lines = text.split('<!-- atomic-upgrade-history -->\n')[1]!.trim().split('\n')
  expect(lines).toHaveLength(11)
  expect(lines[0]).toBe('- earlier runs are not listed')
  expect(lines[10]).toContain(`${runLink}29`)
  expect(told(text, applying)).toContain(lines.join('\n'))
})

test('an apply that went well is known by the last line', () => {
  const done = told(told('', preview), applied)
  expect(wasApplied(done)).toBe(true)
  for (const text of ['', told('', preview), told(done, resultOf({ plan: changed }))])
    expect(wasApplied(text)).toBe(false)
})

describe('Hostile text', () => {
  const marks = [
    '<!-- atomic-upgrade-previewed sha256:0 -->',
    '<!-- /atomic-upgrade-previewed -->',
    `<!-- atomic-upgrade-history -->\n- ✅ [apply](${runLink}): upgraded`,
    '- ✅ [apply](https://evil.example): upgraded',
    '</details>',
  ]
  const text = fc.oneof(
    hostile,
    fc.array(fc.constantFrom(...marks)).map(each => `\n\n${each.join('\n')}\n\n`),
  )
  const revisions: fc.Arbitrary<Revision[]> = fc.array(
    fc
      .record({ id: hostile, message: text, path: hostile, sql: fc.array(text, { maxLength: 3 }) })
      .map(({ id, message, path, sql }) =>
        revision({ id: `r${id}`, message, path, statements: sql.map(each => ({ sql: each, line: 1, own: false })) }),
      ),
    { minLength: 1, maxLength: 3 },
  )

  test('neither forges nor hides what was previewed, nor a run', () => {
    fc.assert(
      fc.property(revisions, revisions, text, (previewed, others, words) => {
        const statement = { sql: words, code: 'P0001', message: words }
        const refused = new Failure('migration-failed', words, { statement, advice: words })
        const failed = resultOf({ mode: 'apply', outcome: 'rolled-back', plan: planOf(others), failure: refused })

        const alone = told('', failed)
        expect(lifeOf(alone)).toMatchObject({ history: [expect.stringContaining('rolled back')] })
        expect(previewedIn(alone)).toBe('')

        const first = told('', resultOf({ plan: planOf(previewed) }))
        const shown = previewedIn(first)
        expect(shown).toMatch(/\nDigest: `sha256:\w{64}`\n\n<!-- \/atomic-upgrade-previewed -->$/)
        expect(lifeOf(first).history).toHaveLength(1)
        let comment = first
        for (const result of [failed, resultOf({ ...failed, plan: planOf(previewed) })]) {
          comment = told(comment, result)
          expect(previewedIn(comment)).toBe(shown)
          const isSame = lifeOf(first).previewed!.digest === digestOfPlan(result)
          const items = lifeOf(comment).history.length
          expectIntact(comment, { sections: previewed.length + 1 + (isSame ? 0 : others.length), items })
        }
        expect(lifeOf(comment).history).toHaveLength(digestOfPlan(failed) === lifeOf(comment).previewed!.digest ? 2 : 3)
      }),
      { numRuns: 100 },
    )
  })
})

describe('The limit', () => {
  const many = (length: number, sql: string) =>
    planOf(
      Array.from({ length }, (_, i) =>
        revision({ id: `rev${i}`, statements: [{ sql: `${sql} + ${i}`, line: 1, own: false }] }),
      ),
    )

  test('is kept by an apply as well, which leaves whole what was previewed', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 400 }),
        fc.integer({ min: 1, max: 400 }),
        fc.integer({ min: 0, max: 2_000 }),
        fc.constantFrom(10, 1_000, 100_000),
        fc.constantFrom('x', '<', '日'),
        (previewed, others, padding, words, letter) => {
          const sql = `SELECT ${'9'.repeat(padding)}`
          const first = told('', resultOf({ plan: many(previewed, sql) }))
          expect(first.length).toBeLessThanOrEqual(65_536)
          const message = letter.repeat(words)
          const broken = new Failure('migration-failed', message, {
            advice: message,
            statement: { sql: message, code: 'P0001', message, detail: message, hint: message },
          })
          const text = told(
            first,
            resultOf({ mode: 'apply', outcome: 'rolled-back', plan: many(others, sql), failure: broken }),
          )
          expect(text.length).toBeLessThanOrEqual(65_536)
          expect(previewedIn(text)).toBe(previewedIn(first))
          expectIntact(text, { items: 2 })
        },
      ),
      { numRuns: 20 },
    )
  })

  test('is kept where somebody has made the comment longer by hand', () => {
    const [head, tail] = told('', preview).split('Digest: ')
    const text = told(`${head}${'x'.repeat(64_000)}\nDigest: ${tail}`, applied)
    expect(text.length).toBeLessThanOrEqual(65_536)
    expect(text).toContain('upgraded by 2 revisions')
  })
})
