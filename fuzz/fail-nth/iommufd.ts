// The calls of /dev/iommu and of device files bound to one, for cases.ts.

import * as u from '../../src/uapi.js'
import { PLACES } from '../devices.js'
import type { FailCase } from './cases.js'
import type { World } from './world.js'

const PAGE = 4096n
const READ_WRITE = u.IOMMU_IOAS_MAP_READABLE | u.IOMMU_IOAS_MAP_WRITEABLE
const machine = { profile: 'L72' } as const
const PAIR = 1

/** A program with an iommufd, an address space with eight pages in it, and a device bound. */
function program(w: World) {
  const fd = w.sys.open('/dev/iommu')
  const ioas = () => {
    const arg = u.iommu_ioas_alloc()
    w.ioctl(fd, u.IOMMU_IOAS_ALLOC, arg)
    return arg.out_ioas_id
  }
  const map = (ioas_id: number, iova: bigint, pages: number) => {
    const user_va = w.sys.mmap(pages * 4096).vaddr
    const flags = READ_WRITE | u.IOMMU_IOAS_MAP_FIXED_IOVA
    const length = BigInt(pages) * PAGE
    const arg = u.iommu_ioas_map({ flags, ioas_id, user_va, length, iova })
    return () => w.ioctl(fd, u.IOMMU_IOAS_MAP, arg)
  }
  const file = w.sys.open(w.host.vfio.deviceFile(w.host.function(PLACES[PAIR]!.name).bdf)!)
  const bind = () => {
    const arg = u.vfio_device_bind_iommufd({ iommufd: fd })
    w.ioctl(file, u.VFIO_DEVICE_BIND_IOMMUFD, arg)
    return arg.out_devid
  }
  const hwpt = (dev_id: number, pt_id: number, flags = 0) => {
    const arg = u.iommu_hwpt_alloc({ dev_id, pt_id, flags })
    w.ioctl(fd, u.IOMMU_HWPT_ALLOC, arg)
    return arg.out_hwpt_id
  }
  const attach = (pt_id: number, pasid?: number) => {
    const flags = pasid === undefined ? 0 : u.VFIO_DEVICE_ATTACH_PASID
    const arg = u.vfio_device_attach_iommufd_pt({ flags, pt_id, pasid: pasid ?? 0 })
    return w.ioctl(file, u.VFIO_DEVICE_ATTACH_IOMMUFD_PT, arg)
  }
  return { fd, ioas, map, bind, hwpt, attach }
}

type Program = ReturnType<typeof program>

const on = (call: string, run: (p: Program, w: World) => () => unknown): FailCase => ({
  call: `iommufd ${call}`,
  machine,
  in: w => ({ run: run(program(w), w) }),
})

/** With an address space that holds pages, and a device bound. */
const ready = (p: Program) => {
  const ioas = p.ioas()
  p.map(ioas, 0n, 8)()
  return { ioas, device: p.bind() }
}

/** Cases of iommufd, under the revision that has it. */
export const IOMMUFD: readonly FailCase[] = [
  { call: 'open /dev/iommu', machine, in: w => ({ run: () => w.sys.open('/dev/iommu') }) },
  on('IOAS_ALLOC', p => () => void p.ioas()),
  on('IOAS_MAP, without a table', p => p.map(p.ioas(), 0n, 4)),
  on('IOAS_MAP, with a table', p => {
    const { ioas, device } = ready(p)
    p.hwpt(device, ioas)
    return p.map(ioas, 0x10_0000n, 4)
  }),
  on('IOAS_COPY', (p, w) => {
    const { ioas } = ready(p)
    const arg = u.iommu_ioas_copy({
      flags: READ_WRITE | u.IOMMU_IOAS_MAP_FIXED_IOVA,
      dst_ioas_id: p.ioas(),
      src_ioas_id: ioas,
      length: 4n * PAGE,
      dst_iova: 0n,
      src_iova: PAGE,
    })
    return () => w.ioctl(p.fd, u.IOMMU_IOAS_COPY, arg)
  }),
  on('HWPT_ALLOC', p => {
    const { ioas, device } = ready(p)
    return () => void p.hwpt(device, ioas)
  }),
  on('HWPT_ALLOC, nested', (p, w) => {
    const { ioas, device } = ready(p)
    const parent = p.hwpt(device, ioas, u.IOMMU_HWPT_ALLOC_NEST_PARENT)
    const stage1 = u.iommu_hwpt_vtd_s1({ addr_width: 48, pgtbl_addr: PAGE })
    const buffer = w.sys.mmap(4096)
    buffer.bytes.set(stage1.bytes)
    const arg = u.iommu_hwpt_alloc({
      dev_id: device,
      pt_id: parent,
      data_type: u.IOMMU_HWPT_DATA_VTD_S1,
      data_len: stage1.bytes.length,
      data_uptr: buffer.vaddr,
    })
    return () => w.ioctl(p.fd, u.IOMMU_HWPT_ALLOC, arg)
  }),
  on(
    'FAULT_QUEUE_ALLOC',
    (p, w) => () => w.ioctl(p.fd, u.IOMMU_FAULT_QUEUE_ALLOC, u.iommu_fault_alloc()),
  ),
  on('DEVICE_BIND_IOMMUFD', p => () => void p.bind()),
  on('DEVICE_ATTACH_IOMMUFD_PT, an address space', p => {
    const { ioas } = ready(p)
    return () => p.attach(ioas)
  }),
  on('DEVICE_ATTACH_IOMMUFD_PT, another table', p => {
    const { ioas, device } = ready(p)
    p.attach(ioas)
    const other = p.hwpt(device, ioas)
    return () => p.attach(other)
  }),
  on('DEVICE_ATTACH_IOMMUFD_PT, a PASID', p => {
    const { ioas, device } = ready(p)
    const flags = u.IOMMU_HWPT_ALLOC_PASID
    p.attach(p.hwpt(device, ioas, flags))
    const other = p.hwpt(device, ioas, flags)
    return () => p.attach(other, 5)
  }),
]
