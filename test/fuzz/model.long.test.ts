// A fixed run of the model-based fuzzer, and the defect that it must find.
import { describe, expect, it } from 'vitest'
import { type CaseResult, runCase } from '../../fuzz/cases.js'
import { modelSubject } from '../../fuzz/subjects.js'
import type { Domain, IommuDriver } from '../../src/iommu/domain.js'
import { standIn } from '../../src/testing/stand-in.js'
import { often, PATIENCE } from '../support/long.js'

const COMMANDS = 120
/** Programs of a block. */
const PROGRAMS = often(8, 40)

function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined
  return () => {
    made ??= { value: make() }
    return made.value
  }
}

describe('the product does what the model says', () => {
  const blocks = [1, 41, 81]
  it.each(blocks)(
    `in ${PROGRAMS} random programs from seed %d`,
    first => {
      let steps = 0
      for (let seed = first; seed < first + PROGRAMS; seed++) {
        const result = modelSubject({ commands: COMMANDS }).run(seed)
        expect(result.failure?.report).toBeUndefined()
        steps += result.steps
      }
      expect(steps).toBeGreaterThan(12 * PROGRAMS)
    },
    PATIENCE,
  )
})

/** What the first of some seeds that fails says. */
function firstOf(first: number, seeds: number, run: (seed: number) => CaseResult) {
  for (let seed = first; seed < first + seeds; seed++) {
    const { failure } = run(seed)
    if (failure) return failure.message
  }
  return undefined
}

describe('a planted defect', () => {
  /** The first seed whose program shows what profile V7, taken literally, does wrong. */
  const found = once(() => {
    for (let seed = 1; seed < 60; seed++) {
      const { failure } = runCase(seed, { commands: COMMANDS, profile: 'V7' })
      if (failure) return failure
    }
    throw new Error('60 programs did not show it')
  })

  it('E62: binding a bound PASID again removes the first binding under V7; found, and shrunk to a handful of steps', () => {
    const failure = found()
    expect(failure.message).toMatch(/bindings: \d, where the model says \d/)
    expect(failure.commands.length).toBeLessThanOrEqual(4)
    expect(failure.calls.at(-1)).toMatch(/NESTING_OP, BIND PASID \d.* = EBUSY/)
    expect(failure.calls.filter(c => c.includes('BIND PASID'))).toHaveLength(2)
  })

  it.each([
    ['forgets invalidations', 40, (d: Domain) => Object.assign(d, { cacheInvalidate: () => {} })],
    ['forgets to flush what was unmapped', 1, (d: Domain) => Object.assign(d, { flush: () => {} })],
  ] as const)('in a driver that %s is found, in 50 programs from seed %d', (_, first, spoil) => {
    const drivers = (driver: IommuDriver) => [{ driver: standIn(driver, d => void spoil(d)) }]
    const options = { commands: COMMANDS, shrink: false, drivers }
    const message = firstOf(first, 50, seed => runCase(seed, options))
    expect(message).toMatch(/forbids this DMA|^read \d+, where the model says/)
  })

  it('is found again from what the report says', () => {
    const { seed, path, replayPath, commands, calls } = found()
    const again = runCase(seed, { commands: COMMANDS, profile: 'V7', path, replayPath })
    expect(again.failure).toMatchObject({ seed, commands, calls })
    expect(again.steps).toBeLessThan(20)
  })
})
