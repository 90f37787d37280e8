/** The anchor of a heading, as GitHub makes it. */
export const slug = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-')

/** Text that stands for itself. */
export const prose = (text: string): string => text.replaceAll(/[_*|<>[\]`]/g, '\\$&')

/** Text in a code span, in a table too. */
export const code = (text: string): string => `\`${text.replaceAll('`', "'").replaceAll('|', '\\|')}\``

/** A link to a heading of the same page. */
export const link = (heading: string): string => `[${prose(heading)}](#${slug(heading)})`

export const table = (head: string[], rows: string[][]): string =>
  [head, head.map(() => '---'), ...rows].map(row => `| ${row.join(' | ')} |`).join('\n')
