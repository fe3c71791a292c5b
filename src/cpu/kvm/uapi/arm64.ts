// uapi linux/kvm.h and asm/kvm.h as a program for arm64 sees them, 6.1 edition with the names that came later marked,
// in header order. Left out: SVE, PMU, MTE, nested virtualisation, GICv2.

import { flex, struct } from '../../../base/struct.js'
import { _IOR, _IOW, _IOWR } from '../../../sys/ioctl.js'
import { KVMIO } from './common.js'
import { kvmRun } from './run.js'

export * from './common.js'

/** Pages of a vCPU's mapping: `struct kvm_run`, coalesced MMIO (never filled). */
export const KVM_COALESCED_MMIO_PAGE_OFFSET = 1

// ---- registers ----
export const KVM_NR_SPSR = 5

const user_pt_regs = struct('struct user_pt_regs', {
  regs: ['u64', 31],
  sp: 'u64',
  pc: 'u64',
  pstate: 'u64',
})
// vregs are 128 bits each: two words, low first.
const user_fpsimd_state = struct('struct user_fpsimd_state', {
  vregs: ['u64', 64],
  fpsr: 'u32',
  fpcr: 'u32',
  __reserved: ['u32', 2],
})
/** Never copied whole: ids of core registers are offsets into it, in units of four bytes. */
export const kvm_regs = struct('struct kvm_regs', {
  regs: user_pt_regs, // sp is SP_EL0
  sp_el1: 'u64',
  elr_el1: 'u64',
  spsr: ['u64', 5], // EL1, then those of AArch32 modes
  hole: 'u64', // vregs are aligned to 16 bytes
  fp_regs: user_fpsimd_state,
})

// ---- vCPU initialisation ----
// biome-ignore format: table
export const
  KVM_ARM_TARGET_AEM_V8         = 0,
  KVM_ARM_TARGET_FOUNDATION_V8  = 1,
  KVM_ARM_TARGET_CORTEX_A57     = 2,
  KVM_ARM_TARGET_XGENE_POTENZA  = 3,
  KVM_ARM_TARGET_CORTEX_A53     = 4,
  KVM_ARM_TARGET_GENERIC_V8     = 5
// biome-ignore format: table
export const
  KVM_ARM_VCPU_POWER_OFF        = 0,
  KVM_ARM_VCPU_EL1_32BIT        = 1,
  KVM_ARM_VCPU_PSCI_0_2         = 2,
  KVM_ARM_VCPU_PMU_V3           = 3,
  KVM_ARM_VCPU_SVE              = 4,
  KVM_ARM_VCPU_PTRAUTH_ADDRESS  = 5,
  KVM_ARM_VCPU_PTRAUTH_GENERIC  = 6
export const kvm_vcpu_init = struct('struct kvm_vcpu_init', {
  target: 'u32',
  features: ['u32', 7], // bitmap
})

// ---- guest debug ----
export const KVM_ARM_MAX_DBG_REGS = 16
const kvm_guest_debug_arch = struct('struct kvm_guest_debug_arch', {
  dbg_bcr: ['u64', 16],
  dbg_bvr: ['u64', 16],
  dbg_wcr: ['u64', 16],
  dbg_wvr: ['u64', 16],
})
export const KVM_DEBUG_ARCH_HSR_HIGH_VALID = 1 << 0
const kvm_debug_exit_arch = struct('struct kvm_debug_exit_arch', {
  hsr: 'u32', // ESR_EL2
  hsr_high: 'u32',
  far: 'u64', // for watchpoints
})
export const KVM_GUESTDBG_USE_HW = 1 << 17
export const kvm_guest_debug = struct('struct kvm_guest_debug', {
  control: 'u32',
  pad: 'u32',
  arch: kvm_guest_debug_arch,
})

// ---- the run page ----
const kvm_sync_regs = struct('struct kvm_sync_regs', {
  device_irq_level: 'u64', // KVM_ARM_DEV_*, where the owner has the interrupt controller
})
export const KVM_ARM_DEV_EL1_VTIMER = 1 << 0
export const KVM_ARM_DEV_EL1_PTIMER = 1 << 1
/** The page a vCPU shares with its owner: mapped at offset 0 of the vCPU's fd. */
export const kvm_run = kvmRun(kvm_debug_exit_arch, kvm_sync_regs)

export const kvm_vcpu_events = struct('struct kvm_vcpu_events', {
  exception: struct('exception of struct kvm_vcpu_events', {
    serror_pending: 'u8',
    serror_has_esr: 'u8',
    ext_dabt_pending: 'u8',
    pad: ['u8', 5],
    serror_esr: 'u64',
  }),
  reserved: ['u32', 12],
})

// ---- addresses of a GICv2, the way before attributes ----
export const kvm_arm_device_addr = struct('struct kvm_arm_device_addr', { id: 'u64', addr: 'u64' })

// ---- register ids ----
// biome-ignore format: table
export const
  KVM_REG_ARCH_MASK             = 0xff00_0000_0000_0000n,
  KVM_REG_SIZE_MASK             = 0x00f0_0000_0000_0000n,
  KVM_REG_ARM64                 = 0x6000_0000_0000_0000n,
  KVM_REG_SIZE_U32              = 0x0020_0000_0000_0000n,
  KVM_REG_SIZE_U64              = 0x0030_0000_0000_0000n,
  KVM_REG_SIZE_U128             = 0x0040_0000_0000_0000n,
  KVM_REG_ARM_COPROC_MASK       = 0x0fff_0000n,
  KVM_REG_ARM_CORE              = 0x0010_0000n,
  KVM_REG_ARM_DEMUX             = 0x0011_0000n,
  KVM_REG_ARM_DEMUX_ID_MASK     = 0xff00n,
  KVM_REG_ARM_DEMUX_VAL_MASK    = 0xffn,
  KVM_REG_ARM64_SYSREG          = 0x0013_0000n,
  KVM_REG_ARM_PTIMER_CTL        = 0x6030_0000_0013_df11n,
  KVM_REG_ARM_PTIMER_CVAL       = 0x6030_0000_0013_df12n,
  KVM_REG_ARM_PTIMER_CNT        = 0x6030_0000_0013_df01n,
  // The ids of the virtual timer's comparator and counter are each other's, by an old mistake that is kept.
  KVM_REG_ARM_TIMER_CTL         = 0x6030_0000_0013_df19n,
  KVM_REG_ARM_TIMER_CVAL        = 0x6030_0000_0013_df02n,
  KVM_REG_ARM_TIMER_CNT         = 0x6030_0000_0013_df1an,
  KVM_REG_ARM_FW                = 0x0014_0000n,
  KVM_REG_ARM_PSCI_VERSION             = 0x6030_0000_0014_0000n,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1  = 0x6030_0000_0014_0001n,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2  = 0x6030_0000_0014_0002n,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3  = 0x6030_0000_0014_0003n,
  KVM_REG_ARM64_SVE             = 0x0015_0000n,
  KVM_REG_ARM_FW_FEAT_BMAP      = 0x0016_0000n,
  KVM_REG_ARM_STD_BMAP          = 0x6030_0000_0016_0000n,
  KVM_REG_ARM_STD_HYP_BMAP      = 0x6030_0000_0016_0001n,
  KVM_REG_ARM_VENDOR_HYP_BMAP   = 0x6030_0000_0016_0002n,
  KVM_REG_ARM_VENDOR_HYP_BMAP_2 = 0x6030_0000_0016_0003n // 6.15
export const kvm_one_reg = struct('struct kvm_one_reg', { id: 'u64', addr: 'u64' })
export const kvm_reg_list = struct('struct kvm_reg_list', { n: 'u64', reg: flex('u64') })

// ---- devices ----
export const KVM_CREATE_DEVICE_TEST = 1
// biome-ignore format: table
export const
  KVM_DEV_TYPE_ARM_VGIC_V2  = 5,
  KVM_DEV_TYPE_ARM_VGIC_V3  = 7,
  KVM_DEV_TYPE_ARM_VGIC_ITS = 8
export const kvm_create_device = struct('struct kvm_create_device', {
  type: 'u32',
  fd: 'u32', // out
  flags: 'u32',
})
export const kvm_device_attr = struct('struct kvm_device_attr', {
  flags: 'u32',
  group: 'u32',
  attr: 'u64',
  addr: 'u64',
})
// biome-ignore format: table
export const
  KVM_VGIC_V3_ADDR_TYPE_DIST          = 2,
  KVM_VGIC_V3_ADDR_TYPE_REDIST        = 3,
  KVM_VGIC_ITS_ADDR_TYPE              = 4,
  KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION = 5
// biome-ignore format: table
export const
  KVM_DEV_ARM_VGIC_GRP_ADDR         = 0,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS    = 1,
  KVM_DEV_ARM_VGIC_GRP_CPU_REGS     = 2,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS      = 3,
  KVM_DEV_ARM_VGIC_GRP_CTRL         = 4,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS  = 5,
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS  = 6,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO   = 7,
  KVM_DEV_ARM_VGIC_GRP_ITS_REGS     = 8
// biome-ignore format: table
export const
  KVM_DEV_ARM_VGIC_CTRL_INIT            = 0,
  KVM_DEV_ARM_ITS_SAVE_TABLES           = 1,
  KVM_DEV_ARM_ITS_RESTORE_TABLES        = 2,
  KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES  = 3,
  KVM_DEV_ARM_ITS_CTRL_RESET            = 4
// biome-ignore format: table
export const
  KVM_ARM_VCPU_TIMER_CTRL           = 1,
  KVM_ARM_VCPU_TIMER_IRQ_VTIMER     = 0,
  KVM_ARM_VCPU_TIMER_IRQ_PTIMER     = 1

// ---- attributes of a VM: which hypercalls are the owner's (6.4) ----
export const KVM_ARM_VM_SMCCC_CTRL = 0
export const KVM_ARM_VM_SMCCC_FILTER = 0
// biome-ignore format: table
export const
  KVM_SMCCC_FILTER_HANDLE      = 0,
  KVM_SMCCC_FILTER_DENY        = 1,
  KVM_SMCCC_FILTER_FWD_TO_USER = 2
export const kvm_smccc_filter = struct('struct kvm_smccc_filter', {
  base: 'u32',
  nr_functions: 'u32',
  action: 'u8',
  pad: ['u8', 15],
})
/** `flags` of a hypercall exit: the guest used SMC, not HVC. */
export const KVM_HYPERCALL_EXIT_SMC = 1 << 0

// ---- interrupt lines: type 27:24, vCPU 23:16 (and 31:28 above it), number 15:0 ----
// biome-ignore format: table
export const
  KVM_ARM_IRQ_VCPU2_SHIFT = 28,
  KVM_ARM_IRQ_VCPU2_MASK  = 0xf,
  KVM_ARM_IRQ_TYPE_SHIFT  = 24,
  KVM_ARM_IRQ_TYPE_MASK   = 0xf,
  KVM_ARM_IRQ_VCPU_SHIFT  = 16,
  KVM_ARM_IRQ_VCPU_MASK   = 0xff,
  KVM_ARM_IRQ_NUM_SHIFT   = 0,
  KVM_ARM_IRQ_NUM_MASK    = 0xffff,
  KVM_ARM_IRQ_TYPE_CPU    = 0,
  KVM_ARM_IRQ_TYPE_SPI    = 1,
  KVM_ARM_IRQ_TYPE_PPI    = 2,
  KVM_ARM_IRQ_CPU_IRQ     = 0,
  KVM_ARM_IRQ_CPU_FIQ     = 1
export const kvm_irq_level = struct('struct kvm_irq_level', { irq: 'u32', level: 'u32' })

// ---- system events and VM types ----
// biome-ignore format: table
export const
  KVM_SYSTEM_EVENT_SHUTDOWN = 1,
  KVM_SYSTEM_EVENT_RESET    = 2,
  KVM_SYSTEM_EVENT_CRASH    = 3,
  KVM_SYSTEM_EVENT_WAKEUP   = 4,
  KVM_SYSTEM_EVENT_SUSPEND  = 5
export const KVM_VM_TYPE_ARM_IPA_SIZE_MASK = 0xff

// ---- extensions ----
// biome-ignore format: table
export const
  KVM_CAP_IOEVENTFD                   = 36,
  KVM_CAP_ONE_REG                     = 70,
  KVM_CAP_ARM_PSCI                    = 87,
  KVM_CAP_ARM_SET_DEVICE_ADDR         = 88,
  KVM_CAP_DEVICE_CTRL                 = 89,
  KVM_CAP_ARM_PSCI_0_2                = 102,
  KVM_CAP_ARM_EL1_32BIT               = 93,
  KVM_CAP_GUEST_DEBUG_HW_BPS          = 119,
  KVM_CAP_GUEST_DEBUG_HW_WPS          = 120,
  KVM_CAP_VCPU_ATTRIBUTES             = 127,
  KVM_CAP_MSI_DEVID                   = 131,
  KVM_CAP_ARM_USER_IRQ                = 144,
  KVM_CAP_ARM_INJECT_SERROR_ESR       = 158,
  KVM_CAP_ARM_VM_IPA_SIZE             = 165,
  KVM_CAP_ARM_IRQ_LINE_LAYOUT_2       = 174,
  KVM_CAP_ARM_INJECT_EXT_DABT         = 178

// ---- ioctl numbers ----
// a VM
export const KVM_IRQ_LINE = _IOW(KVMIO, 0x61, kvm_irq_level.size)
export const KVM_CREATE_DEVICE = _IOWR(KVMIO, 0xe0, kvm_create_device.size)
export const KVM_ARM_SET_DEVICE_ADDR = _IOW(KVMIO, 0xab, kvm_arm_device_addr.size)
export const KVM_ARM_PREFERRED_TARGET = _IOR(KVMIO, 0xaf, kvm_vcpu_init.size)
// a device; the attribute calls also on a vCPU
export const KVM_SET_DEVICE_ATTR = _IOW(KVMIO, 0xe1, kvm_device_attr.size)
export const KVM_GET_DEVICE_ATTR = _IOW(KVMIO, 0xe2, kvm_device_attr.size)
export const KVM_HAS_DEVICE_ATTR = _IOW(KVMIO, 0xe3, kvm_device_attr.size)
// a vCPU
export const KVM_SET_GUEST_DEBUG = _IOW(KVMIO, 0x9b, kvm_guest_debug.size)
export const KVM_GET_VCPU_EVENTS = _IOR(KVMIO, 0x9f, kvm_vcpu_events.size)
export const KVM_SET_VCPU_EVENTS = _IOW(KVMIO, 0xa0, kvm_vcpu_events.size)
export const KVM_GET_ONE_REG = _IOW(KVMIO, 0xab, kvm_one_reg.size)
export const KVM_SET_ONE_REG = _IOW(KVMIO, 0xac, kvm_one_reg.size)
export const KVM_ARM_VCPU_INIT = _IOW(KVMIO, 0xae, kvm_vcpu_init.size)
export const KVM_GET_REG_LIST = _IOWR(KVMIO, 0xb0, kvm_reg_list.size)
export const KVM_ARM_VCPU_FINALIZE = _IOW(KVMIO, 0xc2, 4)
