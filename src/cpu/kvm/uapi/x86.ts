// uapi asm/kvm.h of x86 and the x86 parts of linux/kvm.h, 6.1 edition, in header order. Left out: nested
// virtualisation, Hyper-V, Xen.

import { flex, struct } from '../../../base/struct.js'
import { _IO, _IOR, _IOW, _IOWR } from '../../../sys/ioctl.js'
import { KVMIO } from './common.js'
import { kvmRun } from './run.js'

export * from './sev.js'

export const KVM_NR_INTERRUPTS = 256
/** Pages of a vCPU's mapping: `struct kvm_run`, data of port exits, coalesced MMIO (never filled). */
export const KVM_PIO_PAGE_OFFSET = 1
export const KVM_COALESCED_MMIO_PAGE_OFFSET = 2

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

const kvm_sync_regs = struct('struct kvm_sync_regs', {
  regs: kvm_regs,
  sregs: kvm_sregs,
  events: kvm_vcpu_events,
})

/** The page a vCPU shares with its owner: mapped at offset 0 of the vCPU's fd. */
export const kvm_run = kvmRun(kvm_debug_exit_arch, kvm_sync_regs)

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
/** Breakpoints of `arch.debugreg` (KVM_SET_GUEST_DEBUG). */
export const KVM_GUESTDBG_USE_HW_BP = 0x2_0000
/** Exceptions to deliver at the next KVM_RUN. */
export const KVM_GUESTDBG_INJECT_DB = 0x4_0000
export const KVM_GUESTDBG_INJECT_BP = 0x8_0000
/** No interrupt is delivered meanwhile. */
export const KVM_GUESTDBG_BLOCKIRQ = 0x10_0000
export const kvm_guest_debug = struct('struct kvm_guest_debug', {
  control: 'u32',
  pad: 'u32',
  arch: struct('struct kvm_guest_debug_arch', { debugreg: ['u64', 8] }),
})

/** Hypercall by which a guest asks to share or unshare pages; exits when KVM_CAP_EXIT_HYPERCALL has its bit. */
export const KVM_HC_MAP_GPA_RANGE = 12

// ---- types of VM: the argument of KVM_CREATE_VM ----
export const KVM_X86_DEFAULT_VM = 0
/** Private memory kept by software alone: for tests of what surrounds it. */
export const KVM_X86_SW_PROTECTED_VM = 1

// ---- extensions that only x86 has a number for ----
export const KVM_CAP_DEBUGREGS = 50

// ---- ioctl numbers ----
// /dev/kvm
export const KVM_GET_MSR_INDEX_LIST = _IOWR(KVMIO, 0x02, kvm_msr_list.size)
export const KVM_GET_SUPPORTED_CPUID = _IOWR(KVMIO, 0x05, kvm_cpuid2.size)
// a VM
export const KVM_SET_TSS_ADDR = _IO(KVMIO, 0x47)
export const KVM_SET_IDENTITY_MAP_ADDR = _IOW(KVMIO, 0x48, 8)
// a vCPU
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
export const KVM_NMI = _IO(KVMIO, 0x9a)
export const KVM_SET_GUEST_DEBUG = _IOW(KVMIO, 0x9b, kvm_guest_debug.size)
export const KVM_GET_VCPU_EVENTS = _IOR(KVMIO, 0x9f, kvm_vcpu_events.size)
export const KVM_SET_VCPU_EVENTS = _IOW(KVMIO, 0xa0, kvm_vcpu_events.size)
export const KVM_GET_DEBUGREGS = _IOR(KVMIO, 0xa1, kvm_debugregs.size)
export const KVM_SET_DEBUGREGS = _IOW(KVMIO, 0xa2, kvm_debugregs.size)
export const KVM_GET_TSC_KHZ = _IO(KVMIO, 0xa3)
