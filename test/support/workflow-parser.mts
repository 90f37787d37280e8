import { registerHooks } from 'node:module'

/** GitHub's own parser of workflows and of action.yml, which imports its schemas as bundlers allow and Node does not. */
const hooks = registerHooks({
  load: (url, context, next) =>
    next(url, url.endsWith('.json') ? { ...context, importAttributes: { type: 'json' } } : context),
})
const { convertWorkflowTemplate, NoOperationTraceWriter, parseWorkflow } = await import('@actions/workflow-parser')
const { convertActionTemplate, parseAction } = await import('@actions/workflow-parser/actions/index')
hooks.deregister()

/** What GitHub would say of a workflow: syntax, schema, names in expressions, and how its jobs hang together. */
export async function workflowErrors(name: string, content: string): Promise<string[]> {
  const { context, value } = parseWorkflow({ name, content }, new NoOperationTraceWriter())
  if (value) await convertWorkflowTemplate(context, value)
  return context.errors.getErrors().map(error => error.message)
}

/** What GitHub would say of an action.yml. */
export function actionErrors(name: string, content: string): string[] {
  const { context, value } = parseAction({ name, content }, new NoOperationTraceWriter())
  if (value) convertActionTemplate(context, value)
  return context.errors.getErrors().map(error => error.message)
}
