// A function that goes by what it found out before moves the same bytes as one that asks for every piece: two machines
// in step, one of them watched, while everything that decides a transfer changes under them.
import { describe, expect, it } from 'vitest'
import { halves, split } from '../../src/base/addr.js'
import { createMachine } from '../../src/machine.js'
import { ats, pasidCapability } from '../../src/pci/device-model.js'
import { VFIO_IOMMU_UNMAP_DMA, vfio_iommu_type1_dma_unmap } from '../../src/uapi.js'
import { NestingContainer } from '../../src/vmm/container.js'
import { isLong, often } from '../support/long.js'
import { xorshift } from '../support/random.js'
import { plainDevice } from '../support/vfio-bench.js'

const AT = '0000:01:00.0'
const GVA = 0x7e00_0000_0000n
const GVA_PAGES = 12
const ROOTS = [0x1000, 0x5000] as const
/** Numbers that the unit's epochs go through. */
const EPOCHS = 0x7fff
/** Guest physical pages of the data. */
const [FIRST, COUNT] = [16, 16]

split(GVA)
const [GVA_LO, GVA_HI] = [halves[0]!, halves[1]!]

const models = {
  'with a translation cache': plainDevice([ats(), pasidCapability({ width: 20 })]),
  'without one': plainDevice([pasidCapability({ width: 20 })]),
}

/** A machine whose function has two PASIDs, each with its own table of the same 12 pages. */
function host(model: (typeof models)[keyof typeof models]) {
  const machine = createMachine({ devices: [{ at: AT, model }] })
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const container = new NestingContainer(sys, machine.groupOf(AT))
  const memory = sys.mmap((FIRST + COUNT) * 4096)
  const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.length)
  const map = (page: number) =>
    container.map(memory.vaddr + BigInt(page * 4096), BigInt(page * 4096), 4096n)
  for (let page = 0; page < FIRST + COUNT; page++) map(page)
  for (const root of ROOTS)
    for (let level = 3; level > 0; level--) {
      const table = root + (3 - level) * 4096
      const index = Number((GVA >> BigInt(12 + 9 * level)) & 511n)
      view.setBigUint64(table + 8 * index, BigInt(table + 4096) | 7n, true)
    }
  const setPage = (table: number, index: number, entry: number) =>
    view.setBigUint64(ROOTS[table]! + 0x3000 + 8 * index, BigInt(entry), true)
  for (const table of [0, 1])
    for (let i = 0; i < GVA_PAGES; i++) setPage(table, i, ((FIRST + i) * 4096) | 7)
  container.openDevice(AT)
  const fn = machine.function(AT)
  fn.config.write(0x04, 2, 6)
  const ids = [container.allocPasid(1, 99), container.allocPasid(1, 99)]
  const bind = (i: number) =>
    container.bind(ids[i]!, ROOTS[i]!, { supervisor: false, addressWidth: 48 })
  bind(0)
  bind(1)
  const unmap = (page: number) =>
    sys.ioctl(
      container.fd,
      VFIO_IOMMU_UNMAP_DMA,
      vfio_iommu_type1_dma_unmap({ iova: BigInt(page * 4096), size: 4096n }),
    )
  const data = memory.bytes.subarray(FIRST * 4096)
  return { machine, container, fn, ids, bind, map, unmap, setPage, data }
}
type Host = ReturnType<typeof host>

/** `toEqual` takes its time over bytes. */
const same = (a: Uint8Array, b: Uint8Array) => a.every((byte, i) => byte === b[i])

/** What came of a transfer. */
function transfer(h: Host, write: boolean, at: number, bytes: Uint8Array, pasid?: number) {
  const { dma } = h.fn
  const [hi, lo] = pasid === undefined ? [0, at] : [GVA_HI, (GVA_LO + at) | 0]
  const done = write ? dma.write(hi, lo, bytes, { pasid }) : dma.read(hi, lo, bytes, { pasid })
  return done ? 'moved' : `${dma.failedReason} at ${dma.failedDone}`
}

describe.each(Object.entries(models))('a function %s', (_name, model) => {
  it.each(isLong ? [1, 2, 3, 4] : [1, 2])(
    'moves what it would move if it asked each time: seed %i',
    seed => {
      const random = xorshift(seed)
      const pair = [host(model), host(model)] as const
      pair[1].machine.trace.listen('dma', () => {})
      const both = (act: (h: Host) => void) => pair.forEach(act)
      const outcomes = new Map<string, number>()
      let hole: number | undefined
      const bound = [true, true]

      const move = () => {
        const write = random(3) === 0
        const which = random(5)
        const base = which === 0 ? FIRST * 4096 : 0
        const at = base + random(GVA_PAGES) * 4096 + [0, 0, 64, 4000][random(4)]!
        const bytes = new Uint8Array([1, 16, 64, 96, 4096, 8192, 12000][random(7)]!)
        if (write) bytes.fill(random(256))
        const [first, second] = pair.map(h => {
          const buffer = bytes.slice()
          const pasid = which === 0 ? undefined : h.ids[which & 1]
          return { outcome: transfer(h, write, at, buffer, pasid), buffer }
        })
        expect(first!.outcome).toBe(second!.outcome)
        expect(same(first!.buffer, second!.buffer)).toBe(true)
        const outcome = first!.outcome.split(' ')[0]!
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
      }
      const remap = () => {
        const [table, index] = [random(2), random(GVA_PAGES)]
        const entry = ((FIRST + random(COUNT)) * 4096) | [7, 7, 5, 0][random(4)]!
        const scope = random(3)
        both(h => {
          h.setPage(table, index, entry)
          if (!bound[table]) return
          if (scope === 0) h.container.invalidatePasid(h.ids[table]!)
          else if (scope === 1)
            h.container.invalidatePages(h.ids[table]!, GVA + BigInt(index * 4096), 1, true)
        })
      }
      const changeMap = () => {
        const page = hole ?? FIRST + random(COUNT)
        both(h => (hole === undefined ? h.unmap(page) : h.map(page)))
        hole = hole === undefined ? page : undefined
      }
      const changeBinding = () => {
        const i = random(2)
        both(h => (bound[i] ? h.container.unbind(h.ids[i]!) : h.bind(i)))
        bound[i] = !bound[i]
      }
      const changeMastering = () => {
        const command = random(4) ? 6 : 2
        both(h => h.fn.config.write(0x04, 2, command))
      }
      for (let step = 0; step < often(300, 600); step++) {
        for (let n = random(8); n > 0; n--) move()
        const what = random(20)
        if (what < 9) remap()
        else if (what < 16) changeMap()
        else if (what < 18) changeBinding()
        else changeMastering()
        if (random(10) === 0) both(h => h.machine.settle())
      }
      both(h => h.fn.config.write(0x04, 2, 6))
      expect(same(pair[0].data, pair[1].data)).toBe(true)
      expect(outcomes.get('moved')).toBeGreaterThan(200)
      expect(outcomes.size).toBeGreaterThan(1)
    },
  )

  it('does not use a stretch again after as many invalidations as epochs have numbers', () => {
    const h = host(model)
    h.data.fill(1, 0, 4096)
    const bytes = new Uint8Array(64)
    expect(transfer(h, false, 0, bytes, h.ids[0])).toBe('moved')
    h.setPage(0, 0, 0)
    for (let i = 0; i < EPOCHS; i++) h.container.invalidatePasid(h.ids[0]!)
    expect(transfer(h, false, 0, bytes, h.ids[0])).not.toBe('moved')
  })
})
