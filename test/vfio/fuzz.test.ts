// Random calls on every kind of VFIO descriptor, by several processes: only documented outcomes, and nothing left.
import { afterEach, describe, expect, it } from 'vitest'
import { ErrnoError } from '../../src/base/errno.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { type Sys, s32 } from '../../src/sys/sys.js'
import {
  VFIO_DEVICE_RESET,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_NESTING_OP,
  VFIO_IOMMU_PASID_REQUEST,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_nesting_op,
} from '../../src/uapi.js'
import { Container } from '../../src/vfio/container.js'
import { bench, bindData, checkBenches, pasids, READ_WRITE } from '../support/vfio-bench.js'

afterEach(checkBenches)

/** Mulberry32. */
function generator(seed: number) {
  let a = seed >>> 0
  const next = () => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), a | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (t ^ (t >>> 14)) >>> 0
  }
  const below = (n: number) => next() % n
  return { next, below, pick: <T>(of: readonly T[]): T => of[below(of.length)]! }
}

/** Runs a call; anything but success and ErrnoError fails the test. */
function attempt(call: () => unknown): boolean {
  try {
    call()
    return true
  } catch (error) {
    if (error instanceof ErrnoError) return false
    throw error
  }
}

describe('random bytes', () => {
  it.each([1, 2, 3])(
    'as numbers and arguments are refused or obeyed, never more: seed %d',
    seed => {
      const r = generator(seed)
      const b = bench()
      const c = b.program().nesting()
      const device = c.device()
      const { sys } = b
      const memory = sys.mmap(0x2000)
      const fds = [c.fd, c.groups[0]!, device]
      let done = 0
      for (let i = 0; i < 2500; i++) {
        const n = 0x3b64 + r.below(24)
        const argument = new Uint8Array(8 + r.below(90))
        const view = new DataView(argument.buffer)
        for (let at = 0; at + 4 <= argument.length; at += 4)
          view.setUint32(
            at,
            r.pick([0, 1, 2, 5, 6, r.below(64), 0x1000 * r.below(64), r.next()]),
            true,
          )
        // Mostly an argsz that passes, sometimes an argument that straddles the end of memory.
        if (r.below(4)) view.setUint32(0, r.pick([argument.length, 200]), true)
        const at = r.below(8) === 0 ? 0x2000 - r.below(argument.length) : r.below(0x1f00)
        memory.bytes.set(argument.subarray(0, Math.min(argument.length, 0x2000 - at)), at)
        const arg = r.below(10) ? memory.vaddr + BigInt(at) : BigInt(r.next())
        const fd = r.pick(fds)
        if (attempt(() => sys.ioctl(fd, r.below(50) ? n : r.next(), arg))) done++
        if (r.below(16) === 0)
          attempt(() =>
            sys.pread(
              device,
              r.below(64),
              BigInt(r.below(13)) * 2n ** 40n + BigInt(r.below(0x1100)),
            ),
          )
        if (r.below(16) === 0)
          attempt(() =>
            sys.pwrite(device, argument, BigInt(r.below(13)) * 2n ** 40n + BigInt(r.below(0x1100))),
          )
        if (r.below(64) === 0) b.settle()
        if (r.below(500) === 0 && sys.process.fds.count > 100)
          for (const { fd: open } of [...sys.process.fds.entries()])
            if (open > device) sys.close(open)
      }
      expect(done).toBeGreaterThan(100)
    },
  )
})

describe('random programs', () => {
  it.each([11, 12, 13])(
    'of several processes keep to their own and leave nothing: seed %d',
    seed => {
      const r = generator(seed)
      const b = bench({
        acs: false,
        devices: [[dmaCopy, dmaCopy], [dmaCopy]],
        parameters: { pasidQuota: 8 },
      })
      const groups = [...new Set(b.functions.map(f => f.group))]
      const processes: Sys[] = []
      const memory = new Map<Sys, bigint>()
      let allocated = 0
      let bound = 0
      b.trace.listen('vfio.bind', e => {
        if (e.what === 'bind' && !e.errno) bound++
      })
      // Mostly a descriptor of the right kind, sometimes any number.
      const fd = (s: Sys, kind: string) => {
        const right = [...s.process.fds.entries()].filter(
          ({ file }) =>
            file.kind === kind && (!(file instanceof Container) || file.driver || !r.below(4)),
        )
        return right.length > 0 && r.below(20) ? r.pick(right).fd : r.below(12)
      }
      const steps: ((s: Sys) => unknown)[] = [
        s => s.open('/dev/vfio/vfio'),
        s => {
          const container = s.open('/dev/vfio/vfio')
          const group = s.open(`/dev/vfio/${r.pick(groups)}`)
          s.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(container))
          s.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU)
        },
        s => r.below(4) || s.open(`/dev/vfio/${r.pick(groups)}`),
        s => r.below(12) || s.close(r.below(12)),
        s => s.ioctl(fd(s, 'vfio-group'), VFIO_GROUP_SET_CONTAINER, s32(fd(s, 'vfio-container'))),
        s => s.ioctl(fd(s, 'vfio-container'), VFIO_SET_IOMMU, r.pick([1, 3, 6, 6, 6, 6])),
        s => s.ioctl(fd(s, 'vfio-group'), VFIO_GROUP_GET_DEVICE_FD, r.pick(b.functions).name),
        s => r.below(8) || s.ioctl(fd(s, 'vfio-group'), VFIO_GROUP_UNSET_CONTAINER),
        s =>
          s.ioctl(
            r.below(8),
            VFIO_IOMMU_MAP_DMA,
            vfio_iommu_type1_dma_map({
              flags: READ_WRITE,
              iova: BigInt(r.below(8)) << 12n,
              vaddr: memory.get(s)! + (BigInt(r.below(4)) << 12n),
              size: BigInt(1 + r.below(3)) << 12n,
            }),
          ),
        s =>
          s.ioctl(
            r.below(8),
            VFIO_IOMMU_UNMAP_DMA,
            vfio_iommu_type1_dma_unmap({
              iova: BigInt(r.below(8)) << 12n,
              size: BigInt(r.below(8)) << 12n,
            }),
          ),
        s => {
          const id = s.ioctl(fd(s, 'vfio-container'), VFIO_IOMMU_PASID_REQUEST, pasids(1, 1, 12))
          const owner = b.ioasid.owner(id)
          expect(b.ioasid.state(id)).toBe('IDLE')
          expect(owner?.quota).toBe(8)
          allocated++
        },
        s =>
          s.ioctl(
            fd(s, 'vfio-container'),
            VFIO_IOMMU_PASID_REQUEST,
            pasids(2, 1 + r.below(12), 12 + r.below(2)),
          ),
        s =>
          s.ioctl(
            r.below(8),
            VFIO_IOMMU_NESTING_OP,
            vfio_iommu_type1_nesting_op({
              flags: r.below(2),
              data: bindData({ hpasid: BigInt(1 + r.below(4)), gpgd: 0x1000n }).bytes,
            }),
          ),
        s => s.ioctl(fd(s, 'vfio-device'), VFIO_DEVICE_RESET),
        s => s.process.fds.closeAll(),
        s => s.exit(),
        s => {
          const child = s.fork()
          memory.set(child, memory.get(s)!)
          processes.push(child)
        },
      ]
      let done = 0
      for (let i = 0; i < 3500; i++) {
        while (processes.length < 3) {
          const s = b.spawn()
          memory.set(s, s.mmap(0x8000).vaddr)
          processes.push(s)
        }
        const s = r.pick(processes)
        // The calls on a container come twice as often; what ends things seldom.
        const step = r.below(12) ? steps[r.below(2) ? r.below(14) : 8 + r.below(5)]! : r.pick(steps)
        if (attempt(() => step(s))) done++
        if (r.below(3) === 0) b.clock.step()
        for (const p of [...processes])
          if (p.process.exited || processes.length > 5) {
            p.exit()
            processes.splice(processes.indexOf(p), 1)
          }
      }
      expect(done).toBeGreaterThan(300)
      expect(allocated, 'PASIDs allocated').toBeGreaterThan(20)
      expect(bound, 'tables bound').toBeGreaterThan(3)
    },
  )
})
