// What KVM_CHECK_EXTENSION says on x86.

import { COMMON_EXTENSIONS, type Extensions } from '../extensions.js'
import * as uapi from '../uapi.js'

/** Bytes of a vCPU's mapping. */
export const RUN_BYTES = 3 * 4096
/** Hypercalls that may be made to exit (KVM_CAP_EXIT_HYPERCALL). */
export const HYPERCALLS = 1 << uapi.KVM_HC_MAP_GPA_RANGE

/** Controls of KVM_SET_GUEST_DEBUG. */
export const DEBUG_CONTROLS =
  uapi.KVM_GUESTDBG_ENABLE |
  uapi.KVM_GUESTDBG_SINGLESTEP |
  uapi.KVM_GUESTDBG_USE_SW_BP |
  uapi.KVM_GUESTDBG_USE_HW_BP |
  uapi.KVM_GUESTDBG_INJECT_DB |
  uapi.KVM_GUESTDBG_INJECT_BP |
  uapi.KVM_GUESTDBG_BLOCKIRQ

/** Answers of CHECK_EXTENSION. */
export const X86_EXTENSIONS: Extensions = new Map([
  ...COMMON_EXTENSIONS,
  [uapi.KVM_CAP_HLT, 1],
  [uapi.KVM_CAP_SET_TSS_ADDR, 1],
  [uapi.KVM_CAP_EXT_CPUID, 1],
  [uapi.KVM_CAP_USER_NMI, 1],
  [uapi.KVM_CAP_SET_IDENTITY_MAP_ADDR, 1],
  [uapi.KVM_CAP_INTR_SHADOW, uapi.KVM_X86_SHADOW_INT_MOV_SS | uapi.KVM_X86_SHADOW_INT_STI],
  [uapi.KVM_CAP_DEBUGREGS, 1],
  [uapi.KVM_CAP_SET_GUEST_DEBUG2, DEBUG_CONTROLS],
  [uapi.KVM_CAP_GET_TSC_KHZ, 1],
  [uapi.KVM_CAP_EXIT_HYPERCALL, HYPERCALLS],
  [uapi.KVM_CAP_USER_MEMORY2, 1],
  [uapi.KVM_CAP_MEMORY_FAULT_INFO, 1],
  [uapi.KVM_CAP_MEMORY_ATTRIBUTES, uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE],
  [uapi.KVM_CAP_GUEST_MEMFD, 1],
  [uapi.KVM_CAP_PRE_FAULT_MEMORY, 1],
])
