// The stale-use detector in whole machines: silent where drivers do their work, and heard where one does not.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { DEFAULT_MACHINE } from '../../src/cli/machine-file.js'
import { toJson } from '../../src/cli/output.js'
import { type Step, Story } from '../../src/cli/story.js'
import { explain } from '../../src/explain/index.js'
import { createMachine, type Machine } from '../../src/machine.js'
import { bench } from '../../src/testing/index.js'
import { Vmm } from '../../src/vmm/vmm.js'

const image = readFileSync(resolve(import.meta.dirname, '../../guests/built/sva-x86_64.elf'))
const AT = '0000:01:00.0'

/** The main job; `meddle` may listen to its machine first. */
function mainJob(detectStaleUse: boolean, meddle: (machine: Machine) => void = () => {}) {
  const machine = createMachine({ ...DEFAULT_MACHINE, detectStaleUse })
  const steps: Step[] = []
  const story = new Story(machine, step => steps.push(step))
  meddle(machine)
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const vmm = new Vmm({
    sys,
    trace: machine.trace,
    ramBytes: 64 * 2 ** 20,
    image,
    group: machine.groupOf(AT),
    device: AT,
  })
  vmm.run()
  vmm.close()
  sys.exit()
  machine.settle()
  story.end()
  return { machine, steps }
}

describe('the detector in a whole machine', () => {
  it('finds nothing in the main job, and changes nothing that is told of it', () => {
    const watched = mainJob(true)
    expect(watched.machine.staleUses).toEqual([])
    expect(watched.steps.map(toJson)).toEqual(mainJob(false).steps.map(toJson))
  })

  it('hears of a table that somebody changes under the main job’s device', () => {
    const { machine } = mainJob(true, m => {
      let done = false
      m.trace.listen('dma', e => {
        if (done || !e.write || e.pasid < 0 || e.failure !== undefined) return
        const { walks } = m.unit.look(
          e.requester,
          e.pasid,
          BigInt(e.lo >>> 0) | (BigInt(e.hi) << 32n),
        )
        const leaf = walks[0]!.steps.at(-1)!
        done = true
        m.memory.store(leaf.physical!, 8, leaf.raw! & ~2n)
      })
    })
    const use = machine.staleUses[0]!
    expect(use).toMatchObject({
      cache: 'device TLB',
      pasid: 1,
      changes: [{ entry: 'FS-PTE', by: 'host' }],
    })
  })
})

describe('a guest’s tables through the ioctls', () => {
  const setUp = () => {
    const b = bench({ detectStaleUse: true })
    const space = b.bind(7)
    space.map(0x40_0000n, b.page('hello'))
    expect(b.dmaRead(0x40_0000n, { pasid: 7 })).toEqual({ text: 'hello' })
    return { b, space, uses: b.machine.staleUses }
  }

  it('a page taken away without CACHE_INVLD is heard of', () => {
    const { b, space, uses } = setUp()
    space.unmap(0x40_0000n)
    expect(b.dmaRead(0x40_0000n, { pasid: 7 })).toEqual({ text: 'hello' })
    expect(uses).toHaveLength(1)
    expect(uses[0]).toMatchObject({ requester: 0x100, pasid: 7, address: 0x40_0000n, now: -1 })
    expect(explain(uses[0]!)).toMatch(/FS-PTE at 0x[0-9a-f]+: was 0x[0-9a-f]{16}, is 0x0{16}/)
  })

  it('nothing is heard after CACHE_INVLD, of the page or of the space', () => {
    for (const address of [0x40_0000n, undefined]) {
      const { b, space, uses } = setUp()
      space.unmap(0x40_0000n)
      space.invalidate(address)
      expect(b.dmaRead(0x40_0000n, { pasid: 7 })).toMatchObject({ pasid: 7 })
      expect(uses).toEqual([])
    }
  })

  it('nothing is heard of the host’s driver: map, unmap, bind, unbind and free, over and over', () => {
    const b = bench({ detectStaleUse: true })
    for (let round = 0; round < 4; round++) {
      const space = b.bind(7)
      space.map(0x40_0000n, b.page(`round ${round}`))
      expect(b.dmaRead(0x40_0000n, { pasid: 7 })).toEqual({ text: `round ${round}` })
      expect(b.dmaRead(0x40_0000n, { pasid: 8 })).toMatchObject({ pasid: 8 })
      space.unbind()
      expect(b.dmaRead(0x40_0000n, { pasid: 7 })).toMatchObject({ pasid: 7 })
      space.bind()
      expect(b.dmaRead(0x40_0000n, { pasid: 7 })).toEqual({ text: `round ${round}` })
      space.free()
      b.dmaRead(0x40_0000n, { pasid: 7 })
    }
    expect(b.machine.staleUses).toEqual([])
  })
})
