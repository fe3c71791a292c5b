// What KVM_CHECK_EXTENSION says on arm64.

import { BREAKPOINTS, PHYSICAL_BITS, WATCHPOINTS } from '../../a64/id-registers.js'
import { COMMON_EXTENSIONS, type Extensions } from '../extensions.js'
import * as uapi from '../uapi/arm64.js'

/** Bytes of a vCPU's mapping. */
export const RUN_BYTES = 2 * 4096
/** Most bits of guest-physical addresses. */
export const MAX_ADDRESS_BITS = PHYSICAL_BITS
export const MIN_ADDRESS_BITS = 32
/** Those of a VM of type 0. */
export const DEFAULT_ADDRESS_BITS = 40

/** Controls of KVM_SET_GUEST_DEBUG. */
export const DEBUG_CONTROLS =
  uapi.KVM_GUESTDBG_ENABLE |
  uapi.KVM_GUESTDBG_SINGLESTEP |
  uapi.KVM_GUESTDBG_USE_SW_BP |
  uapi.KVM_GUESTDBG_USE_HW

/** Answers of CHECK_EXTENSION. */
export const ARM64_EXTENSIONS: Extensions = new Map([
  ...COMMON_EXTENSIONS,
  [uapi.KVM_CAP_INTERNAL_ERROR_DATA, 0],
  [uapi.KVM_CAP_USER_MEMORY2, 1],
  [uapi.KVM_CAP_ONE_REG, 1],
  [uapi.KVM_CAP_ARM_PSCI, 1],
  [uapi.KVM_CAP_ARM_SET_DEVICE_ADDR, 1],
  [uapi.KVM_CAP_DEVICE_CTRL, 1],
  [uapi.KVM_CAP_ARM_PSCI_0_2, 1],
  [uapi.KVM_CAP_GUEST_DEBUG_HW_BPS, BREAKPOINTS],
  [uapi.KVM_CAP_GUEST_DEBUG_HW_WPS, WATCHPOINTS],
  [uapi.KVM_CAP_VCPU_ATTRIBUTES, 1],
  [uapi.KVM_CAP_ARM_USER_IRQ, 1],
  [uapi.KVM_CAP_SET_GUEST_DEBUG2, DEBUG_CONTROLS],
  [uapi.KVM_CAP_ARM_VM_IPA_SIZE, MAX_ADDRESS_BITS],
  [uapi.KVM_CAP_ARM_IRQ_LINE_LAYOUT_2, 1],
  [uapi.KVM_CAP_ARM_INJECT_EXT_DABT, 1],
])
