// Random programs of private memory against a page-level model: a fixed short run, and the defects that it must find.
import { describe, expect, it } from 'vitest'
import { privateSubject, runPrivateCase } from '../../fuzz/private/case.js'
import type { PrivateWorld } from '../../fuzz/private/world.js'
import type { Vm } from '../../src/cpu/kvm/vm.js'
import { often, PATIENCE } from '../support/long.js'

const CASES = often(12, 3000)

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

describe('a planted defect is found', () => {
  it.each<[string, (world: PrivateWorld) => void, RegExp]>([
    [
      'mappings outlive the attribute that made them',
      world => Object.assign(vmOf(world).privateMemory!.mappings, { unmap() {} }),
      /where the model says|overlap/,
    ],
    [
      'devices keep what was taken back',
      world => {
        Object.assign(world.sys.process.memory.withdrawals, { tell() {} })
        world.machine.memory.guard = undefined
      },
      /^the device: /,
    ],
    [
      'what is withdrawn may be pinned',
      world =>
        Object.assign(world.sys.process.memory.withdrawals, {
          run: (_: number, pages: number) => pages,
        }),
      /^MAP_DMA: , where the model says EFAULT|^the device: /,
    ],
  ])(
    '%s',
    (_, spoil, message) => {
      let found: string | undefined
      for (let seed = 1; seed < 60 && found === undefined; seed++)
        found = runPrivateCase(seed, { commands: 100, shrink: false, spoil }).failure?.message
      expect(found).toMatch(message)
    },
    PATIENCE,
  )

  it(
    'and shrunk to a handful of commands',
    () => {
      const spoil = (world: PrivateWorld) => {
        Object.assign(world.sys.process.memory.withdrawals, { tell() {} })
        world.machine.memory.guard = undefined
      }
      let report: string | undefined
      for (let seed = 1; seed < 60 && report === undefined; seed++)
        report = runPrivateCase(seed, { commands: 60, spoil }).failure?.report
      const commands = report!
        .split('\n')
        .filter(line => line.startsWith('    ') && !line.includes('npm'))
      expect(commands.length).toBeLessThanOrEqual(5)
      expect(report).toMatch(/npm run fuzz -- --private --seed \d+ --runs 1/)
    },
    PATIENCE,
  )
})
