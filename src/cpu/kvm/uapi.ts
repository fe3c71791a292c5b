// uapi linux/kvm.h and asm/kvm.h for x86, 6.1 edition: the numbers and structures of the calls that are
// modelled, in header order. Left out: what other architectures, nested virtualisation, Hyper-V, Xen and
// SEV add. The anonymous union of `struct kvm_run` is called `u` here: `run.u.io.port`.
import { flex, struct, union } from '../../base/struct.js'
import { _IO, _IOR, _IOW, _IOWR } from '../../sys/ioctl.js'

export const KVM_API_VERSION = 12
/** The ioctl type of KVM. */
export const KVMIO = 0xae

export const KVM_NR_INTERRUPTS = 256
/** Pages of a vCPU's mapping: `struct kvm_run`, data of port exits, coalesced MMIO (never filled). */
export const KVM_PIO_PAGE_OFFSET = 1
export const KVM_COALESCED_MMIO_PAGE_OFFSET = 2

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

// ---- registers ----
export const kvm_regs = struct('struct kvm_regs', {
  rax: 'u64',
  rbx: 'u64',
  rcx: 'u64',
  rdx: 'u64',
  rsi: 'u64',
  rdi: 'u64',
  rsp: 'u64',
  rbp: 'u64',
  r8: 'u64',
  r9: 'u64',
  r10: 'u64',
  r11: 'u64',
  r12: 'u64',
  r13: 'u64',
  r14: 'u64',
  r15: 'u64',
  rip: 'u64',
  rflags: 'u64',
})

export const KVM_APIC_REG_SIZE = 0x400
export const kvm_lapic_state = struct('struct kvm_lapic_state', { regs: ['u8', 0x400] })

export const kvm_segment = struct('struct kvm_segment', {
  base: 'u64',
  limit: 'u32', // in bytes, granularity applied
  selector: 'u16',
  type: 'u8',
  present: 'u8',
  dpl: 'u8',
  db: 'u8',
  s: 'u8',
  l: 'u8',
  g: 'u8',
  avl: 'u8',
  unusable: 'u8',
  padding: 'u8',
})
export const kvm_dtable = struct('struct kvm_dtable', {
  base: 'u64',
  limit: 'u16',
  padding: ['u16', 3],
})
export const kvm_sregs = struct('struct kvm_sregs', {
  cs: kvm_segment,
  ds: kvm_segment,
  es: kvm_segment,
  fs: kvm_segment,
  gs: kvm_segment,
  ss: kvm_segment,
  tr: kvm_segment,
  ldt: kvm_segment,
  gdt: kvm_dtable,
  idt: kvm_dtable,
  cr0: 'u64',
  cr2: 'u64',
  cr3: 'u64',
  cr4: 'u64',
  cr8: 'u64',
  efer: 'u64',
  apic_base: 'u64',
  interrupt_bitmap: ['u64', 4],
})

export const kvm_fpu = struct('struct kvm_fpu', {
  fpr: ['u8', 128],
  fcw: 'u16',
  fsw: 'u16',
  ftwx: 'u8',
  pad1: 'u8',
  last_opcode: 'u16',
  last_ip: 'u64',
  last_dp: 'u64',
  xmm: ['u8', 256],
  mxcsr: 'u32',
  pad2: 'u32',
})

export const kvm_msr_entry = struct('struct kvm_msr_entry', {
  index: 'u32',
  reserved: 'u32',
  data: 'u64',
})
export const kvm_msrs = struct('struct kvm_msrs', {
  nmsrs: 'u32',
  pad: 'u32',
  entries: flex(kvm_msr_entry),
})
export const kvm_msr_list = struct('struct kvm_msr_list', { nmsrs: 'u32', indices: flex('u32') })

export const kvm_cpuid_entry2 = struct('struct kvm_cpuid_entry2', {
  function: 'u32',
  index: 'u32',
  flags: 'u32',
  eax: 'u32',
  ebx: 'u32',
  ecx: 'u32',
  edx: 'u32',
  padding: ['u32', 3],
})
export const KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1 << 0
export const kvm_cpuid2 = struct('struct kvm_cpuid2', {
  nent: 'u32',
  padding: 'u32',
  entries: flex(kvm_cpuid_entry2),
})

const kvm_debug_exit_arch = struct('struct kvm_debug_exit_arch', {
  exception: 'u32',
  pad: 'u32',
  pc: 'u64',
  dr6: 'u64',
  dr7: 'u64',
})

// ---- events ----
export const KVM_VCPUEVENT_VALID_NMI_PENDING = 1
export const KVM_VCPUEVENT_VALID_SIPI_VECTOR = 2
export const KVM_VCPUEVENT_VALID_SHADOW = 4
export const KVM_X86_SHADOW_INT_MOV_SS = 1
export const KVM_X86_SHADOW_INT_STI = 2
export const kvm_vcpu_events = struct('struct kvm_vcpu_events', {
  exception: struct('exception of struct kvm_vcpu_events', {
    injected: 'u8',
    nr: 'u8',
    has_error_code: 'u8',
    pending: 'u8',
    error_code: 'u32',
  }),
  interrupt: struct('interrupt of struct kvm_vcpu_events', {
    injected: 'u8',
    nr: 'u8',
    soft: 'u8',
    shadow: 'u8',
  }),
  nmi: struct('nmi of struct kvm_vcpu_events', {
    injected: 'u8',
    pending: 'u8',
    masked: 'u8',
    pad: 'u8',
  }),
  sipi_vector: 'u32',
  flags: 'u32',
  smi: struct('smi of struct kvm_vcpu_events', {
    smm: 'u8',
    pending: 'u8',
    smm_inside_nmi: 'u8',
    latched_init: 'u8',
  }),
  triple_fault: struct('triple_fault of struct kvm_vcpu_events', { pending: 'u8' }),
  reserved: ['u8', 26],
  exception_has_payload: 'u8',
  exception_payload: 'u64',
})
export const kvm_debugregs = struct('struct kvm_debugregs', {
  db: ['u64', 4],
  dr6: 'u64',
  dr7: 'u64',
  flags: 'u64',
  reserved: ['u64', 9],
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
  KVM_EXIT_INTERNAL_ERROR  = 17
// biome-ignore format: table
export const
  KVM_INTERNAL_ERROR_EMULATION   = 1,   // an instruction that cannot be emulated
  KVM_INTERNAL_ERROR_SIMUL_EX    = 2,
  KVM_INTERNAL_ERROR_DELIVERY_EV = 3 // an exit in the middle of an event's delivery
export const KVM_EXIT_IO_IN = 0
export const KVM_EXIT_IO_OUT = 1

const kvm_sync_regs = struct('struct kvm_sync_regs', {
  regs: kvm_regs,
  sregs: kvm_sregs,
  events: kvm_vcpu_events,
})

/** The page a vCPU shares with its owner: mapped at offset 0 of the vCPU's fd. */
export const kvm_run = struct('struct kvm_run', {
  request_interrupt_window: 'u8', // in
  immediate_exit: 'u8', // in
  padding1: ['u8', 6],
  exit_reason: 'u32', // out, from here
  ready_for_interrupt_injection: 'u8',
  if_flag: 'u8',
  flags: 'u16',
  cr8: 'u64', // in and out
  apic_base: 'u64',
  u: union('exit of struct kvm_run', {
    hw: struct('hw of struct kvm_run', { hardware_exit_reason: 'u64' }),
    fail_entry: struct('fail_entry of struct kvm_run', {
      hardware_entry_failure_reason: 'u64',
      cpu: 'u32',
    }),
    ex: struct('ex of struct kvm_run', { exception: 'u32', error_code: 'u32' }),
    io: struct('io of struct kvm_run', {
      direction: 'u8',
      size: 'u8', // bytes: 1, 2 or 4
      port: 'u16',
      count: 'u32',
      data_offset: 'u64', // from the start of kvm_run
    }),
    debug: struct('debug of struct kvm_run', { arch: kvm_debug_exit_arch }),
    mmio: struct('mmio of struct kvm_run', {
      phys_addr: 'u64',
      data: ['u8', 8],
      len: 'u32',
      is_write: 'u8',
    }),
    hypercall: struct('hypercall of struct kvm_run', {
      nr: 'u64',
      args: ['u64', 6],
      ret: 'u64', // in
      longmode: 'u32',
      pad: 'u32',
    }),
    internal: struct('internal of struct kvm_run', {
      suberror: 'u32',
      ndata: 'u32',
      data: ['u64', 16],
    }),
    padding: ['u8', 256],
  }),
  kvm_valid_regs: 'u64',
  kvm_dirty_regs: 'u64',
  s: union('s of struct kvm_run', { regs: kvm_sync_regs, padding: ['u8', 2048] }),
})

// ---- vCPU calls ----
export const kvm_translation = struct('struct kvm_translation', {
  linear_address: 'u64', // in
  physical_address: 'u64', // out, from here
  valid: 'u8',
  writeable: 'u8',
  usermode: 'u8',
  pad: ['u8', 5],
})
export const kvm_interrupt = struct('struct kvm_interrupt', { irq: 'u32' })
// biome-ignore format: table
export const
  KVM_MP_STATE_RUNNABLE      = 0,
  KVM_MP_STATE_UNINITIALIZED = 1,
  KVM_MP_STATE_INIT_RECEIVED = 2,
  KVM_MP_STATE_HALTED        = 3,
  KVM_MP_STATE_SIPI_RECEIVED = 4
export const kvm_mp_state = struct('struct kvm_mp_state', { mp_state: 'u32' })

export const KVM_GUESTDBG_ENABLE = 1
export const KVM_GUESTDBG_SINGLESTEP = 2
export const KVM_GUESTDBG_USE_SW_BP = 0x1_0000
export const kvm_guest_debug = struct('struct kvm_guest_debug', {
  control: 'u32',
  pad: 'u32',
  arch: struct('struct kvm_guest_debug_arch', { debugreg: ['u64', 8] }),
})

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
/** Hypercall by which a guest asks to share or unshare pages; exits when KVM_CAP_EXIT_HYPERCALL has its bit. */
export const KVM_HC_MAP_GPA_RANGE = 12

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
  KVM_CAP_DEBUGREGS                   = 50,
  KVM_CAP_GET_TSC_KHZ                 = 61,
  KVM_CAP_MAX_VCPUS                   = 66,
  KVM_CAP_SIGNAL_MSI                  = 77,
  KVM_CAP_READONLY_MEM                = 81,
  KVM_CAP_ENABLE_CAP_VM               = 98,
  KVM_CAP_CHECK_EXTENSION_VM          = 105,
  KVM_CAP_MAX_VCPU_ID                 = 128,
  KVM_CAP_IMMEDIATE_EXIT              = 136,
  KVM_CAP_EXIT_HYPERCALL              = 201

// ---- ioctl numbers ----
// /dev/kvm
export const KVM_GET_API_VERSION = _IO(KVMIO, 0x00)
export const KVM_CREATE_VM = _IO(KVMIO, 0x01)
export const KVM_GET_MSR_INDEX_LIST = _IOWR(KVMIO, 0x02, kvm_msr_list.size)
export const KVM_CHECK_EXTENSION = _IO(KVMIO, 0x03)
export const KVM_GET_VCPU_MMAP_SIZE = _IO(KVMIO, 0x04)
export const KVM_GET_SUPPORTED_CPUID = _IOWR(KVMIO, 0x05, kvm_cpuid2.size)
// a VM
export const KVM_CREATE_VCPU = _IO(KVMIO, 0x41)
export const KVM_GET_DIRTY_LOG = _IOW(KVMIO, 0x42, kvm_dirty_log.size)
export const KVM_SET_USER_MEMORY_REGION = _IOW(KVMIO, 0x46, kvm_userspace_memory_region.size)
export const KVM_SET_TSS_ADDR = _IO(KVMIO, 0x47)
export const KVM_SET_IDENTITY_MAP_ADDR = _IOW(KVMIO, 0x48, 8)
export const KVM_CREATE_IRQCHIP = _IO(KVMIO, 0x60)
export const KVM_SET_GSI_ROUTING = _IOW(KVMIO, 0x6a, kvm_irq_routing.size)
export const KVM_IRQFD = _IOW(KVMIO, 0x76, kvm_irqfd.size)
export const KVM_SIGNAL_MSI = _IOW(KVMIO, 0xa5, kvm_msi.size)
export const KVM_ENABLE_CAP = _IOW(KVMIO, 0xa3, kvm_enable_cap.size)
// a vCPU
export const KVM_RUN = _IO(KVMIO, 0x80)
export const KVM_GET_REGS = _IOR(KVMIO, 0x81, kvm_regs.size)
export const KVM_SET_REGS = _IOW(KVMIO, 0x82, kvm_regs.size)
export const KVM_GET_SREGS = _IOR(KVMIO, 0x83, kvm_sregs.size)
export const KVM_SET_SREGS = _IOW(KVMIO, 0x84, kvm_sregs.size)
export const KVM_TRANSLATE = _IOWR(KVMIO, 0x85, kvm_translation.size)
export const KVM_INTERRUPT = _IOW(KVMIO, 0x86, kvm_interrupt.size)
export const KVM_GET_MSRS = _IOWR(KVMIO, 0x88, kvm_msrs.size)
export const KVM_SET_MSRS = _IOW(KVMIO, 0x89, kvm_msrs.size)
export const KVM_GET_FPU = _IOR(KVMIO, 0x8c, kvm_fpu.size)
export const KVM_SET_FPU = _IOW(KVMIO, 0x8d, kvm_fpu.size)
export const KVM_GET_LAPIC = _IOR(KVMIO, 0x8e, kvm_lapic_state.size)
export const KVM_SET_LAPIC = _IOW(KVMIO, 0x8f, kvm_lapic_state.size)
export const KVM_SET_CPUID2 = _IOW(KVMIO, 0x90, kvm_cpuid2.size)
export const KVM_GET_CPUID2 = _IOWR(KVMIO, 0x91, kvm_cpuid2.size)
export const KVM_GET_MP_STATE = _IOR(KVMIO, 0x98, kvm_mp_state.size)
export const KVM_SET_MP_STATE = _IOW(KVMIO, 0x99, kvm_mp_state.size)
export const KVM_NMI = _IO(KVMIO, 0x9a)
export const KVM_SET_GUEST_DEBUG = _IOW(KVMIO, 0x9b, kvm_guest_debug.size)
export const KVM_GET_VCPU_EVENTS = _IOR(KVMIO, 0x9f, kvm_vcpu_events.size)
export const KVM_SET_VCPU_EVENTS = _IOW(KVMIO, 0xa0, kvm_vcpu_events.size)
export const KVM_GET_DEBUGREGS = _IOR(KVMIO, 0xa1, kvm_debugregs.size)
export const KVM_SET_DEBUGREGS = _IOW(KVMIO, 0xa2, kvm_debugregs.size)
export const KVM_GET_TSC_KHZ = _IO(KVMIO, 0xa3)
