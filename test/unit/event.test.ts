import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { baseTips, mayHoldForeignScripts, pullRequestOf, readEvent } from '../../src/github/event'

const folder = mkdtempSync(join(tmpdir(), 'atomic-upgrade-event-'))

function read(content: string, name = 'pull_request') {
  const path = join(folder, 'event.json')
  writeFileSync(path, content)
  return readEvent({
    GITHUB_EVENT_PATH: path,
    GITHUB_EVENT_NAME: name,
    GITHUB_REPOSITORY: 'acme/shop',
    GITHUB_SHA: 'abc',
  })
}

describe('An event that is not what GitHub documents says nothing, and is taken for no other:', () => {
  test.each([
    'null',
    '[]',
    '"x"',
    '7',
    'true',
    '',
    '{"pull_request": {',
    '{"pull_request": null, "issue": 7, "merge_group": [], "workflow_run": "x"}',
    '{"pull_request": {"number": "7", "base": {"sha": "def"}}}',
    '{"issue": {"number": null, "pull_request": {}}}',
    '{"merge_group": {"head_ref": null}}',
    '{"workflow_run": {}}',
    '{"workflow_run": {"event": "push", "head_sha": 1}}',
    '{"workflow_run": {"event": "pull_request", "head_sha": "def", "pull_requests": [{}]}}',
    '{"workflow_run": {"event": "pull_request", "head_sha": "def", "head_repository": {"full_name": "a/b"}}}',
  ])('%s', content => {
    const event = read(content)
    expect(event.payload).toEqual({})
    expect(pullRequestOf(event)).toBeUndefined()
    const stranger = read(content, 'pull_request_target')
    expect(mayHoldForeignScripts(stranger)).toBe(true)
    expect(baseTips(stranger)).toEqual(['abc'])
  })

  test.each([join(folder, 'nowhere.json'), folder, '/dev/zero', ''])('the file “%s”', path => {
    expect(readEvent({ GITHUB_EVENT_PATH: path, GITHUB_EVENT_NAME: 'pull_request' }).payload).toEqual({})
  })
})

test('an event that is what GitHub documents is read', () => {
  const pull = read('{"pull_request": {"number": 7, "base": {"sha": "def"}, "title": "x"}}')
  expect([pullRequestOf(pull), baseTips(pull)]).toEqual([{ number: 7 }, ['abc', 'def']])
  expect(pullRequestOf(read('{"pull_request": {"number": 7}}'))).toEqual({ number: 7 })
  expect(pullRequestOf(read('{"issue": {"number": 8, "pull_request": {}}}'))).toEqual({ number: 8 })
  expect(pullRequestOf(read('{"issue": {"number": 8}}'))).toBeUndefined()
  expect(pullRequestOf(read('{"merge_group": {"head_ref": "refs/heads/gh-readonly-queue/main/pr-9-abc"}}'))).toEqual({
    number: 9,
  })
  const run = '"head_branch": "b", "head_repository": {"full_name": "fork/shop", "owner": {"login": "fork"}}'
  expect(pullRequestOf(read(`{"workflow_run": {"event": "pull_request", "head_sha": "def", ${run}}}`))).toEqual({
    head: 'def',
    from: 'fork:b',
  })
})
