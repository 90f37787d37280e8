import { expect, test } from 'vitest'
import { createDatabase, start } from '../support/action.mts'
import { query } from '../support/postgres.mts'
import { writeProject } from '../support/project.mts'

test('an app that lets no second one run beside it has each run to itself', async () => {
  const url = await createDatabase()
  const app = `import fcntl
lock = open("app.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)`
  const folder = writeProject({ scripts: [{ id: 'a1', upgrade: 'op.execute("CREATE TABLE t (n int)")' }], app })
  const step = await start(folder, url, { mode: 'apply', comment: 'false' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied', 'new-head': 'a1' })
  expect((await query(url, 'SELECT FROM t')).rowCount).toBe(0)
})

test('what the app prints is told once, though it is loaded for each run', async () => {
  const url = await createDatabase()
  const app = 'print("the app is here")'
  const folder = writeProject({ scripts: [{ id: 'a1', upgrade: 'pass' }], app })
  const step = await start(folder, url, { mode: 'apply', comment: 'false' })
  expect(step.outputs, step.log).toMatchObject({ outcome: 'applied' })
  expect(step.log.match(/the app is here/g)).toHaveLength(1)
})
