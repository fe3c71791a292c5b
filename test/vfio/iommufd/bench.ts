// A machine of the 7.2 profile and a program that uses iommufd, in the fewest words. Devices: two dma-copy in
// groups of their own unless told otherwise. `afterEach(checkIommufd)` expects that nothing is held.
import { expect } from 'vitest'
import { dmaCopy } from '../../../src/pci/devices/dma-copy.js'
import type { Sys } from '../../../src/sys/sys.js'
import {
  IOMMU_DESTROY,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_DATA_VTD_S1,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  iommu_destroy,
  iommu_fault_alloc,
  iommu_hwpt_alloc,
  iommu_hwpt_invalidate,
  iommu_hwpt_vtd_s1,
  iommu_hwpt_vtd_s1_invalidate,
  iommu_ioas_alloc,
  iommu_ioas_copy,
  iommu_ioas_iova_ranges,
  iommu_ioas_map,
  iommu_ioas_unmap,
  iommu_iova_range,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_PASID,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  vfio_device_detach_iommufd_pt,
} from '../../../src/uapi.js'
import { type VfioBench, vfioBench } from '../../support/vfio-bench.js'

type BenchOptions = NonNullable<Parameters<typeof vfioBench>[0]>

export const READ_WRITE = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE
export const READ_ONLY = IOMMU_IOAS_MAP_READABLE
export const PAGE = 0x1000n
export const ALL = 2n ** 64n - 1n

const benches: VfioBench[] = []

/** A machine with iommufd. */
export function iommufdBench(options: BenchOptions = {}): VfioBench {
  const made = vfioBench({ profile: 'L72', ...options })
  benches.push(made)
  return made
}

/** Ends every process and expects that nothing is held: for `afterEach`. */
export function checkIommufd(): void {
  for (const made of benches.splice(0)) {
    made.check()
    if (made.vfio.iommufd === undefined) continue
    expect(made.vfio.iommufd.holdings()).toEqual({
      iommufds: 0,
      objects: 0,
      areas: 0,
      lockedPages: 0,
    })
  }
}

/** A buffer for `entries` structures, with its address. */
export function userBytes(sys: Sys, bytes: Uint8Array): bigint {
  const room = sys.mmap(Math.max(1, bytes.length))
  room.bytes.set(bytes)
  return room.vaddr
}

/** A program with /dev/iommu open. */
export function user(b: VfioBench, sys: Sys = b.sys) {
  const fd = sys.open('/dev/iommu')
  const call = (cmd: number, arg: { readonly bytes: Uint8Array }) => sys.ioctl(fd, cmd, arg)
  const u = {
    sys,
    fd,
    call,
    destroy: (id: number) => call(IOMMU_DESTROY, iommu_destroy({ id })),
    ioas() {
      const arg = iommu_ioas_alloc()
      call(IOMMU_IOAS_ALLOC, arg)
      return arg.out_ioas_id
    },
    /** Maps at `iova`, or where there is room; answers where. */
    map(ioas_id: number, user_va: bigint, length: bigint, iova?: bigint, flags = READ_WRITE) {
      const arg = iommu_ioas_map({
        ioas_id,
        user_va,
        length,
        iova: iova ?? 0n,
        flags: flags | (iova === undefined ? 0 : IOMMU_IOAS_MAP_FIXED_IOVA),
      })
      call(IOMMU_IOAS_MAP, arg)
      return arg.iova
    },
    copy(
      src_ioas_id: number,
      src_iova: bigint,
      length: bigint,
      dst_ioas_id: number,
      iova?: bigint,
      flags = READ_WRITE,
    ) {
      const arg = iommu_ioas_copy({
        src_ioas_id,
        dst_ioas_id,
        src_iova,
        length,
        dst_iova: iova ?? 0n,
        flags: flags | (iova === undefined ? 0 : IOMMU_IOAS_MAP_FIXED_IOVA),
      })
      call(IOMMU_IOAS_COPY, arg)
      return arg.dst_iova
    },
    /** Answers the bytes removed. */
    unmap(ioas_id: number, iova: bigint, length: bigint) {
      const arg = iommu_ioas_unmap({ ioas_id, iova, length })
      call(IOMMU_IOAS_UNMAP, arg)
      return arg.length
    },
    ranges(ioas_id: number, room = 8) {
      const buffer = sys.mmap(0x1000)
      const arg = iommu_ioas_iova_ranges({
        ioas_id,
        num_iovas: room,
        allowed_iovas: buffer.vaddr,
      })
      call(IOMMU_IOAS_IOVA_RANGES, arg)
      const list = Array.from({ length: Math.min(room, arg.num_iovas) }, (_, i) => {
        const r = iommu_iova_range.at(buffer.bytes, i * iommu_iova_range.size)
        return [r.start, r.last]
      })
      sys.munmap(buffer.vaddr, 0x1000)
      return { list, count: arg.num_iovas, alignment: arg.out_iova_alignment }
    },
    hwpt(dev_id: number, pt_id: number, init: Parameters<typeof iommu_hwpt_alloc>[0] = {}) {
      const arg = iommu_hwpt_alloc({ dev_id, pt_id, ...init })
      call(IOMMU_HWPT_ALLOC, arg)
      return arg.out_hwpt_id
    },
    /** A guest's first-stage table over a parent. */
    nested(
      dev_id: number,
      pt_id: number,
      stage1: Parameters<typeof iommu_hwpt_vtd_s1>[0],
      init: Parameters<typeof iommu_hwpt_alloc>[0] = {},
    ) {
      const data = iommu_hwpt_vtd_s1({ addr_width: 48, ...stage1 })
      return u.hwpt(dev_id, pt_id, {
        data_type: IOMMU_HWPT_DATA_VTD_S1,
        data_len: data.bytes.length,
        data_uptr: userBytes(sys, data.bytes),
        ...init,
      })
    },
    /** Invalidates by entries; answers how many were handled. */
    invalidate(
      hwpt_id: number,
      entries: readonly Parameters<typeof iommu_hwpt_vtd_s1_invalidate>[0][],
      init: Parameters<typeof iommu_hwpt_invalidate>[0] = {},
    ) {
      const { size } = iommu_hwpt_vtd_s1_invalidate
      const bytes = new Uint8Array(entries.length * size)
      for (const [i, e] of entries.entries())
        bytes.set(iommu_hwpt_vtd_s1_invalidate(e).bytes, i * size)
      const arg = iommu_hwpt_invalidate({
        hwpt_id,
        data_uptr: userBytes(sys, bytes),
        entry_len: size,
        entry_num: entries.length,
        ...init,
      })
      call(IOMMU_HWPT_INVALIDATE, arg)
      return arg.entry_num
    },
    faultQueue() {
      const arg = iommu_fault_alloc()
      call(IOMMU_FAULT_QUEUE_ALLOC, arg)
      return { id: arg.out_fault_id, fd: arg.out_fault_fd }
    },
    /** Opens the file of a function and binds it here. */
    device(index = 0, iommufd = fd) {
      const file = sys.open(b.vfio.deviceFile(b.functions[index]!.fn.bdf)!)
      const arg = vfio_device_bind_iommufd({ iommufd })
      sys.ioctl(file, VFIO_DEVICE_BIND_IOMMUFD, arg)
      return device(b, sys, file, arg.out_devid)
    },
  }
  return u
}

/** A bound device. */
export function device(b: VfioBench, sys: Sys, fd: number, id: number) {
  const d = {
    fd,
    id,
    /** Answers the id of the table. */
    attach(pt_id: number, pasid?: number) {
      const flags = pasid === undefined ? 0 : VFIO_DEVICE_ATTACH_PASID
      const arg = vfio_device_attach_iommufd_pt({ flags, pt_id, pasid: pasid ?? 0 })
      sys.ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, arg)
      return arg.pt_id
    },
    detach(pasid?: number) {
      const flags = pasid === undefined ? 0 : VFIO_DEVICE_DETACH_PASID
      const arg = vfio_device_detach_iommufd_pt({ flags, pasid: pasid ?? 0 })
      return sys.ioctl(fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, arg)
    },
    /** Lets the function master the bus, and maps its first BAR. */
    start() {
      sys.pwrite(fd, Uint8Array.of(6, 0), (7n << 40n) + 4n)
      return sys.mmap({ fd, offset: 0, length: 0x1000 })
    },
    /** Copies by DMA of a dma-copy; false when a request was refused. */
    dma(src: bigint, dst: bigint, length = 8, pasid?: number) {
      const { SRC, DST, LEN, PASID, CTRL, STATUS } = dmaCopy.bar0
      const window = d.start()
      window.store(STATUS.offset, 4, 3n)
      window.store(SRC.offset, 8, src)
      window.store(DST.offset, 8, dst)
      window.store(LEN.offset, 4, BigInt(length))
      window.store(PASID.offset, 4, pasid === undefined ? 0n : 0x8000_0000n | BigInt(pasid))
      window.store(CTRL.offset, 4, 1n)
      b.settle()
      const status = Number(window.load(STATUS.offset, 4))
      sys.munmap(window.vaddr, 0x1000)
      if ((status & 1) === 0) throw new Error('the copy did not end')
      return (status & 2) === 0
    },
    close: () => sys.close(fd),
  }
  return d
}

/** A guest's memory: 64 KiB with a four-level table at 0x1000 that maps GVA 0x40_0000 to GPA 0x5000 and on. */
export function guestMemory(sys: Sys) {
  const memory = sys.mmap(0x1_0000)
  const words = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, 0x1_0000)
  const put = (at: number, value: number) => words.setBigUint64(at, BigInt(value), true)
  put(0x1000, 0x2007)
  put(0x2000, 0x3007)
  put(0x3000 + 2 * 8, 0x4007)
  return {
    vaddr: memory.vaddr,
    bytes: memory.bytes,
    root: 0x1000n,
    /** Maps page `n` of the GVA to a GPA, or not. */
    page: (n: number, gpa: number) => put(0x4000 + n * 8, gpa === 0 ? 0 : gpa | 7),
    word: (at: number) => words.getBigUint64(at, true),
    put,
  }
}
export const GVA = 0x40_0000n
