// Makes a test runner ready for benches: matchers for `expect`, and the leak check after each test.
import { checkBenches } from './bench.js'
import { matchers } from './matchers.js'

/** What is needed of vitest (or of a runner with the same words). */
export interface TestRunner {
  readonly expect: { extend(matchers: never): void }
  readonly afterEach: (hook: () => void) => void
}

/**
 * Adds the matchers to `expect`, and checks after each test that its benches hold nothing once their processes
 * have ended. Call it at the top of a test file or in a setup file.
 *
 * @example
 * import { afterEach, expect } from 'vitest'
 * install({ afterEach, expect })
 */
export function install({ expect, afterEach }: TestRunner): void {
  expect.extend(matchers as never)
  afterEach(checkBenches)
}
