/** Three digits are as much as a median is worth. */
export const milliseconds = (value: number): string => {
  const rounded = Math.abs(value) >= 1000 ? Math.round(value / 10) * 10 : Math.round(value)
  return `${rounded.toLocaleString('en')} ms`
}

export const mebibytes = (value: number): string => `${Math.round(value).toLocaleString('en')} MiB`

/** Takes bytes. */
export const megabytes = (value: number): string => `${(value / 1e6).toFixed(1)} MB`

export const factor = (value: number): string => `${value.toFixed(2)} ×`
