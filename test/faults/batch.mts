import { contents } from '../support/database.mts'
import { query, type Server } from '../support/postgres.mts'
import { python, writeProject } from '../support/project.mts'
import { runStep, type Step, type StepOptions } from '../support/runner.mts'

/** The heads before and after the batch. */
export const [oldHead, newHead] = ['a0', 'f5']

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

/** The project, a database that stands before the batch, and what databases hold before and after it. */
export interface Batch {
  server: Server
  workspace: string
  before: string
  after: string
  /** Where the user's Python writes its process id, in the folder that the environment's FAULTS_FOLDER names. */
  pidFile: string
  /** A new database that stands before the batch. */
  fresh(): Promise<string>
  drop(url: string): Promise<void>
  apply(url: string, options?: Partial<StepOptions>): Promise<Step>
}

export async function prepareBatch(server: Server): Promise<Batch> {
  const pidFile = 'python.pid'
  const workspace = writeProject({
    scripts,
    app: `
if "FAULTS_FOLDER" in os.environ:
    with open(os.path.join(os.environ["FAULTS_FOLDER"], "${pidFile}.new"), "w") as file:
        file.write(str(os.getpid()))
    os.rename(file.name, os.path.join(os.environ["FAULTS_FOLDER"], "${pidFile}"))`,
  })
  const inputs = { mode: 'apply', comment: 'false', python }
  const apply: Batch['apply'] = (url, options) =>
    runStep({ workspace, ...options, inputs: { ...inputs, 'database-url': url, ...options?.inputs } })
  const applied = async (url: string, revision: string) => {
    const step = await apply(url, { inputs: { revision } })
    if (step.outputs.outcome !== 'applied') throw new Error(`Without faults, ${revision} is not applied:\n${step.log}`)
    return contents(url)
  }
  const template = await server.create('before_the_batch')
  const before = await applied(template, oldHead)
  const admin = server.url('postgres')
  let created = 0
  const fresh = async () => {
    const name = `batch_${++created}`
    await query(admin, `CREATE DATABASE ${name} TEMPLATE before_the_batch`)
    return server.url(name)
  }
  const drop = async (url: string) => {
    await query(admin, `DROP DATABASE ${new URL(url).pathname.slice(1)} WITH (FORCE)`)
  }
  const once = await fresh()
  const after = await applied(once, newHead)
  await drop(once)
  return { server, workspace, before, after, pidFile, fresh, drop, apply }
}
