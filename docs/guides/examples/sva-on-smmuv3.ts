import { createMachine, dmaCopy, le16, le32, le64, s32 } from 'vfio-emu'
import * as uapi from 'vfio-emu/uapi'

// 1. A host with an SMMUv3 nests by profile N13: the guest's whole table of context descriptors goes under its device.
const { sys, settle } = createMachine({
  iommu: 'smmuv3',
  profile: 'N13',
  devices: [{ at: '0000:01:00.0', model: dmaCopy }],
})
const container = sys.open('/dev/vfio/vfio')
const group = sys.open('/dev/vfio/1')
sys.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, s32(container))
sys.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1_NESTING_IOMMU)

// 2. Guest memory: mapped once, it is stage 2. Guest physical 0 is the first byte.
const guest = sys.mmap(0x4_0000)
const map = { flags: 3, vaddr: guest.vaddr, iova: 0n, size: 0x4_0000n }
sys.ioctl(container, uapi.VFIO_IOMMU_MAP_DMA, uapi.vfio_iommu_type1_dma_map(map))
const words = new DataView(guest.bytes.buffer, guest.bytes.byteOffset)
const put = (at: number, value: bigint) => words.setBigUint64(at, value, true)

// 3. What the guest writes there: its process's page table, and the descriptor of PASID 5 that names it.
for (const level of [0, 1, 2])
  put(0x2_0000 + level * 0x1000, BigInt(0x2_1000 + level * 0x1000) | 3n)
const page = (gva: number, gpa: number) => put(0x2_3000 + (gva >> 12) * 8, BigInt(gpa) | 0xc43n)
page(0x1000, 0x3_0000)
page(0x2000, 0x3_1000)
put(0x1_0000 + 5 * 64, (9n << 48n) | 0xe205_c000_3510n) // ASID 9, 48 bits of 4 KB pages, EPD1, V
put(0x1_0000 + 5 * 64 + 8, 0x2_0000n)

// 4. SET_PASID_TABLE: 64 descriptors. From now on PASID 5 of the device is the guest's process.
const config = uapi.iommu_pasid_table_config({
  version: 1,
  format: uapi.IOMMU_PASID_FORMAT_SMMUV3,
  config: uapi.IOMMU_PASID_CONFIG_TRANSLATE,
  base_ptr: 0x1_0000n,
  pasid_bits: 6,
  smmuv3: { version: 1 },
})
const table = { flags: uapi.VFIO_PASID_TABLE_FLAG_SET, config }
sys.ioctl(container, uapi.VFIO_IOMMU_SET_PASID_TABLE, uapi.vfio_iommu_type1_set_pasid_table(table))

// 5. The device copies between the process's own addresses.
const device = sys.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, '0000:01:00.0')
const bar0 = uapi.vfio_region_info({ index: uapi.VFIO_PCI_BAR0_REGION_INDEX })
const space = uapi.vfio_region_info({ index: uapi.VFIO_PCI_CONFIG_REGION_INDEX })
sys.ioctl(device, uapi.VFIO_DEVICE_GET_REGION_INFO, bar0)
sys.ioctl(device, uapi.VFIO_DEVICE_GET_REGION_INFO, space)
sys.pwrite(device, le16(0x0006), space.offset + 0x04n) // memory space and bus master
const { SRC, DST, LEN, PASID, CTRL, STATUS } = dmaCopy.bar0
const poke = (reg: { offset: number }, value: Uint8Array) =>
  sys.pwrite(device, value, bar0.offset + BigInt(reg.offset))
function copy(): string {
  poke(SRC, le64(0x1000n))
  poke(DST, le64(0x2000n))
  poke(LEN, le32(11))
  poke(PASID, le32(0x8000_0005))
  poke(CTRL, le32(1))
  settle()
  const status = new Uint8Array(4)
  sys.pread(device, status, bar0.offset + BigInt(STATUS.offset))
  poke(STATUS, le32(3))
  const fault = (status[0]! & 2) !== 0
  return fault ? 'refused' : new TextDecoder().decode(guest.bytes.subarray(0x3_1000, 0x3_100b))
}
guest.bytes.set(new TextEncoder().encode('both stages'), 0x3_0000)
console.log(`copied: ${copy()}`)

// 6. The guest takes the page away. The device may go on with what it cached, until the guest's
//    invalidation is passed on: ATC_INV of PASID 5, as CACHE_INVALIDATE.
put(0x2_3000 + 2 * 8, 0n)
console.log(`page gone, nothing invalidated: ${copy()}`)
const info = uapi.iommu_cache_invalidate_info({
  version: 1,
  cache: uapi.IOMMU_CACHE_INV_TYPE_IOTLB,
  granularity: uapi.IOMMU_INV_GRANU_PASID,
})
Object.assign(info.granu.pasid_info, { flags: uapi.IOMMU_INV_PASID_FLAGS_ARCHID, archid: 9 })
const invalidate = uapi.vfio_iommu_type1_cache_invalidate({ info })
sys.ioctl(container, uapi.VFIO_IOMMU_CACHE_INVALIDATE, invalidate)
console.log(`invalidated: ${copy()}`)
