import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/failure'
import { digestOf } from '../../src/plan/digest'
import type { Revision } from '../../src/plan/plan'
import type { Outcome, Result } from '../../src/plan/result'
import {
  commentLimit,
  type Limit,
  marker,
  renderReport,
  type Surroundings,
  summaryLimit,
} from '../../src/report/comment'
import { planHiddenIn } from '../../src/report/hidden'
import { printable } from '../../src/report/markdown'
import { blocks } from './github'
import { hostile, planOf, resultOf, revision } from './hostile'
import { expectIntact, runLink } from './intact'
import { databaseOf, digestedIn, type Flat, nested, nothing } from './result'

const links = { run: runLink }

/** What stands on the pull request. */
const render = (result: Flat, surroundings: Surroundings = links, limit: Limit = commentLimit) =>
  renderReport({ ...nested(result), digested: digestedIn(result) }, surroundings, limit)

const outcomes: Outcome[] = ['up-to-date', 'previewed', 'rehearsed', 'applied', 'rolled-back', 'refused', 'in-doubt']

const hostileRevision: fc.Arbitrary<Revision> = fc
  .record({ id: hostile, message: hostile, path: hostile, sql: fc.array(hostile, { maxLength: 4 }), reason: hostile })
  .chain(({ id, message, path, sql, reason }) =>
    fc.constantFrom(
      revision({ id, message, path, statements: sql.map(each => ({ sql: each, line: 1, own: false })) }),
      revision({ id, message, path, notRenderable: { reason, line: 3 } }),
      revision({ id, message, path, notRenderable: { reason, line: null } }),
    ),
  )

const hostileFailure: fc.Arbitrary<Failure> = fc
  .record({ message: hostile, advice: hostile, revision: hostile, file: hostile, sql: hostile, detail: hostile })
  .chain(({ message, advice, revision, file, sql, detail }) =>
    fc.constantFrom(
      new Failure('internal', message),
      new Failure('render-failed', message, { advice, place: { file, line: null } }),
      new Failure('migration-failed', message, {
        advice,
        revision,
        place: { file, line: 3 },
        statement: { sql, code: '42P01', message, detail, hint: detail, position: 1 },
      }),
    ),
  )

const hostileResult: fc.Arbitrary<Flat> = fc
  .record({
    label: hostile.map(label => label.slice(0, 100)),
    outcome: fc.constantFrom(undefined, ...outcomes),
    revisions: fc.array(hostileRevision, { maxLength: 4 }),
    heads: fc.array(hostile, { maxLength: 2 }),
    failure: fc.option(hostileFailure, { nil: undefined }),
    timed: fc.boolean(),
  })
  .map(({ label, outcome, revisions, heads, failure, timed }) =>
    resultOf({
      label,
      ...(outcome && { outcome }),
      ...(failure && { failure }),
      plan: planOf(revisions, { priorHeads: heads, newHeads: heads }),
      priorHeads: heads,
      newHeads: heads,
      runs: timed ? revisions.slice(0, 2).map(({ id }) => ({ id, duration: 12, statements: 1 })) : [],
    }),
  )

describe('hostile text', () => {
  test('never gets out of the place that it was given', () => {
    fc.assert(
      fc.property(hostileResult, result => {
        const text = render(result)
        expectIntact(text, { sections: result.plan!.revisions.length })
        expect(text.length).toBeLessThanOrEqual(commentLimit.most)
      }),
      { numRuns: 400 },
    )
  })

  test('neither makes another row or cell of the table, nor hides one', () => {
    fc.assert(
      fc.property(hostileResult, result => {
        const all = blocks(render(result))
        const { revisions } = result.plan!
        const rows = all.filter(({ type }) => type === 'tr_open').length
        expect(rows).toBe(revisions.length === 0 ? 0 : revisions.length + 1)
        const [start, end] = [
          all.findIndex(({ type }) => type === 'tbody_open'),
          all.findIndex(({ type }) => type === 'tbody_close'),
        ]
        const cells = all.slice(start, end).filter(({ type }) => type === 'td_open').length
        expect(cells).toBe(revisions.length * (result.runs?.length ? 6 : 5))
      }),
      { numRuns: 400 },
    )
  })

  test('of several databases, of warnings and of what went wrong with the comment stays where it belongs', () => {
    const database = fc
      .record({
        bind: hostile,
        heads: fc.array(hostile, { maxLength: 2 }),
        revisions: fc.array(hostileRevision, { maxLength: 2 }),
      })
      .chain(({ bind, heads, revisions }) =>
        fc.record({ text: hostile, why: hostile, outcome: fc.constantFrom(null, ...outcomes) }).map(each =>
          databaseOf({
            bind: `b${bind}`,
            name: 'postgresql://db.example/shop',
            plan: planOf(revisions, { priorHeads: heads, newHeads: heads }),
            priorHeads: heads,
            newHeads: heads,
            forecast: {
              obstacles: revisions.map(revision => ({ revision, line: 3, text: each.text, why: each.why })),
              destructions: [],
              division: null,
            },
            outcome: each.outcome,
          }),
        ),
      )
    const several = fc.array(database, { minLength: 2, maxLength: 3 })
    fc.assert(
      fc.property(several, hostile, hostile, (databases, uncovered, problem) => {
        const revisions = databases.flatMap(({ plan }) => plan.revisions)
        const result: Result = {
          ...nothing,
          outcome: 'previewed',
          databases,
          uncovered,
          edited: revisions.map(({ id, path }, i) => ({ id, path, isGone: i % 2 === 0 })),
        }
        const text = renderReport(result, { ...links, problem }, commentLimit)
        const [sections, edited] = [revisions.length, revisions.length]
        expectIntact(text, { sections, items: databases.length + edited, lists: edited > 0 ? 2 : 1 })
        const count = (wanted: string) => blocks(text).filter(({ type }) => type === wanted).length
        expect(count('tr_open')).toBe(revisions.length === 0 ? 0 : revisions.length + 1)
        const unseen = revisions.some(({ notRenderable }) => notRenderable) ? 1 : 0
        const boxes = revisions.length + unseen + (edited > 0 ? 1 : 0) + (uncovered ? 1 : 0) + (problem ? 1 : 0)
        expect(count('blockquote_open')).toBe(boxes)
      }),
      { numRuns: 200 },
    )
  })

  test('of SQL is shown as it is, in a fence of its own', () => {
    fc.assert(
      fc.property(fc.array(hostile, { minLength: 1, maxLength: 3 }), texts => {
        const revisions = texts.map((sql, i) => revision({ id: `r${i}`, statements: [{ sql, line: 1, own: false }] }))
        const fences = blocks(render(resultOf({ plan: planOf(revisions) }))).filter(({ type }) => type === 'fence')
        expect(fences).toHaveLength(texts.length)
        for (const { info, content } of fences) {
          expect(info).toBe('sql')
          expect(content).toMatch(/;\n$/)
        }
      }),
      { numRuns: 400 },
    )
  })

  test('of a label stays in its marker, one marker for each label', () => {
    fc.assert(
      fc.property(hostile, hostile, (one, other) => {
        expect(marker(one)).toMatch(/^<!-- atomic-upgrade [\w.!~*'()%-]* -->$/)
        expect(blocks(`${marker(one)}\n\nafter`).map(({ type }) => type)[0]).toBe('html_block')
        fc.pre(printable(one) !== printable(other))
        expect(marker(one)).not.toBe(marker(other))
      }),
    )
  })
})

/** So many statements that the whole is never short. */
const batch = (
  revisions: number,
  statements: number,
  sql = 'UPDATE customers SET name = upper(name) WHERE id > 17',
): Revision[] =>
  Array.from({ length: revisions }, (_, i) =>
    revision({
      id: `rev${String(i).padStart(6, '0')}`,
      message: `change ${i}`,
      statements: Array.from({ length: statements }, (_, j) => ({ sql: `${sql} + ${j}`, line: j, own: false })),
    }),
  )

const shownSections = (text: string) =>
  [...text.matchAll(/^<details><summary><code>(\w+)<\/code>/gm)].map(([, id]) => id)
const listedRows = (text: string) => [...text.matchAll(/^\| \d+ \| `(\w+)`/gm)].map(([, id]) => id)

describe('the limit', () => {
  test('300 revisions and 3,000 statements: whole revisions are dropped from the end, with their number and a pointer', () => {
    const revisions = batch(300, 10)
    const ids = revisions.map(({ id }) => id)
    const text = render(resultOf({ plan: planOf(revisions) }))
    expect(text.length).toBeLessThanOrEqual(commentLimit.most)
    expect(text.length).toBeGreaterThan(commentLimit.most - 2_000)
    expectIntact(text)
    expect(listedRows(text)).toEqual(ids)
    const sections = shownSections(text)
    expect(sections.length).toBeGreaterThan(10)
    expect(sections).toEqual(ids.slice(0, sections.length))
    expect(text).toContain(
      `_The SQL of ${300 - sections.length} more revisions is not shown here: see the [summary of the run](${links.run}) and the file of the output \`sql-file\`._`,
    )
    const fences = blocks(text).filter(({ type }) => type === 'fence')
    expect(fences).toHaveLength(sections.length)
    for (const { content } of fences) expect(content.match(/;$/gm)).toHaveLength(10)
  })

  test('2,000 revisions: lines of the table are dropped too, after all SQL', () => {
    const revisions = batch(2_000, 1)
    const ids = revisions.map(({ id }) => id)
    const text = render(resultOf({ plan: planOf(revisions) }))
    expect(text.length).toBeLessThanOrEqual(commentLimit.most)
    expectIntact(text, { sections: 0 })
    const rows = listedRows(text)
    expect(rows.length).toBeGreaterThan(300)
    expect(rows).toEqual(ids.slice(0, rows.length))
    expect(text).toContain(`_${2_000 - rows.length} more revisions are not listed here, and no SQL is shown: see `)
  })

  test('one statement of 2 MB is left out as a whole, and the revisions before it are shown', () => {
    const [first, second, third] = batch(3, 1) as [Revision, Revision, Revision]
    second.statements = [{ sql: `INSERT INTO t VALUES ('${'x'.repeat(2 * 1024 * 1024)}')`, line: 1, own: false }]
    const result = resultOf({ plan: planOf([first, second, third]) })
    for (const limit of [commentLimit, summaryLimit]) {
      const text = render(result, links, limit)
      expect(limit.sizeOf(text)).toBeLessThanOrEqual(limit.most)
      expectIntact(text, { sections: 1 })
      expect(shownSections(text)).toEqual([first.id])
      expect(listedRows(text)).toEqual([first.id, second.id, third.id])
      expect(text).toContain('The SQL of 2 more revisions is not shown here')
    }
  })

  test('the summary takes a MiB, and has what the comment has not', () => {
    const result = resultOf({ plan: planOf(batch(300, 10)) })
    const text = render(result, links, summaryLimit)
    expect(shownSections(text)).toHaveLength(300)
    expect(text).not.toContain('not shown here')
    const larger = render(resultOf({ plan: planOf(batch(300, 100)) }), links, summaryLimit)
    expect(summaryLimit.sizeOf(larger)).toBeLessThanOrEqual(1024 * 1024)
    expect(shownSections(larger).length).toBeLessThan(300)
    expectIntact(larger)
  })

  test('the summary is measured in bytes, the comment in characters', () => {
    for (const letter of ['x', 'é', '日', '😀', '\u0001']) {
      const result = resultOf({ plan: planOf(batch(300, 20, letter.repeat(200))) })
      const summary = render(result, links, summaryLimit)
      expect(Buffer.byteLength(summary), letter).toBeLessThanOrEqual(1024 * 1024)
      expect(Buffer.byteLength(summary), letter).toBeGreaterThan(1024 * 1024 - 20_000)
      expectIntact(summary)
      const text = render(result)
      expect(text.length, letter).toBeLessThanOrEqual(65_536)
      expect(text.length, letter).toBeGreaterThan(65_536 - 10_000)
      expectIntact(text)
    }
  })

  test('is used to the last character', () => {
    const revisions = batch(30, 5)
    const result = resultOf({ plan: planOf(revisions) })
    const whole = render(result, links, { ...commentLimit, most: Number.MAX_SAFE_INTEGER })
    expect(shownSections(whole)).toHaveLength(30)
    expect(render(result, links, { ...commentLimit, most: whole.length })).toBe(whole)
    expect(shownSections(render(result, links, { ...commentLimit, most: whole.length - 1 }))).toHaveLength(29)
  })

  test('costs no more for being met: each revision’s SQL is looked at a few times at most, and not at all beyond it', () => {
    const looks: number[] = []
    const revisions = batch(3_000, 10).map((each, i) => {
      const { statements = [], ...rest } = each
      looks[i] = 0
      return {
        ...rest,
        get statements() {
          looks[i]!++
          return statements
        },
      }
    })
    const result = resultOf({ plan: planOf(revisions) })
    for (const limit of [commentLimit, summaryLimit]) {
      looks.fill(0)
      render(result, links, limit)
      expect(Math.max(...looks)).toBeLessThanOrEqual(6)
      expect(Math.max(...looks.slice(2_500))).toBeLessThanOrEqual(2)
    }
  })

  test('is kept for every length of a batch around it', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 0, max: 12 }),
        fc.integer({ min: 0, max: 3_000 }),
        fc.constantFrom(20_000, 40_000, 65_536),
        (revisions, statements, padding, most) => {
          const plan = planOf(batch(revisions, statements, `SELECT ${'9'.repeat(padding)}`))
          const text = render(resultOf({ plan }), links, { ...commentLimit, most })
          expect(text.length).toBeLessThanOrEqual(most)
          expectIntact(text)
        },
      ),
      { numRuns: 100 },
    )
  })

  test('is kept when names, messages, heads and errors are themselves longer than it', () => {
    for (const letter of ['<', '&', '|', '`', 'x', '@', '日', '😀', '\n#']) {
      const long = letter.repeat(100_000)
      const result = resultOf({
        label: letter.repeat(100).slice(0, 100),
        outcome: 'rolled-back',
        plan: planOf(
          [
            revision({ id: long, message: long, path: long }),
            revision({ id: 'b', notRenderable: { reason: long, line: 1 } }),
          ],
          {
            priorHeads: [long],
            newHeads: [long],
          },
        ),
        priorHeads: [long],
        newHeads: [long, long],
        failure: new Failure('migration-failed', long, {
          advice: long,
          revision: long,
          place: { file: long, line: 1 },
          statement: { sql: long, code: 'P0001', message: long, detail: long, hint: long, position: 50_000 },
        }),
      })
      const text = render(result)
      expect(text.length, letter).toBeLessThanOrEqual(commentLimit.most)
      expectIntact(text, { sections: 2 })
    }
  })
})

describe('the words', () => {
  test('the same result gives the same text, whenever and however often it is rendered', () => {
    fc.assert(
      fc.property(hostileResult, result => {
        const before = structuredClone({ ...result, failure: undefined })
        expect(render(result)).toBe(render(result))
        expect({ ...result, failure: undefined }).toEqual(before)
      }),
      { numRuns: 100 },
    )
    expect(render(resultOf())).not.toMatch(/\d{4}-\d\d-\d\d|\d\d:\d\d/)
  })

  test('the first line is the marker of the label, by which a later run finds its comment', () => {
    expect(render(resultOf({ label: 'staging' })).split('\n')[0]).toBe('<!-- atomic-upgrade staging -->')
  })

  test('without a run’s page or an SQL file, nobody is sent there', () => {
    const { sqlFile: _, ...result } = resultOf({ plan: planOf(batch(300, 10)) })
    expect(render(result)).toMatch(/is not shown here: see the \[summary of the run\]\([^)]*\)\._/)
    expect(render(result, { run: '' })).toMatch(/more revisions is not shown here\._/)
    expect(render(resultOf({ plan: planOf(batch(300, 10)) }), { run: '' })).toMatch(
      /: see the file of the output `sql-file`\._/,
    )
  })

  test('a script without SQL is counted, named and explained', () => {
    const unseen = (id: string) => revision({ id, notRenderable: { reason: 'it reads the database', line: 20 } })
    const one = render(resultOf({ plan: planOf([unseen('a'), revision({ id: 'b' })]) }))
    expect(one).toContain('> The SQL of 1 script is only known when it runs')
    expect(one).toContain('No SQL can be shown for this script: it reads the database (`migrations/versions/a.py:20`).')
    expect(one).toContain('| 1 | `a` | create customers | ? | `a.py` |')
    const two = render(resultOf({ plan: planOf([unseen('a'), unseen('b')]) }))
    expect(two).toContain('> The SQL of 2 scripts is only known when it runs')
    expect(render(resultOf())).not.toContain('[!NOTE]')
  })

  test('Alembic’s own bookkeeping is neither shown nor counted', () => {
    const own = { sql: "UPDATE alembic_version SET version_num='b'", line: null, own: true }
    const text = render(resultOf({ plan: planOf([revision({ id: 'b', statements: [own] })]) }))
    expect(text).toContain('– 0 statements</summary>\n\nThe script does nothing.')
    expect(text).not.toContain('alembic_version')
  })

  test('a failure names what failed, where, and what to do', () => {
    const failure = new Failure('migration-failed', 'Revision b failed: relation "x" does not exist.', {
      advice: 'Mend the script.',
      revision: 'b',
      place: { file: 'migrations/versions/b.py', line: 12 },
      statement: { sql: 'DROP TABLE x', code: '42P01', message: 'relation "x" does not exist', position: 12 },
    })
    const text = render(resultOf({ outcome: 'rolled-back', newHeads: ['aaa'], reread: true, failure }))
    expect(text).toContain('### ❌ Atomic Upgrade: failed, everything rolled back')
    expect(text).toContain('In `migrations/versions/b.py:12`.')
    expect(text).toContain('ERROR 42P01: relation "x" does not exist\nLINE 1: DROP TABLE x\n                   ^')
    expect(text).toContain('The database is at `aaa`, as before. The target was `bbb`.')
    expect(text).toContain('Mend the script.')
  })

  test('each outcome has its own sign', () => {
    const signs = outcomes.map(outcome => /^### (\S+)/m.exec(render(resultOf({ outcome })))![1])
    expect(signs).toEqual(['✅', '📋', '✅', '✅', '❌', '❌', '⚠️'])
  })

  test('how long each revision took is shown once it ran, and a dash where it did not', () => {
    const runs = [{ id: 'a', duration: 1_234, statements: 3 }]
    const plan = planOf([revision({ id: 'a' }), revision({ id: 'b' })])
    const text = render(resultOf({ outcome: 'rolled-back', plan, runs }))
    expect(text).toMatch(/\| 1 \| `a` \|.* \| 1\.23&nbsp;s \|/)
    expect(text).toMatch(/\| 2 \| `b` \|.* \| – \|/)
  })
})

describe('the plan that the comment hides', () => {
  const many = (length: number) =>
    resultOf({ plan: planOf(Array.from({ length }, (_, i) => revision({ id: `${i}`.padStart(12, '0') }))) })

  test('stands behind the marker, which stays the first line', () => {
    const result = many(3)
    const digested = digestedIn(result)
    const [first, second, third] = render(result).split('\n')
    expect([first, third]).toEqual([marker(''), expect.stringMatching(/^### /)])
    expect(planHiddenIn(second!, digestOf(digested))).toEqual(digested)
  })

  test('is left out where it would take the place of what people read', () => {
    expect(render(many(150))).toContain('<!-- atomic-upgrade-plan')
    const text = render(many(400))
    expect(text).not.toContain('<!-- atomic-upgrade-plan')
    expect(text.length).toBeLessThanOrEqual(commentLimit.most)
  })

  test('is not there when nothing is to be done', () => {
    expect(render(resultOf({ plan: planOf([]), outcome: 'up-to-date' }))).not.toContain('atomic-upgrade-plan')
  })
})
