import type { Plan, RenderedStatement } from '../plan/plan'
import type { Importing, PriorHeads, Request, Unrendered } from './project'
import { PythonRun } from './python-run'

/** The run that plans the batch, and renders it without a database (`--sql`, Alembic's offline mode). */
export class DryRun extends PythonRun {
  /** Resolves the target by Alembic's rules: the batch of each database, without its SQL. */
  async resolve({ direction, target, databases }: Request<PriorHeads>): Promise<Map<string, Plan>> {
    this.process.send({ resolve: { direction, target, databases } })
    const { resolved } = await this.process.answer()
    if (!resolved) throw this.process.unexpected()
    const plans = Object.entries(resolved).map(([bind, { prior, new: newHeads, revisions: ids }]): [string, Plan] => {
      const revisions = ids.map(({ id, heads }) => {
        const script = this.process.project?.scripts.get(id)
        if (!script) throw this.process.unexpected()
        return { ...script, heads }
      })
      return [bind, { direction, target, priorHeads: prior, newHeads, revisions }]
    })
    return new Map(plans)
  }

  /** Imports the scripts, and renders the batch of each database: the same plans with their SQL. */
  async render({ direction, target, databases, imported }: Importing<Unrendered>): Promise<Map<string, Plan>> {
    const asked = Object.entries(databases).map(([bind, { plan, versionTableExists: version_table_exists }]) => {
      return [bind, { heads: plan.priorHeads, version_table_exists, revisions: plan.revisions.map(({ id }) => id) }]
    })
    const plan = { direction, target, databases: Object.fromEntries(asked) }
    this.process.send({ plan, import: this.numbersOf(imported) })
    const statements: RenderedStatement[] = []
    let answer = await this.process.answer()
    for (; answer.statement; answer = await this.process.answer()) statements.push(answer.statement)
    const { planned } = answer
    if (!planned) throw this.process.unexpected()
    const plans = Object.entries(databases).map(([bind, { plan }]): [string, Plan] => {
      const rendered = new Map(planned[bind]?.revisions.map(each => [each.id, each]))
      const revisions = plan.revisions.map(revision => {
        const found = rendered.get(revision.id)
        if (!found) throw this.process.unexpected()
        const {
          id: _,
          statements: [from, to],
          reason,
          line,
          ...source
        } = found
        if (reason === null) return { ...revision, statements: statements.slice(from, to) }
        return { ...revision, notRenderable: { reason, line }, ...source }
      })
      return [bind, { ...plan, revisions }]
    })
    return new Map(plans)
  }
}
