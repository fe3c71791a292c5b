// The limits of this KVM, and what KVM_CHECK_EXTENSION says of it.

import { USER_SLOTS } from './slots.js'
import * as uapi from './uapi.js'

/** vCPUs a VM may have. */
export const MAX_VCPUS = 16
/** Routes a VM may have, and the bound of interrupt numbers (GSI). */
export const MAX_ROUTES = 4096
/** Bytes of a vCPU's mapping. */
export const RUN_BYTES = 3 * 4096

// What CHECK_EXTENSION answers; every other extension is 0.
const EXTENSIONS = new Map<number, number>([
  [uapi.KVM_CAP_IRQCHIP, 1],
  [uapi.KVM_CAP_HLT, 1],
  [uapi.KVM_CAP_USER_MEMORY, 1],
  [uapi.KVM_CAP_SET_TSS_ADDR, 1],
  [uapi.KVM_CAP_EXT_CPUID, 1],
  [uapi.KVM_CAP_NR_VCPUS, MAX_VCPUS],
  [uapi.KVM_CAP_NR_MEMSLOTS, USER_SLOTS],
  [uapi.KVM_CAP_MP_STATE, 1],
  [uapi.KVM_CAP_SYNC_MMU, 1],
  [uapi.KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1],
  [uapi.KVM_CAP_USER_NMI, 1],
  [uapi.KVM_CAP_SET_GUEST_DEBUG, 1],
  [uapi.KVM_CAP_IRQ_ROUTING, MAX_ROUTES],
  [uapi.KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1],
  [uapi.KVM_CAP_IRQFD, 1],
  [uapi.KVM_CAP_SET_IDENTITY_MAP_ADDR, 1],
  [uapi.KVM_CAP_INTERNAL_ERROR_DATA, 1],
  [uapi.KVM_CAP_VCPU_EVENTS, 1],
  [uapi.KVM_CAP_INTR_SHADOW, uapi.KVM_X86_SHADOW_INT_MOV_SS | uapi.KVM_X86_SHADOW_INT_STI],
  [uapi.KVM_CAP_DEBUGREGS, 1],
  [uapi.KVM_CAP_GET_TSC_KHZ, 1],
  [uapi.KVM_CAP_MAX_VCPUS, MAX_VCPUS],
  [uapi.KVM_CAP_SIGNAL_MSI, 1],
  [uapi.KVM_CAP_READONLY_MEM, 1],
  [uapi.KVM_CAP_ENABLE_CAP_VM, 1],
  [uapi.KVM_CAP_CHECK_EXTENSION_VM, 1],
  [uapi.KVM_CAP_MAX_VCPU_ID, MAX_VCPUS],
  [uapi.KVM_CAP_IMMEDIATE_EXIT, 1],
  [uapi.KVM_CAP_EXIT_HYPERCALL, 1 << uapi.KVM_HC_MAP_GPA_RANGE],
])

/** The answer of KVM_CHECK_EXTENSION. */
export const extension = (n: number): number => EXTENSIONS.get(n) ?? 0
