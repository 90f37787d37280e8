import { defineConfig } from 'vitest/config'

/** The tests of script/faults: they take minutes, or need what script/bootstrap does not bring. */
export default defineConfig({
  root: new URL('../..', import.meta.url).pathname,
  test: {
    include: ['test/faults/*.long.ts'],
    globalSetup: ['test/support/setup.mts'],
    setupFiles: ['test/support/tidy.mts'],
    testTimeout: 300_000,
    hookTimeout: 120_000,
    maxWorkers: 2,
  },
})
