// uapi linux/kvm.h, 6.1 edition: the numbers and structures that are the same on every architecture, in header order.
// What each architecture adds is in x86.ts and arm64.ts; `struct kvm_run` is in run.ts.

import { flex, struct, union } from '../../../base/struct.js'
import { _IO, _IOR, _IOW } from '../../../sys/ioctl.js'

export * from './memory.js'

export const KVM_API_VERSION = 12
/** The ioctl type of KVM. */
export const KVMIO = 0xae

// ---- memory slots ----
export const kvm_userspace_memory_region = struct('struct kvm_userspace_memory_region', {
  slot: 'u32', // low 16 bits the slot, high 16 the address space
  flags: 'u32',
  guest_phys_addr: 'u64',
  memory_size: 'u64', // bytes; 0 deletes
  userspace_addr: 'u64', // start of the user's memory
})
export const KVM_MEM_LOG_DIRTY_PAGES = 1 << 0
export const KVM_MEM_READONLY = 1 << 1

export const kvm_dirty_log = struct('struct kvm_dirty_log', {
  slot: 'u32',
  padding1: 'u32',
  dirty_bitmap: 'u64', // pointer: one bit a page
})

// ---- exits ----
// biome-ignore format: table
export const
  KVM_EXIT_UNKNOWN         = 0,
  KVM_EXIT_EXCEPTION       = 1,
  KVM_EXIT_IO              = 2,
  KVM_EXIT_HYPERCALL       = 3,
  KVM_EXIT_DEBUG           = 4,
  KVM_EXIT_HLT             = 5,
  KVM_EXIT_MMIO            = 6,
  KVM_EXIT_IRQ_WINDOW_OPEN = 7,
  KVM_EXIT_SHUTDOWN        = 8,
  KVM_EXIT_FAIL_ENTRY      = 9,
  KVM_EXIT_INTR            = 10,
  KVM_EXIT_INTERNAL_ERROR  = 17,
  KVM_EXIT_SYSTEM_EVENT    = 24
// biome-ignore format: table
export const
  KVM_INTERNAL_ERROR_EMULATION   = 1,   // an instruction that cannot be emulated
  KVM_INTERNAL_ERROR_SIMUL_EX    = 2,
  KVM_INTERNAL_ERROR_DELIVERY_EV = 3 // an exit in the middle of an event's delivery
export const KVM_EXIT_IO_IN = 0
export const KVM_EXIT_IO_OUT = 1

// ---- vCPU calls ----
// biome-ignore format: table
export const
  KVM_MP_STATE_RUNNABLE      = 0,
  KVM_MP_STATE_UNINITIALIZED = 1,
  KVM_MP_STATE_INIT_RECEIVED = 2,
  KVM_MP_STATE_HALTED        = 3,
  KVM_MP_STATE_SIPI_RECEIVED = 4,
  KVM_MP_STATE_STOPPED       = 5,
  KVM_MP_STATE_SUSPENDED     = 10
export const kvm_mp_state = struct('struct kvm_mp_state', { mp_state: 'u32' })

export const KVM_GUESTDBG_ENABLE = 1
export const KVM_GUESTDBG_SINGLESTEP = 2
export const KVM_GUESTDBG_USE_SW_BP = 0x1_0000

// ---- interrupt routing ----
export const kvm_irq_routing_irqchip = struct('struct kvm_irq_routing_irqchip', {
  irqchip: 'u32',
  pin: 'u32',
})
export const kvm_irq_routing_msi = struct('struct kvm_irq_routing_msi', {
  address_lo: 'u32',
  address_hi: 'u32',
  data: 'u32',
  devid: 'u32',
})
export const KVM_IRQ_ROUTING_IRQCHIP = 1
export const KVM_IRQ_ROUTING_MSI = 2
export const kvm_irq_routing_entry = struct('struct kvm_irq_routing_entry', {
  gsi: 'u32',
  type: 'u32',
  flags: 'u32',
  pad: 'u32',
  u: union('u of struct kvm_irq_routing_entry', {
    irqchip: kvm_irq_routing_irqchip,
    msi: kvm_irq_routing_msi,
    pad: ['u32', 8],
  }),
})
export const kvm_irq_routing = struct('struct kvm_irq_routing', {
  nr: 'u32',
  flags: 'u32',
  entries: flex(kvm_irq_routing_entry),
})
/** `devid` of a message says who writes it. */
export const KVM_MSI_VALID_DEVID = 1 << 0
export const KVM_IRQFD_FLAG_DEASSIGN = 1 << 0
export const KVM_IRQFD_FLAG_RESAMPLE = 1 << 1
export const kvm_irqfd = struct('struct kvm_irqfd', {
  fd: 'u32',
  gsi: 'u32',
  flags: 'u32',
  resamplefd: 'u32',
  pad: ['u8', 16],
})
export const kvm_msi = struct('struct kvm_msi', {
  address_lo: 'u32',
  address_hi: 'u32',
  data: 'u32',
  flags: 'u32',
  devid: 'u32',
  pad: ['u8', 12],
})

export const kvm_enable_cap = struct('struct kvm_enable_cap', {
  cap: 'u32',
  flags: 'u32',
  args: ['u64', 4],
  pad: ['u8', 64],
})

// ---- extensions: CHECK_EXTENSION takes one by value ----
// biome-ignore format: table
export const
  KVM_CAP_IRQCHIP                     = 0,
  KVM_CAP_HLT                         = 1,
  KVM_CAP_USER_MEMORY                 = 3,
  KVM_CAP_SET_TSS_ADDR                = 4,
  KVM_CAP_EXT_CPUID                   = 7,
  KVM_CAP_NR_VCPUS                    = 9,
  KVM_CAP_NR_MEMSLOTS                 = 10,
  KVM_CAP_MP_STATE                    = 14,
  KVM_CAP_COALESCED_MMIO              = 15,
  KVM_CAP_SYNC_MMU                    = 16,
  KVM_CAP_DESTROY_MEMORY_REGION_WORKS = 21,
  KVM_CAP_USER_NMI                    = 22,
  KVM_CAP_SET_GUEST_DEBUG             = 23,
  KVM_CAP_IRQ_ROUTING                 = 25,
  KVM_CAP_JOIN_MEMORY_REGIONS_WORKS   = 30,
  KVM_CAP_IRQFD                       = 32,
  KVM_CAP_SET_IDENTITY_MAP_ADDR       = 37,
  KVM_CAP_INTERNAL_ERROR_DATA         = 40,
  KVM_CAP_VCPU_EVENTS                 = 41,
  KVM_CAP_INTR_SHADOW                 = 49,
  KVM_CAP_GET_TSC_KHZ                 = 61,
  KVM_CAP_MAX_VCPUS                   = 66,
  KVM_CAP_SIGNAL_MSI                  = 77,
  KVM_CAP_READONLY_MEM                = 81,
  KVM_CAP_ENABLE_CAP_VM               = 98,
  KVM_CAP_CHECK_EXTENSION_VM          = 105,
  KVM_CAP_MAX_VCPU_ID                 = 128,
  KVM_CAP_IMMEDIATE_EXIT              = 136,
  KVM_CAP_SET_GUEST_DEBUG2            = 195,
  KVM_CAP_EXIT_HYPERCALL              = 201

// ---- ioctl numbers ----
// /dev/kvm
export const KVM_GET_API_VERSION = _IO(KVMIO, 0x00)
export const KVM_CREATE_VM = _IO(KVMIO, 0x01)
export const KVM_CHECK_EXTENSION = _IO(KVMIO, 0x03)
export const KVM_GET_VCPU_MMAP_SIZE = _IO(KVMIO, 0x04)
// a VM
export const KVM_CREATE_VCPU = _IO(KVMIO, 0x41)
export const KVM_GET_DIRTY_LOG = _IOW(KVMIO, 0x42, kvm_dirty_log.size)
export const KVM_SET_USER_MEMORY_REGION = _IOW(KVMIO, 0x46, kvm_userspace_memory_region.size)
export const KVM_CREATE_IRQCHIP = _IO(KVMIO, 0x60)
export const KVM_SET_GSI_ROUTING = _IOW(KVMIO, 0x6a, kvm_irq_routing.size)
export const KVM_IRQFD = _IOW(KVMIO, 0x76, kvm_irqfd.size)
export const KVM_SIGNAL_MSI = _IOW(KVMIO, 0xa5, kvm_msi.size)
export const KVM_ENABLE_CAP = _IOW(KVMIO, 0xa3, kvm_enable_cap.size)
// a vCPU
export const KVM_RUN = _IO(KVMIO, 0x80)
export const KVM_GET_MP_STATE = _IOR(KVMIO, 0x98, kvm_mp_state.size)
export const KVM_SET_MP_STATE = _IOW(KVMIO, 0x99, kvm_mp_state.size)
