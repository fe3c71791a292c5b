// Random programs of private memory against a page-level model: a fixed short run, and the defects that it must find.
import { describe, expect, it } from 'vitest'
import { privateSubject, runPrivateCase } from '../../fuzz/private/case.js'
import type { PrivateWorld } from '../../fuzz/private/world.js'
import type { Vm } from '../../src/cpu/kvm/vm.js'
import { often, PATIENCE } from '../support/long.js'

const CASES = often(12, 1200)

describe('the product does what the model says', () => {
  it.each([
    ['files of single pages', 0],
    ['files that allocate four pages at a time', 2],
  ])(
    `in ${CASES / 2} random programs, %s`,
    (_, order) => {
      const first = 1 + 10_000 * order
      let steps = 0
      for (let seed = first; seed < first + CASES / 2; seed++) {
        const result = privateSubject({ commands: 100, memfd: { order } }).run(seed)
        expect(result.failure?.report).toBeUndefined()
        steps += result.steps
      }
      expect(steps).toBeGreaterThan(CASES * 10)
    },
    PATIENCE,
  )
})

/** The VM of a world, which only its file and its table know. */
const vmOf = (world: PrivateWorld) => world.sys.process.fds.get(world.vm) as Vm

// With a seed whose program shows it.
const defects: [string, number, (world: PrivateWorld) => void, RegExp][] = [
  [
    'mappings outlive the attribute that made them',
    20,
    world => Object.assign(vmOf(world).privateMemory!.mappings, { unmap() {} }),
    /^the guest: , where the model says fault/,
  ],
  [
    'devices keep what was taken back',
    27,
    world => {
      Object.assign(world.sys.process.memory.withdrawals, { tell() {} })
      world.machine.memory.guard = undefined
    },
    /^the device: true, where the model says false/,
  ],
  [
    'what is withdrawn may be pinned',
    39,
    world =>
      Object.assign(world.sys.process.memory.withdrawals, {
        run: (_: number, pages: number) => pages,
      }),
    /^MAP_DMA: , where the model says EFAULT/,
  ],
]

describe('a planted defect is found', () => {
  it.each(defects)(
    '%s: seed %i',
    (_, seed, spoil, message) => {
      const { failure } = runPrivateCase(seed, { commands: 100, shrink: false, spoil })
      expect(failure?.message).toMatch(message)
    },
    PATIENCE,
  )

  it(
    'and shrunk to what shows it',
    () => {
      const [, seed, spoil] = defects[2]!
      const { failure } = runPrivateCase(seed, { commands: 100, spoil })
      const lines = failure!.report.split('\n')
      expect(lines[0]).toBe('seed 39: MAP_DMA: , where the model says EFAULT')
      expect(lines.slice(2, 5)).toEqual([
        expect.stringMatching(/^ {4}slot /),
        expect.stringMatching(/^ {4}make .* private$/),
        expect.stringMatching(/^ {4}map \d+ for the device$/),
      ])
      expect(lines.at(-1)).toBe('    npm run fuzz -- --private --seed 39 --runs 1')
    },
    PATIENCE,
  )
})
