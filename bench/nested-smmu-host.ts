// The same as nested-host.ts on a machine with an SMMUv3: the caller's memory as stage 2, page by page, and a guest's
// CD table in it that leads PASID 5 to stage 1 tables, all by the ioctls of profile N13.

import { CD } from '../src/iommu/smmu/cd.js'
import { createMachine } from '../src/machine.js'
import { dmaCopy } from '../src/pci/devices/dma-copy.js'
import type { PciFunction } from '../src/pci/function.js'
import { s32 } from '../src/sys/sys.js'
import {
  iommu_pasid_table_config,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_SET_PASID_TABLE,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_set_pasid_table,
} from '../src/uapi.js'
import { GVA, PAGES } from './nested-host.js'

const MIB = 2 ** 20
const AT = '0000:01:00.0'
const PASID = 5
/** Where things are in the guest's memory. */
const CONTEXTS = 0x1_0000
const TABLES = [0x2_0000, 0x2_1000, 0x2_2000, 0x2_3000] as const
const DATA = 0x10_0000

/** Builds it: PAGES pages from GVA on under the PASID. */
export function nestedSmmuHost(): { readonly function: PciFunction; readonly pasid: number } {
  const machine = createMachine({
    iommu: 'smmuv3',
    profile: 'N13',
    devices: [{ at: AT, model: dmaCopy }],
  })
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const container = sys.open('/dev/vfio/vfio')
  const group = sys.open(machine.groupOf(AT))
  sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(container))
  sys.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU)
  const memory = sys.mmap(4 * MIB)
  memory.bytes.fill(1)
  memory.bytes.fill(0, CONTEXTS, TABLES[3] + 0x1000)
  for (let at = 0n; at < 4n * BigInt(MIB); at += 4096n)
    sys.ioctl(
      container,
      VFIO_IOMMU_MAP_DMA,
      vfio_iommu_type1_dma_map({ flags: 3, vaddr: memory.vaddr + at, iova: at, size: 4096n }),
    )
  const cd = CD.create({
    V: true,
    AA64: true,
    T0SZ: 16,
    EPD1: true,
    IPS: 5,
    TTB0: TABLES[0],
    ASID: 9,
    ASET: true,
    R: true,
    A: true,
  })
  memory.bytes.set(cd.bytes, CONTEXTS + PASID * CD.size)
  const words = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.bytes.length)
  const index = (level: number) => Number((GVA >> BigInt(39 - 9 * level)) & 511n)
  for (const level of [0, 1, 2])
    words.setBigUint64(TABLES[level]! + index(level) * 8, BigInt(TABLES[level + 1]!) | 3n, true)
  for (let i = 0; i < PAGES; i++)
    words.setBigUint64(TABLES[3] + i * 8, BigInt(DATA + i * 4096) | 0xc43n, true)
  const config = iommu_pasid_table_config({
    version: 1,
    format: 1,
    config: 1,
    base_ptr: BigInt(CONTEXTS),
    pasid_bits: 6,
    smmuv3: { version: 1 },
  })
  const set = vfio_iommu_type1_set_pasid_table({ flags: 1, config })
  sys.ioctl(container, VFIO_IOMMU_SET_PASID_TABLE, set)
  sys.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, AT)
  const fn = machine.function(AT)
  fn.config.write(0x04, 2, 0x0006)
  return { function: fn, pasid: PASID }
}
