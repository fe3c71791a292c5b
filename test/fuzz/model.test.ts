// A fixed short run of the model-based fuzzer, and the defect that it must find.
import { describe, expect, it } from 'vitest'
import { runCase } from '../../fuzz/cases.js'
import { modelSubject } from '../../fuzz/subjects.js'

const COMMANDS = 120

function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined
  return () => {
    made ??= { value: make() }
    return made.value
  }
}

describe('the product does what the model says', () => {
  const blocks = [1, 41, 81]
  it.each(blocks)('in 40 random programs from seed %d', first => {
    let steps = 0
    for (let seed = first; seed < first + 40; seed++) {
      const result = modelSubject({ commands: COMMANDS }).run(seed)
      expect(result.failure?.report).toBeUndefined()
      steps += result.steps
    }
    expect(steps).toBeGreaterThan(500)
  })
})

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

  it('is found again from what the report says', () => {
    const { seed, path, replayPath, commands, calls } = found()
    const again = runCase(seed, { commands: COMMANDS, profile: 'V7', path, replayPath })
    expect(again.failure).toMatchObject({ seed, commands, calls })
    expect(again.steps).toBeLessThan(20)
  })
})
