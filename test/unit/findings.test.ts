import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { chapters } from '../findings/chapters.mts'
import { allFindings, differences, type Findings, verdictOf } from '../findings/finding.mts'
import { answer, page } from '../findings/page.mts'
import { root } from '../support/runner.mts'

const read = (path: string) => readFileSync(join(root, path), 'utf8')
const findings = JSON.parse(read('docs/findings.json')) as Findings

test('docs/findings.md is what docs/findings.json says', () => {
  expect(read('docs/findings.md')).toBe(page(findings))
})

test('every scenario has its finding, and the other way round', () => {
  const played = chapters.map(({ title, scenarios }) => [title, scenarios.map(({ name }) => name)])
  expect(findings.chapters.map(({ title, findings }) => [title, findings.map(each => each.scenario)])).toEqual(played)
  const names = allFindings(findings).map(({ scenario }) => scenario)
  expect(new Set(names).size).toBe(names.length)
})

test('with the action nothing went wrong, here and on other versions', () => {
  for (const finding of allFindings(findings)) expect(verdictOf(finding, 'action'), finding.scenario).not.toBe('wrong')
  for (const { name, different } of findings.matrix)
    for (const told of Object.values(different)) expect(told, name).not.toMatch(/action: wrong/)
})

test('a finding that changes is told, and gets onto the page', () => {
  const changed = structuredClone(findings)
  const finding = allFindings(changed).find(({ scenario }) => scenario === 'Single migration in set fails')!
  finding.ways.action = { ...finding.ways.action, holds: 'changed' }
  expect(differences(allFindings(findings), allFindings(changed))).toEqual([
    {
      scenario: 'Single migration in set fails',
      was: expect.stringContaining('action: right (unchanged, exit 1)'),
      is: expect.stringContaining('action: wrong (changed, exit 1)'),
    },
  ])
  expect(answer(changed)).toContain(`With this action, 1 of ${allFindings(findings).length} went wrong`)
})
