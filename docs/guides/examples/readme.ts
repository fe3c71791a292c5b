import { createMachine, dmaCopy, le16, le32, le64, s32 } from 'vfio-emu'
import * as uapi from 'vfio-emu/uapi'

const { sys, settle } = createMachine({ devices: [{ at: '0000:01:00.0', model: dmaCopy }] })

const container = sys.open('/dev/vfio/vfio')
const group = sys.open('/dev/vfio/1')
sys.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, s32(container))
sys.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)

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

const device = sys.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, '0000:01:00.0')
const bar0 = uapi.vfio_region_info({ index: uapi.VFIO_PCI_BAR0_REGION_INDEX })
const config = uapi.vfio_region_info({ index: uapi.VFIO_PCI_CONFIG_REGION_INDEX })
sys.ioctl(device, uapi.VFIO_DEVICE_GET_REGION_INFO, bar0)
sys.ioctl(device, uapi.VFIO_DEVICE_GET_REGION_INFO, config)
sys.pwrite(device, le16(0x0006), config.offset + 0x04n) // memory space and bus master

const { SRC, DST, LEN, CTRL } = dmaCopy.bar0
const poke = (reg: { offset: number }, value: Uint8Array) =>
  sys.pwrite(device, value, bar0.offset + BigInt(reg.offset))
poke(SRC, le64(0x10_0000n))
poke(DST, le64(0x10_1000n))
poke(LEN, le32(11))
poke(CTRL, le32(1))
settle()

console.log(new TextDecoder().decode(buffer.bytes.subarray(0x1000, 0x100b))) // passthrough
