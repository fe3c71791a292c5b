// Random interleavings of every command by two processes on three functions, two of them in one group: nothing but
// a refusal comes back, accounts agree with what is pinned after each step, and nothing is left after close.
import { describe, expect, it } from 'vitest'
import { ErrnoError } from '../../../src/base/errno.js'
import { ats, msix, pasidCapability, pri } from '../../../src/pci/device-model.js'
import { dmaCopy } from '../../../src/pci/devices/dma-copy.js'
import * as uapi from '../../../src/uapi.js'
import { plainDevice } from '../../support/vfio-bench.js'
import { ALL, checkIommufd, iommufdBench, PAGE, user, userBytes } from './bench.js'

/** A small generator (mulberry32). */
function random(seed: number): (n: number) => number {
  let state = seed
  return n => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % n
  }
}

const faulty = plainDevice([
  msix({ vectors: 1, bar: 2 }),
  ats(),
  pri({ capacity: 8 }),
  pasidCapability({ width: 18 }),
])

function allowed(call: () => unknown): boolean {
  try {
    call()
    return true
  } catch (error) {
    if (!(error instanceof ErrnoError)) throw error
    return false
  }
}

/** Ids that a program got, by kind; some are gone by now, and sometimes another number is taken. */
class Ids {
  readonly #next: (n: number) => number
  readonly #lists = new Map<string, number[]>()

  constructor(next: (n: number) => number) {
    this.#next = next
  }

  keep(kind: string, id: number): number {
    const list = this.#lists.get(kind) ?? []
    this.#lists.set(kind, [...list.slice(-4), id])
    return id
  }

  any(...kinds: string[]): number {
    const known = kinds.flatMap(kind => this.#lists.get(kind) ?? [])
    if (known.length === 0 || this.#next(10) === 0) return this.#next(14)
    return known[this.#next(known.length)]!
  }
}

const OBJECTS = [
  'ioas',
  'hwpt',
  'parent',
  'nested',
  'fault',
  'device',
  'viommu',
  'vdevice',
  'veventq',
]
const TABLES = ['ioas', 'hwpt', 'hwpt', 'parent', 'nested', 'nested']

describe.each([
  ['vt-d', [1, 2, 3, 4, 5, 6, 7, 8]],
  ['smmuv3', [21, 22, 23, 24, 25, 26]],
] as const)('random commands over %s', (iommu, seeds) => {
  it.each(seeds)('seed %i', seed => {
    const next = random(seed)
    const pick = <T>(list: readonly T[]): T => list[next(list.length)]!
    const devices = [[dmaCopy, dmaCopy], [faulty]]
    const b = iommufdBench({ iommu, devices, acs: false } as Parameters<typeof iommufdBench>[0])
    const programs = [0, 1].map(i => {
      const sys = b.spawn({ memlock: i === 0 ? 2 ** 20 : 24 * 4096 })
      const u = user(b, sys)
      return {
        u,
        ids: new Ids(next),
        memory: sys.mmap(0x1_0000),
        devices: [] as { readonly d: ReturnType<typeof u.device>; readonly dma: boolean }[],
        queues: [] as number[],
      }
    })
    const address = () =>
      (next(4) ? BigInt(next(64)) : pick([0n, 0xfee00n, 2n ** 35n, 2n ** 52n - 1n])) * PAGE +
      (next(20) ? 0n : 0x800n)
    const length = () =>
      next(6) ? PAGE * BigInt(1 + next(8)) : pick([0n, 1n, 0x800n, 0x1_0000n, ALL, 2n ** 63n])
    const pasid = () => pick([undefined, undefined, 1, 5, 5, 0x3_ffff, 0x4_0000, 0x8000_0000])
    const flags = (usual: readonly number[]) => (next(10) ? pick(usual) : next(32))

    for (let step = 0; step < (iommu === 'vt-d' ? 400 : 1000); step++) {
      const { u, ids, memory, devices, queues } = pick(programs)
      const device = () => devices[next(devices.length)]
      const dev = () => ids.any('device')
      const ioas = () => ids.any('ioas')
      const table = () => ids.any(...TABLES)
      const attach = () => device()?.d.attach(table(), pasid())
      const map = () =>
        u.map(
          ioas(),
          memory.vaddr + BigInt(next(18)) * PAGE,
          length(),
          next(2) ? address() : undefined,
          flags([6, 6, 6, 4, 2]),
        )
      const hwpt = (kind: string, usual: readonly number[]) =>
        ids.keep(kind, u.hwpt(dev(), ioas(), { flags: flags(usual), fault_id: ids.any('fault') }))
      const steps: (() => unknown)[] = [
        () => ids.keep('ioas', u.ioas()),
        () => u.destroy(ids.any(...OBJECTS)),
        map,
        map,
        () => u.unmap(ioas(), address(), length()),
        () => u.unmap(ioas(), 0n, ALL),
        () => u.copy(ioas(), address(), length(), ioas(), next(2) ? address() : undefined),
        () => u.ranges(ioas(), next(5)),
        () => hwpt('hwpt', iommu === 'vt-d' ? [0, 2, 8, 10, 12] : [0, 0, 4]),
        () => hwpt('parent', iommu === 'vt-d' ? [1, 3, 9, 11] : [1]),
        () => hwpt('parent', [1]),
        () =>
          ids.keep(
            'nested',
            u.nested(
              dev(),
              ids.any('parent'),
              { pgtbl_addr: BigInt(next(16)) * PAGE, addr_width: next(8) ? 48 : 57 },
              { flags: flags([0, 8, 8, 12]), fault_id: ids.any('fault') },
            ),
          ),
        () => {
          const arg = { type: pick([1, 1, 1, 0, 2]), dev_id: dev(), hwpt_id: ids.any('parent') }
          const call = uapi.iommu_viommu_alloc(arg)
          u.call(uapi.IOMMU_VIOMMU_ALLOC, call)
          ids.keep('viommu', call.out_viommu_id)
        },
        () => {
          const arg = { viommu_id: ids.any('viommu'), dev_id: dev(), virt_id: BigInt(next(4)) }
          const call = uapi.iommu_vdevice_alloc(arg)
          u.call(uapi.IOMMU_VDEVICE_ALLOC, call)
          ids.keep('vdevice', call.out_vdevice_id)
        },
        () => {
          const low = BigInt(pick([0xb, 0xb, 0x9, 0x1, 0, 0xf, 0x21])) | (BigInt(next(16)) << 12n)
          const high = BigInt(pick([0, 1, 2, 0x1000_0001, 0x800_0000, 0x2000_0000]))
          const { bytes } = uapi.iommu_hwpt_arm_smmuv3({
            ste: [low | (BigInt(next(8)) << 59n), high],
          })
          const init = {
            data_type: uapi.IOMMU_HWPT_DATA_ARM_SMMUV3,
            data_len: bytes.length,
            data_uptr: userBytes(u.sys, bytes),
            flags: flags([0, 0, 4]),
            fault_id: ids.any('fault'),
          }
          ids.keep('nested', u.hwpt(dev(), ids.any('viommu'), init))
        },
        () => {
          const arg = { viommu_id: ids.any('viommu'), type: 1, veventq_depth: 1 + next(4) }
          const call = uapi.iommu_veventq_alloc(arg)
          u.call(uapi.IOMMU_VEVENTQ_ALLOC, call)
          ids.keep('veventq', call.out_veventq_id)
          queues.push(call.out_veventq_fd)
        },
        () => {
          const opcode = pick([0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x40, 0x28, next(256)])
          const low = BigInt(opcode) | (BigInt(next(2 ** 20)) << 8n) | (BigInt(next(4)) << 32n)
          const high = address() | BigInt(next(0x1000))
          const bytes = new Uint8Array(BigUint64Array.of(low, high, 0x30n, 0n).buffer)
          const arg = uapi.iommu_hwpt_invalidate({
            hwpt_id: ids.any('viommu'),
            data_type: uapi.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
            data_uptr: userBytes(u.sys, bytes),
            entry_len: 16,
            entry_num: 2,
          })
          u.call(uapi.IOMMU_HWPT_INVALIDATE, arg)
        },
        () => {
          const some = { addr: address(), npages: BigInt(next(9)) }
          return u.invalidate(ids.any('nested'), [some, { npages: ALL }])
        },
        () => {
          const { id, fd } = u.faultQueue()
          ids.keep('fault', id)
          queues.push(fd)
        },
        () => u.sys.close(queues.splice(next(queues.length), 1)[0] ?? -1),
        () => u.sys.read(pick(queues) ?? -1, next(3) * 40),
        () => u.sys.write(pick(queues) ?? -1, new Uint8Array(next(3) * 8)),
        () => {
          const which = next(3)
          const d = u.device(which)
          ids.keep('device', d.id)
          devices.push({ d, dma: which < 2 })
        },
        () => next(4) || devices.splice(next(devices.length), 1)[0]?.d.close(),
        attach,
        attach,
        attach,
        () => device()?.d.detach(pasid()),
        () => {
          const at = device()
          if (at?.dma) at.d.dma(address(), address(), 8, pick([undefined, 1, 5]))
        },
        () => {
          const arg = { hwpt_id: ids.any('hwpt', 'parent'), flags: next(2) }
          u.call(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, uapi.iommu_hwpt_set_dirty_tracking(arg))
        },
        () => {
          const arg = uapi.iommu_hwpt_get_dirty_bitmap({
            hwpt_id: ids.any('hwpt', 'parent'),
            iova: address(),
            length: length(),
            page_size: next(8) ? PAGE : 0x2000n,
            data: memory.vaddr,
          })
          u.call(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, arg)
        },
        () => {
          const arg = { option_id: next(3), op: next(3), object_id: ioas(), val64: BigInt(next(3)) }
          u.call(uapi.IOMMU_OPTION, uapi.iommu_option(arg))
        },
        () => u.call(uapi.IOMMU_VFIO_IOAS, uapi.iommu_vfio_ioas({ op: next(4), ioas_id: ioas() })),
        () => u.call(uapi.IOMMU_IOAS_CHANGE_PROCESS, uapi.iommu_ioas_change_process()),
        () => {
          const arg = { dev_id: dev(), data_len: next(64), data_uptr: memory.vaddr }
          u.call(uapi.IOMMU_GET_HW_INFO, uapi.iommu_hw_info(arg))
        },
        () => {
          const range = uapi.iommu_iova_range({ start: address(), last: 2n ** 46n })
          const arg = uapi.iommu_ioas_allow_iovas({
            ioas_id: ioas(),
            num_iovas: next(2),
            allowed_iovas: userBytes(u.sys, range.bytes),
          })
          u.call(uapi.IOMMU_IOAS_ALLOW_IOVAS, arg)
        },
        () => {
          const at = { vaddr: memory.vaddr, iova: address(), size: length() }
          const arg = uapi.vfio_iommu_type1_dma_map({ flags: next(4), ...at })
          u.sys.ioctl(u.fd, uapi.VFIO_IOMMU_MAP_DMA, arg)
        },
        () => {
          const arg = { flags: next(3), iova: address(), size: length() }
          u.sys.ioctl(u.fd, uapi.VFIO_IOMMU_UNMAP_DMA, uapi.vfio_iommu_type1_dma_unmap(arg))
        },
        () => u.sys.ioctl(u.fd, uapi.VFIO_SET_IOMMU, 1 + next(4)),
        () => u.sys.ioctl(u.fd, 0x3b80 + next(32), next(2) ? memory.vaddr : BigInt(next(0x10000))),
      ]
      allowed(pick(steps))
      const { lockedPages } = b.vfio.iommufd!.holdings()
      const own = programs.map(({ u: { sys } }) => sys.process.memory.lockedPages)
      const counted = own.reduce((sum, n) => sum + n, lockedPages)
      expect(b.held().pins, `after step ${step}`).toBe(counted)
    }

    if (seed % 2) for (const { u } of programs) u.sys.close(u.fd)
    checkIommufd()
  })
})

describe('random bytes', () => {
  it.each([11, 12])('as argument of every number, seed %i', seed => {
    const next = random(seed)
    const b = iommufdBench()
    const u = user(b)
    const d = u.device()
    d.attach(u.ioas())
    const page = u.sys.mmap(0x1000)
    for (let n = 0; n < 3000; n++) {
      const at = next(4) === 0 ? 0xfe0 : 0
      for (let i = at; i < at + 64 && i < 0x1000; i++) page.bytes[i] = next(3) === 0 ? next(256) : 0
      page.bytes.set(Uint32Array.of(pickSize(next)), 0)
      new DataView(page.bytes.buffer, page.bytes.byteOffset).setUint32(at, pickSize(next), true)
      const fd = next(4) === 0 ? d.fd : u.fd
      allowed(() => u.sys.ioctl(fd, 0x3b64 + next(0x40), page.vaddr + BigInt(at)))
    }
    checkIommufd()
  })
})

const pickSize = (next: (n: number) => number) =>
  [8, 12, 16, 24, 32, 40, 48, 64, 0xffff_ffff][next(9)]!
