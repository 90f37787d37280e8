import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/setup.mts'],
    setupFiles: ['test/support/tidy.mts'],
    // A step starts Node and Python; a machine under load takes its time.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    maxWorkers: 4,
  },
})
