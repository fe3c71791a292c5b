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

describe('random commands', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('seed %i', seed => {
    const next = random(seed)
    const pick = <T>(list: readonly T[]): T => list[next(list.length)]!
    const b = iommufdBench({ devices: [[dmaCopy, dmaCopy], [faulty]], acs: false })
    const programs = [0, 1].map(i => {
      const sys = b.spawn({ memlock: i === 0 ? 2 ** 20 : 24 * 4096 })
      return {
        u: user(b, sys),
        memory: sys.mmap(0x1_0000),
        devices: [] as {
          readonly d: ReturnType<ReturnType<typeof user>['device']>
          dma: boolean
        }[],
        queues: [] as number[],
      }
    })
    const id = () => next(14)
    const address = () =>
      pick([0n, PAGE, 0x800n, 0x10_0000n, 0xfee0_0000n, ALL - 0xfffn, ALL, 2n ** 47n]) +
      BigInt(next(4)) * PAGE
    const length = () => pick([0n, 1n, 0x800n, PAGE, 0x2000n, 0x4000n, 0x1_0000n, ALL, 2n ** 63n])
    const pasid = () => pick([undefined, undefined, 1, 5, 0x3_ffff, 0x4_0000, 0x8000_0000])
    let done = 0

    for (let step = 0; step < 400; step++) {
      const p = pick(programs)
      const { u, memory, devices, queues } = p
      const device = () => devices[next(devices.length)]
      const mapFlags = next(8) === 0 ? next(16) : 6
      const steps: (() => unknown)[] = [
        () => u.ioas(),
        () => u.destroy(id()),
        () =>
          u.map(
            id(),
            memory.vaddr + BigInt(next(20)) * (next(8) ? PAGE : 0x800n),
            length(),
            next(2) ? address() & ALL : undefined,
            mapFlags,
          ),
        () => u.map(id(), memory.vaddr, PAGE * BigInt(1 + next(8)), BigInt(next(64)) * PAGE),
        () => u.unmap(id(), address() & ALL, length()),
        () => u.unmap(id(), next(2) ? 0n : BigInt(next(64)) * PAGE, next(2) ? ALL : 0x8000n),
        () =>
          u.copy(
            id(),
            BigInt(next(64)) * PAGE,
            length(),
            id(),
            next(2) ? address() & ALL : undefined,
          ),
        () => u.ranges(id(), next(3)),
        () => u.hwpt(id(), id(), { flags: next(16), ...(queues.length ? { fault_id: id() } : {}) }),
        () => u.hwpt(id(), id(), { flags: pick([0, 1, 8, 9]) }),
        () =>
          u.nested(
            id(),
            id(),
            { pgtbl_addr: BigInt(next(16)) * PAGE, addr_width: pick([48, 48, 57]) },
            { flags: pick([0, 8, 12]), fault_id: id() },
          ),
        () =>
          u.invalidate(id(), [{ addr: address() & ALL, npages: BigInt(next(9)) }, { npages: ALL }]),
        () => queues.push(u.faultQueue().fd),
        () => {
          const fd = queues.splice(next(queues.length || 1), 1)[0]
          if (fd !== undefined) u.sys.close(fd)
        },
        () => {
          const fd = pick(queues)
          if (fd === undefined) return
          if (next(2)) u.sys.read(fd, next(3) * 40)
          else u.sys.write(fd, new Uint8Array(next(3) * 8))
        },
        () => {
          const which = next(3)
          devices.push({ d: u.device(which), dma: which < 2 })
        },
        () => devices.splice(next(devices.length || 1), 1)[0]?.d.close(),
        () => device()?.d.attach(id(), pasid()),
        () => device()?.d.attach(id(), pasid()),
        () => device()?.d.detach(pasid()),
        () => {
          const at = device()
          if (at?.dma)
            at.d.dma(address() & ALL, BigInt(next(64)) * PAGE, 8, pick([undefined, 1, 5]))
        },
        () =>
          u.call(
            uapi.IOMMU_HWPT_SET_DIRTY_TRACKING,
            uapi.iommu_hwpt_set_dirty_tracking({ hwpt_id: id(), flags: next(2) }),
          ),
        () =>
          u.call(
            uapi.IOMMU_HWPT_GET_DIRTY_BITMAP,
            uapi.iommu_hwpt_get_dirty_bitmap({
              hwpt_id: id(),
              iova: BigInt(next(64)) * PAGE,
              length: length(),
              page_size: pick([PAGE, 0x2000n, 7n]),
              data: memory.vaddr,
            }),
          ),
        () =>
          u.call(
            uapi.IOMMU_OPTION,
            uapi.iommu_option({
              option_id: next(3),
              op: next(3),
              object_id: id(),
              val64: BigInt(next(3)),
            }),
          ),
        () => u.call(uapi.IOMMU_VFIO_IOAS, uapi.iommu_vfio_ioas({ op: next(4), ioas_id: id() })),
        () => u.call(uapi.IOMMU_IOAS_CHANGE_PROCESS, uapi.iommu_ioas_change_process()),
        () =>
          u.call(
            uapi.IOMMU_GET_HW_INFO,
            uapi.iommu_hw_info({ dev_id: id(), data_len: next(64), data_uptr: memory.vaddr }),
          ),
        () =>
          u.call(
            uapi.IOMMU_IOAS_ALLOW_IOVAS,
            uapi.iommu_ioas_allow_iovas({
              ioas_id: id(),
              num_iovas: next(2),
              allowed_iovas: userBytes(
                u.sys,
                uapi.iommu_iova_range({ start: address() & ALL, last: 2n ** 46n }).bytes,
              ),
            }),
          ),
        () => {
          const map = uapi.vfio_iommu_type1_dma_map({
            flags: next(4),
            vaddr: memory.vaddr,
            iova: BigInt(next(64)) * PAGE,
            size: length(),
          })
          u.sys.ioctl(u.fd, uapi.VFIO_IOMMU_MAP_DMA, map)
        },
        () =>
          u.sys.ioctl(
            u.fd,
            uapi.VFIO_IOMMU_UNMAP_DMA,
            uapi.vfio_iommu_type1_dma_unmap({
              flags: next(3),
              iova: BigInt(next(64)) * PAGE,
              size: length(),
            }),
          ),
        () => u.sys.ioctl(u.fd, uapi.VFIO_SET_IOMMU, 1 + next(4)),
        () => u.sys.ioctl(u.fd, 0x3b80 + next(32), next(2) ? memory.vaddr : BigInt(next(0x10000))),
      ]
      if (allowed(pick(steps))) done++
      const { lockedPages } = b.vfio.iommufd!.holdings()
      const counted = programs.reduce(
        (n, { u: { sys } }) => n + sys.process.memory.lockedPages,
        lockedPages,
      )
      expect(b.held().pins, `after step ${step}`).toBe(counted)
    }

    expect(done).toBeGreaterThan(100)
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
