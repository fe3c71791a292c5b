import { createMachine, dmaCopy, ErrnoError, explain, le16, le32, le64, s32 } from 'vfio-emu'
import * as uapi from 'vfio-emu/uapi'

const PAGE = 4096n
const errno = (call: () => unknown): string => {
  try {
    call()
    return 'ok'
  } catch (error) {
    if (error instanceof ErrnoError) return error.code
    throw error
  }
}

// 1. A host whose checker watches for DMA to what guests made private.
const machine = createMachine({
  devices: [{ at: '0000:01:00.0', model: dmaCopy }],
  detectConfidentialDma: true,
})
const { sys, settle } = machine

// 2. A VM of the software-protected type, and a file that only guests can have.
const kvm = sys.open('/dev/kvm')
const vm = sys.ioctl(kvm, uapi.KVM_CREATE_VM, uapi.KVM_X86_SW_PROTECTED_VM)
const create = uapi.kvm_create_guest_memfd({ size: 2n * PAGE })
const memfd = sys.ioctl(vm, uapi.KVM_CREATE_GUEST_MEMFD, create)
console.log(`read: ${errno(() => sys.read(memfd, 8))}`)
console.log(`mmap: ${errno(() => sys.mmap({ fd: memfd, offset: 0, length: 4096 }))}`)

// 3. A slot with two memories: ours, which the guest shares, and the file, which it keeps to itself.
const shared = sys.mmap(0x2000)
shared.bytes.set(new TextEncoder().encode('shared'))
const region = uapi.kvm_userspace_memory_region2({
  flags: uapi.KVM_MEM_GUEST_MEMFD,
  guest_phys_addr: 0x10_0000n,
  memory_size: 2n * PAGE,
  userspace_addr: shared.vaddr,
  guest_memfd: memfd,
})
sys.ioctl(vm, uapi.KVM_SET_USER_MEMORY_REGION2, region)

// 4. A device of the guest's: both pages are mapped for it. It copies the first to the second.
const container = sys.open('/dev/vfio/vfio')
const group = sys.open(machine.groupOf('0000:01:00.0'))
sys.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, s32(container))
sys.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)
const map = { flags: 3, vaddr: shared.vaddr, iova: 0x10_0000n, size: 2n * PAGE }
sys.ioctl(container, uapi.VFIO_IOMMU_MAP_DMA, uapi.vfio_iommu_type1_dma_map(map))
const device = sys.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, '0000:01:00.0')
sys.pwrite(device, le16(6), (7n << 40n) + 4n) // memory space, bus master
const { SRC, DST, LEN, CTRL, STATUS } = dmaCopy.bar0
const poke = (at: number, value: Uint8Array) => sys.pwrite(device, value, BigInt(at))
const copy = () => {
  poke(STATUS.offset, le32(3))
  poke(SRC.offset, le64(0x10_0000n))
  poke(DST.offset, le64(0x10_1000n))
  poke(LEN.offset, le32(6))
  poke(CTRL.offset, le32(1))
  settle()
  return sys.pread(device, 4, BigInt(STATUS.offset))[0] === 1 ? 'copied' : 'refused'
}
console.log(
  `device: ${copy()} "${new TextDecoder().decode(shared.bytes.subarray(0x1000, 0x1006))}"`,
)

// 5. The first page becomes private. We unmapped nothing, and the device cannot reach it any more.
const set = (attributes: bigint) =>
  sys.ioctl(
    vm,
    uapi.KVM_SET_MEMORY_ATTRIBUTES,
    uapi.kvm_memory_attributes({ address: 0x10_0000n, size: PAGE, attributes }),
  )
set(BigInt(uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE))
console.log(
  `device: ${copy()}; mapping it again: ${errno(() => sys.ioctl(container, uapi.VFIO_IOMMU_MAP_DMA, uapi.vfio_iommu_type1_dma_map({ ...map, iova: 0n, size: PAGE })))}`,
)
console.log(explain(machine.confidentialDmas[0]!).split('\n')[0])

// 6. Shared again, by the mapping that was there all the time.
set(0n)
console.log(`device: ${copy()}`)
