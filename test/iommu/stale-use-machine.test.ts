// The stale-use detector in whole machines: silent where drivers do their work, and heard where one does not.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { le16 } from '../../src/bytes.js'
import { DEFAULT_MACHINE } from '../../src/cli/machine-file.js'
import { toJson } from '../../src/cli/output.js'
import { type Step, Story } from '../../src/cli/story.js'
import { explain } from '../../src/explain/index.js'
import { createMachine, type Machine } from '../../src/machine.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { s32 } from '../../src/sys/sys.js'
import { bench } from '../../src/testing/index.js'
import * as uapi from '../../src/uapi.js'
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

describe.each(['vt-d', 'smmuv3'] as const)('the host’s driver over %s', iommu => {
  it('maps and unmaps under a device’s DMA without a stale use', () => {
    const ramBytes = 64 * 2 ** 20
    const description = { ramBytes, devices: [{ at: AT, model: dmaCopy }], detectStaleUse: true }
    const machine =
      iommu === 'vt-d' ? createMachine(description) : createMachine({ ...description, iommu })
    const { sys } = machine
    const container = sys.open('/dev/vfio/vfio')
    const group = sys.open(machine.groupOf(AT))
    sys.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, s32(container))
    sys.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)
    const device = sys.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, AT)
    const config = uapi.vfio_region_info({ index: uapi.VFIO_PCI_CONFIG_REGION_INDEX })
    sys.ioctl(device, uapi.VFIO_DEVICE_GET_REGION_INFO, config)
    sys.pwrite(device, le16(6), config.offset + 4n)
    const buffer = sys.mmap(0x4000)
    const { dma } = machine.function(AT)
    const flags = uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE
    for (const page of [0n, 1n, 2n, 3n, 0n, 2n]) {
      const vaddr = buffer.vaddr + page * 0x1000n
      const map = { flags, vaddr, iova: 0x10_0000n, size: 0x1000n }
      sys.ioctl(container, uapi.VFIO_IOMMU_MAP_DMA, uapi.vfio_iommu_type1_dma_map(map))
      expect(dma.write(0, 0x10_0000, new Uint8Array([Number(page) + 1]))).toBe(true)
      expect(buffer.bytes[Number(page) * 0x1000]).toBe(Number(page) + 1)
      const { iova, size } = map
      sys.ioctl(
        container,
        uapi.VFIO_IOMMU_UNMAP_DMA,
        uapi.vfio_iommu_type1_dma_unmap({ iova, size }),
      )
      expect(dma.write(0, 0x10_0000, new Uint8Array(1))).toBe(false)
    }
    expect(machine.staleUses).toEqual([])
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
