// Random calls, 100,000 in a long run, on every kind of descriptor: a result or a documented errno, and nothing left.
import { expect, it } from 'vitest'
import { CALLS_PER_CASE, ioctlSubject } from '../../fuzz/ioctl/subject.js'
import { often, PATIENCE } from '../support/long.js'

const CALLS = often(20_000, 100_000)
const SEEDS = Array.from({ length: 5 }, (_, i) => 1 + (i * CALLS) / CALLS_PER_CASE / 5)

it.each(SEEDS)(
  'random numbers and bytes are refused as documented, or obeyed: a fifth of the calls from seed %d',
  first => {
    const subject = ioctlSubject()
    let calls = 0
    for (let seed = first; calls < CALLS / SEEDS.length; seed++) {
      const { steps, failure } = subject.run(seed)
      expect(failure?.report).toBeUndefined()
      calls += steps
    }
  },
  PATIENCE,
)

it.each(['V7', 'V8', 'N13', 'L59', 'L512', 'L72'] as const)(
  'the same holds for profile %s',
  profile => {
    for (let seed = 1; seed <= often(1, 3); seed++)
      expect(ioctlSubject({ profile }).run(seed).failure?.report).toBeUndefined()
  },
)
