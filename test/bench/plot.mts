import { type Figures, median } from './figures.mts'
import { milliseconds } from './units.mts'

const [width, left, right, bar, gap] = [900, 270, 190, 16, 10]

/** One group of bars for each race and one for the action's own cost, each to its own scale, as an SVG. */
export function plot({ races, own }: Figures): string {
  const groups = [
    ...races.map(({ title, rows }) => ({ title, bars: rows.map(({ name, times }) => ({ name, times })) })),
    { title: 'The action’s own CPU time', bars: own.map(({ batch, cpu }) => ({ name: batch, times: cpu })) },
  ].filter(({ bars }) => bars.length > 0)
  let y = 10
  const parts = groups.flatMap(({ title, bars }) => {
    const most = Math.max(...bars.flatMap(({ times }) => times))
    const x = (time: number) => round(left + (time / most) * (width - left - right))
    y += 24
    const heading = text(10, y, title, 'class="title"')
    const drawn = bars.flatMap(({ name, times }) => {
      y += bar + gap
      const [middle, first] = [median(times), median(bars[0]!.times)]
      const [low, high] = [x(Math.min(...times)), x(Math.max(...times))]
      const line = y - bar / 2 + 3
      return [
        text(left - 8, y, name, 'text-anchor="end"'),
        `<rect x="${left}" y="${y - bar + 3}" width="${round(x(middle) - left)}" height="${bar}" class="${name.startsWith('the action') ? 'ours' : 'other'}"/>`,
        `<path d="M${low} ${line}H${high}M${low} ${line - 4}v8M${high} ${line - 4}v8" class="spread"/>`,
        text(Math.max(x(middle), high) + 8, y, `${milliseconds(middle)} · ${(middle / first).toFixed(2)} ×`, ''),
      ]
    })
    y += 18
    return [heading, ...drawn]
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y}" viewBox="0 0 ${width} ${y}" role="img">
<title>The times of every contestant</title>
<style>
text { font: 13px sans-serif; fill: #1f2328 }
.title { font-weight: bold; font-size: 14px }
.ours { fill: #0969da }
.other { fill: #afb8c1 }
.spread { stroke: #1f2328; fill: none }
</style>
<rect width="100%" height="100%" fill="#ffffff"/>
${parts.join('\n')}
</svg>
`
}

const text = (x: number, y: number, words: string, attributes: string): string =>
  `<text x="${round(x)}" y="${y}" ${attributes}>${words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')}</text>`

const round = (value: number): number => Math.round(value * 10) / 10
