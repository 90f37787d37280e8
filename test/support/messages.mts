import { execFileSync } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { python } from './project.mts'
import { root } from './runner.mts'

/** A text that the product can print, with … where it fills something in. */
export interface Message {
  /** The failure-reason that it comes with, where the source says so in the same place. */
  reason: string | undefined
  text: string
  file: string
}

/** What ends in a failure's message, and which of its arguments it is. */
const makers: Record<string, { argument: number; reason?: string }> = {
  Failure: { argument: 1 },
  mistake: { argument: 0, reason: 'invalid-input' },
  invalid: { argument: 0, reason: 'invalid-input' },
  refused: { argument: 0, reason: 'plan-changed' },
}

/** The messages of failures in src/, from the source itself. */
export function messages(): Message[] {
  const files = (pattern: string) => globSync(pattern, { cwd: root }).sort()
  return [...files('src/**/*.ts').flatMap(inTypeScript), ...inPython(files('src/alembic/atomic_upgrade/*.py'))].filter(
    ({ text }) => /\w{3,}/.test(text),
  )
}

function inTypeScript(file: string): Message[] {
  const found: Message[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) || ts.isNewExpression(node)) {
      const maker = ts.isIdentifier(node.expression) ? makers[node.expression.text] : undefined
      const [first, message] = [node.arguments?.[0], maker && node.arguments?.[maker.argument]]
      const reason = maker?.reason ?? (first && ts.isStringLiteral(first) ? first.text : undefined)
      if (message) for (const text of textsOf(message)) found.push({ reason, text, file })
    }
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(file, readFileSync(join(root, file), 'utf8'), ts.ScriptTarget.Latest))
  return found
}

/** Every text that an expression can be, as far as it is written there. */
function textsOf(node: ts.Expression): string[] {
  if (ts.isStringLiteralLike(node)) return [node.text]
  if (ts.isParenthesizedExpression(node)) return textsOf(node.expression)
  if (ts.isConditionalExpression(node)) return [...textsOf(node.whenTrue), ...textsOf(node.whenFalse)]
  if (ts.isTemplateExpression(node))
    return [node.head.text + node.templateSpans.map(({ literal }) => `…${literal.text}`).join('')]
  if (ts.isBinaryExpression(node))
    return textsOf(node.left).flatMap(left => textsOf(node.right).map(right => left + right))
  // sentence(…) adds no more than a full stop.
  if (ts.isCallExpression(node) && node.arguments[0] && ts.isIdentifier(node.expression))
    return textsOf(node.arguments[0])
  return ['…']
}

/** Failures, refusals of connections, and the reasons why a script has no SQL to show. */
const readPython = `
import ast, json, re, sys

def text_of(node, names):
    if isinstance(node, ast.BinOp):
        return text_of(node.left, names)
    if isinstance(node, ast.Name):
        return names.get(node.id)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None

def constants(body):
    return {
        node.targets[0].id: node.value.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }

makers = {"Failed": 1, "RuntimeError": 0, "refuse": 0, "watch": 1, "say_why": 1}
found, trees = [], {file: ast.parse(open(file, encoding="utf-8").read()) for file in sys.argv[1:]}
shared = {name: text for tree in trees.values() for name, text in constants(tree.body).items()}
for file, tree in trees.items():
    for scope in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)] :
        names = {**shared, **constants(ast.walk(scope))}
        for node in ast.walk(scope):
            if not isinstance(node, ast.Call):
                continue
            maker = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if maker not in makers:
                continue
            for text in [text_of(each, names) for each in node.args[makers[maker] : makers[maker] + 1]]:
                if text:
                    reason = {"Failed": text_of(node.args[0], names), "RuntimeError": maker} if node.args else {}
                    found.append([reason.get(maker, "NotRenderable"), re.sub("%[sr]", "…", text), file])
print(json.dumps(found))
`

function inPython(files: string[]): Message[] {
  const told = execFileSync(python, ['-c', readPython, ...files], { cwd: root, encoding: 'utf8' })
  return (JSON.parse(told) as [string | null, string, string][]).map(([maker, text, file]) => {
    // A script's own error, and a refused connection in it, end as migration-failed.
    const reason = { NotRenderable: 'not renderable', RuntimeError: 'migration-failed', script: 'migration-failed' }
    return { reason: maker === null ? undefined : (reason[maker as keyof typeof reason] ?? maker), text, file }
  })
}
