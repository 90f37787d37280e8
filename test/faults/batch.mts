import { contents } from '../support/database.mts'
import { query, type Server } from '../support/postgres.mts'
import { python, writeProject } from '../support/project.mts'
import { runStep, type Step, type StepOptions } from '../support/runner.mts'

/** The heads before and after the batch. */
export const [oldHead, newHead] = ['a0', 'f5']

/** The names of the databases, as many as there are. */
const binds = ['default', 'reporting', 'archive']

/** Five revisions on top of `a0`, with DDL and rows, one of which reads the database. */
const scripts = [
  {
    id: oldHead,
    upgrade: `
op.execute("CREATE TABLE accounts (id int PRIMARY KEY, email text NOT NULL, plan text)")
op.execute("INSERT INTO accounts VALUES (1, 'ada@example.com', 'free'), (2, 'bob@example.com', 'paid')")`,
  },
  {
    id: 'b1',
    upgrade: `
op.create_table("invoices", sa.Column("id", sa.Integer, primary_key=True), sa.Column("account", sa.Integer, sa.ForeignKey("accounts.id")))
op.execute("INSERT INTO invoices SELECT id * 10, id FROM accounts")`,
  },
  { id: 'c2', upgrade: `op.execute("UPDATE accounts SET plan = 'basic' WHERE plan = 'free'")` },
  {
    id: 'd3',
    upgrade: `
for (email,) in op.get_bind().execute(sa.text("SELECT email FROM accounts ORDER BY id")).fetchall():
    op.execute(f"INSERT INTO accounts SELECT max(id) + 1, 'copy-of-{email}' FROM accounts")`,
  },
  { id: 'e4', upgrade: 'op.create_index("accounts_email", "accounts", ["email"], unique=True)' },
  { id: newHead, upgrade: 'op.execute("DELETE FROM invoices WHERE id = 20")\nop.drop_column("accounts", "plan")' },
]

/** The same in three segments: the index is built on its own. */
const index = 'CREATE UNIQUE INDEX CONCURRENTLY accounts_email ON accounts (email)'
const inSegments = scripts.map(script =>
  script.id === 'e4'
    ? { ...script, upgrade: `with op.get_context().autocommit_block():\n    op.execute("${index}")` }
    : script,
)

/** A place between two segments where the batch may stop. */
export interface Stop {
  name: string
  head: string
  contents: string
  /** How many segments are committed there. */
  committed: number
}

/** The project, and what its databases hold before and after the batch; where there are several, in the order of the binds. */
export interface Batch {
  servers: Server[]
  binds: string[]
  workspace: string
  before: string
  after: string
  /** Only where it runs in segments. */
  stops: Stop[]
  /** Where each run of the user's Python writes its process id, a line each, in the folder that the environment's FAULTS_FOLDER names. */
  pidFile: string
  /** New databases that stand before the batch: a URL for each bind, the servers in turn. */
  fresh(): Promise<string[]>
  drop(urls: string[]): Promise<void>
  apply(urls: string[], options?: Partial<StepOptions>): Promise<Step>
}

/** One database, or several, on one server or on several; or one in three segments. */
export async function prepareBatch(servers: Server[], databases = 1, segments = false): Promise<Batch> {
  const pidFile = 'python.pid'
  const workspace = writeProject({
    scripts: segments ? inSegments : scripts,
    binds: binds.slice(1, databases),
    app: `
if "FAULTS_FOLDER" in os.environ:
    with open(os.path.join(os.environ["FAULTS_FOLDER"], "${pidFile}"), "a") as file:
        file.write("%d\\n" % os.getpid())`,
  })
  const used = binds.slice(0, databases)
  const serverOf = (index: number) => servers[index % servers.length]!
  const inputs = { mode: 'apply', comment: 'false', python, segments: String(segments) }
  const apply: Batch['apply'] = (urls, options) => {
    const url = urls.length === 1 ? urls[0]! : urls.map((each, i) => `${used[i]}=${each}`).join('\n')
    return runStep({ workspace, ...options, inputs: { ...inputs, 'database-url': url, ...options?.inputs } })
  }
  const applied = async (urls: string[], revision: string) => {
    const step = await apply(urls, { inputs: { revision } })
    if (step.outputs.outcome !== 'applied') throw new Error(`Without faults, ${revision} is not applied:\n${step.log}`)
    const found = await Promise.all(urls.map(contents))
    if (found.some(each => each !== found[0])) throw new Error('Without faults, the databases do not hold the same.')
    return found[0]!
  }
  const template = (index: number) => `before_the_batch_${index}`
  const before = await applied(
    await Promise.all(used.map((_, index) => serverOf(index).create(template(index)))),
    oldHead,
  )
  const stopsOf = async (urls: string[]): Promise<Stop[]> => {
    const first = await applied(urls, 'd3')
    await query(urls[0]!, index)
    const second = await contents(urls[0]!)
    await drop(urls)
    const invalid = second.replace(/^(index .*accounts_email.*) \| true$/m, '$1 | false')
    if (invalid === second) throw new Error('The index is not in what the database holds.')
    return [
      { name: 'first', head: 'd3', contents: first, committed: 1 },
      { name: 'invalid', head: 'd3', contents: invalid, committed: 1 },
      { name: 'second', head: 'd3', contents: second, committed: 2 },
    ]
  }
  let created = 0
  const fresh = () => {
    created++
    return Promise.all(
      used.map(async (_, index) => {
        const name = `batch_${created}_${index}`
        await query(serverOf(index).url('postgres'), `CREATE DATABASE ${name} TEMPLATE ${template(index)}`)
        return serverOf(index).url(name)
      }),
    )
  }
  const drop = async (urls: string[]) => {
    for (const [index, url] of urls.entries()) {
      for (const { gid } of await preparedIn(url)) await query(url, `ROLLBACK PREPARED '${gid}'`)
      await query(serverOf(index).url('postgres'), `DROP DATABASE ${new URL(url).pathname.slice(1)} WITH (FORCE)`)
    }
  }
  const stops = segments ? await stopsOf(await fresh()) : []
  const once = await fresh()
  const after = await applied(once, newHead)
  await drop(once)
  return { servers, binds: used, workspace, before, after, stops, pidFile, fresh, drop, apply }
}

/** The prepared transactions of a database. */
export async function preparedIn(url: string): Promise<{ gid: string; id: string }[]> {
  const { rows } = await query(
    url,
    'SELECT gid, transaction::text AS id FROM pg_prepared_xacts WHERE database = current_database()',
  )
  return rows as { gid: string; id: string }[]
}
