import { createMachine, dmaCopy, le16, le32, le64, s32 } from 'vfio-emu'
import * as uapi from 'vfio-emu/uapi'

// 1. A host with one device. Each function is in an isolation group; the group's file is in /dev/vfio.
const machine = createMachine({ devices: [{ at: '0000:01:00.0', model: dmaCopy }] })
const { sys, settle } = machine
const path = machine.groupOf('0000:01:00.0')

// 2. Container, group, IOMMU type: the order VFIO asks for.
const container = sys.open('/dev/vfio/vfio')
const group = sys.open(path)
sys.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, s32(container))
sys.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)

// 3. Memory that the device may use: ours, at an I/O virtual address of our choosing.
const buffer = sys.mmap(0x2000)
buffer.bytes.set(new TextEncoder().encode('passthrough'))
sys.ioctl(
  container,
  uapi.VFIO_IOMMU_MAP_DMA,
  uapi.vfio_iommu_type1_dma_map({
    flags: uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE,
    vaddr: buffer.vaddr,
    iova: 0x10_0000n,
    size: 0x2000n,
  }),
)

// 4. The device: its regions are at offsets that VFIO names. It arrives with bus mastering off.
const device = sys.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, '0000:01:00.0')
const region = (index: number) => {
  const info = uapi.vfio_region_info({ index })
  sys.ioctl(device, uapi.VFIO_DEVICE_GET_REGION_INFO, info)
  return info.offset
}
const config = region(uapi.VFIO_PCI_CONFIG_REGION_INDEX)
sys.pwrite(device, le16(0x0006), config + 0x04n) // PCI_COMMAND: memory space, bus master

// 5. Tell it what to copy, and let virtual time pass.
const bar0 = region(uapi.VFIO_PCI_BAR0_REGION_INDEX)
const { SRC, DST, LEN, CTRL, STATUS } = dmaCopy.bar0
const poke = (register: { offset: number }, value: Uint8Array) =>
  sys.pwrite(device, value, bar0 + BigInt(register.offset))
poke(SRC, le64(0x10_0000n))
poke(DST, le64(0x10_1000n))
poke(LEN, le32(11))
poke(CTRL, le32(1))
settle()
console.log(new TextDecoder().decode(buffer.bytes.subarray(0x1000, 0x100b)))

// 6. Take the mapping away: the same copy is refused, by the IOMMU and not by anybody's good will.
sys.ioctl(
  container,
  uapi.VFIO_IOMMU_UNMAP_DMA,
  uapi.vfio_iommu_type1_dma_unmap({ iova: 0x10_0000n, size: 0x2000n }),
)
poke(CTRL, le32(1))
settle()
console.log(`status ${sys.pread(device, 4, bar0 + BigInt(STATUS.offset))[0]}`) // DONE, and FAULT

// 7. Refusals read like strace.
try {
  sys.ioctl(container, uapi.VFIO_IOMMU_MAP_DMA, uapi.vfio_iommu_type1_dma_map({ size: 0x800n }))
} catch (error) {
  console.log((error as Error).message)
}
