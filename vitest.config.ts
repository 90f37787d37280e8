import { relative } from 'node:path'
import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/**
 * The files that take longest, as measured, the longest first: what begins last decides when all of it ends. Behind
 * them come the others, and the quick ones, of test/unit, where nothing else is left.
 */
const longest = [
  'action/several-databases-commit',
  'action/situations',
  'action/trust-layouts',
  'action/projects',
  'action/plan-file',
  'faults/short-walk-segments',
  'action/tampering',
  'action/story',
  'action/publish',
  'faults/short-walk',
  'faults/short-walk-several',
].map(name => `test/${name}.test.ts`)

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const path = relative(import.meta.dirname, moduleId)
      if (path.startsWith('test/unit')) return longest.length + 1
      return longest.includes(path) ? longest.indexOf(path) : longest.length
    }
    return (await super.sort(files)).sort((one, other) => rank(one) - rank(other))
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/setup.mts'],
    setupFiles: ['test/support/tidy.mts'],
    // A step starts Node and Python; a machine under load takes its time.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    maxWorkers: 4,
    // What a file imports is imported once in a worker and not in each file: that took longer than most tests of test/unit.
    isolate: false,
    sequence: { sequencer: LongestFirst },
  },
})
