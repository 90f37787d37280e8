import { defineConfig } from 'vitest/config'

/** The long walk of script/connections. */
export default defineConfig({
  root: new URL('../..', import.meta.url).pathname,
  test: {
    include: ['test/connections/*.long.ts'],
    globalSetup: ['test/support/setup.mts'],
    setupFiles: ['test/support/tidy.mts'],
    testTimeout: 4 * 3_600_000,
    disableConsoleIntercept: true,
  },
})
