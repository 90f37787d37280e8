import { afterAll, describe, expect, test } from 'vitest'
import { Reader } from '../../src/alembic/reader'
import { python } from '../support/project.mts'

const reader = new Reader({
  python: [python],
  workingDirectory: process.cwd(),
  environment: { PYTHONPATH: '/nowhere' },
  signal: new AbortController().signal,
})
afterAll(() => reader.kill())

const read = async (source: string) => (await reader.read([Buffer.from(source)]))[0]!

test('what Alembic’s template writes, of any age, is read', async () => {
  const source = `"""add a column

Create Date: 2026-01-01
"""
from typing import Sequence, Union
from app.models import *

revision: str = "b2"
down_revision: Union[str, Sequence[str], None] = ("a1", u"a2")
branch_labels = None
depends_on: Union[str, None] = ["x"]


def upgrade():
    revision = op.get_bind()
    [revision for revision in ()]
`
  expect(await read(source)).toEqual({
    values: { revision: 'b2', down_revision: ['a1', 'a2'], branch_labels: null, depends_on: ['x'] },
    computed: [],
    doc: 'add a column\n\nCreate Date: 2026-01-01\n',
  })
  expect(await read('revision, down_revision = "a", None')).toMatchObject({
    values: { revision: 'a', down_revision: null },
    computed: [],
  })
})

describe('only running it tells:', () => {
  test.each([
    ['revision = make_id()\ndown_revision = None', 'revision'],
    ['revision = f"{1}"\ndown_revision = None', 'revision'],
    ['revision = 7\ndown_revision = None', 'revision'],
    ['down_revision = None', 'revision'],
    ['revision = "a"', 'down_revision'],
    ['from ids import revision\ndown_revision = None', 'revision'],
    ['import x as down_revision\nrevision = "a"', 'down_revision'],
    ['revision = "a"\ndown_revision = "b"\nif x: down_revision = "c"', 'down_revision'],
    ['revision = "a"\ndown_revision = "b"\ndown_revision += "c"', 'down_revision'],
    ['revision = "a"\ndown_revision = "b"\nfor depends_on in (): pass', 'depends_on'],
    ['revision = "a"\ndown_revision = "b"\n(branch_labels := "c")', 'branch_labels'],
    ['revision = "a"\ndown_revision = "b"\ndel revision', 'revision'],
    ['revision = "a"\ndown_revision = "b"\ndef depends_on(): pass', 'depends_on'],
    ['revision = "a"\ndown_revision = "b"\ndef change():\n    global revision\n    revision = "z"', 'revision'],
    ['revision = "a"\ndown_revision = "b"\ntry: pass\nexcept E as revision: pass', 'revision'],
    ['revision = "a"\ndown_revision = ids.parent', 'down_revision'],
  ])('%s', async (source, name) => {
    expect((await read(source)).computed).toEqual([name])
  })

  test.each(['this is no Python', '\0', `${'('.repeat(5000)}`])('%j', async source => {
    expect((await read(source)).computed).toHaveLength(4)
  })
})
