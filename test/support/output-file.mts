/**
 * The step's outputs as the runner reads them from the file of GITHUB_OUTPUT (its FileCommandManager.cs, not on
 * Windows): `name=value`, or `name<<delimiter`, the value's lines, and the delimiter alone on a line. As there, a later
 * one replaces an earlier one. Throws where the runner would fail the step.
 */
export function readOutputs(file: string): Map<string, string> {
  const outputs = new Map<string, string>()
  let at = 0
  const nextLine = (): string | undefined => {
    if (at >= file.length) return undefined
    const end = file.indexOf('\n', at)
    const line = file.slice(at, end < 0 ? undefined : end)
    at = end < 0 ? file.length : end + 1
    return line
  }
  for (let line = nextLine(); line !== undefined; line = nextLine()) {
    if (line === '') continue
    const [equals, heredoc] = [line.indexOf('='), line.indexOf('<<')]
    if (equals >= 0 && (heredoc < 0 || equals < heredoc)) {
      outputs.set(line.slice(0, equals), line.slice(equals + 1))
      continue
    }
    const [name, delimiter] = [line.slice(0, heredoc), line.slice(heredoc + 2)]
    if (heredoc < 1 || delimiter === '') throw new Error(`Invalid format '${line}'`)
    const start = at
    let end = at
    for (let inner = nextLine(); inner !== delimiter; inner = nextLine()) {
      if (inner === undefined) throw new Error(`Matching delimiter not found '${delimiter}'`)
      end = at - 1
    }
    outputs.set(name, file.slice(start, Math.max(start, end)))
  }
  return outputs
}
