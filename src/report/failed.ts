import type { Failure, Place } from '../failure'
import { code, fenced, prose, proseWithCode } from './markdown'
import { clip, describeStatement, messageLength, nameLength, paragraphLength } from './words'

/** What went wrong, where, and what to do. */
export function failed({ message, details }: Failure): string {
  const { place, advice, revision, statement } = details
  const [first, rest] = firstSentence(clip(message, paragraphLength)).map(prose)
  const named = revision && !message.includes(revision) && `revision ${code(clip(revision, nameLength))}`
  // A message that names the file needs no more than that.
  const where = place && (place.line !== null || !message.includes(place.file)) && placeOf(place)
  const script = [named, where].filter(Boolean).join(', ')
  const told = [first && `**${first}**`, rest, script && `In ${script}.`]
  const lines = [
    told.filter(Boolean).join(' '),
    statement && fenced(describeStatement(statement), 'text'),
    advice && proseWithCode(clip(advice, paragraphLength)),
  ]
  return lines.filter(Boolean).join('\n\n')
}

/** The first sentence and what follows it. */
function firstSentence(text: string): string[] {
  const end = /[.!?]\s+(?=[A-Z“])/.exec(text)
  return end ? [text.slice(0, end.index + 1), text.slice(end.index + 1)] : [text]
}

/** A line of a script, as code. */
export function placeOf({ file, line }: Place): string {
  return code(`${clip(file, messageLength)}${line === null ? '' : `:${line}`}`)
}
