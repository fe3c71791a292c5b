// The limits of this KVM, and what KVM_CHECK_EXTENSION says of it on every architecture; x86/ and arm64/ add theirs.

import { USER_SLOTS } from './slots.js'
import * as uapi from './uapi/common.js'

/** vCPUs a VM may have. */
export const MAX_VCPUS = 16
/** Routes a VM may have, and the bound of interrupt numbers (GSI). */
export const MAX_ROUTES = 4096

/** Answers of CHECK_EXTENSION; what is in no table is 0. */
export type Extensions = ReadonlyMap<number, number>

/** What every architecture answers alike. */
export const COMMON_EXTENSIONS: Extensions = new Map([
  [uapi.KVM_CAP_IRQCHIP, 1],
  [uapi.KVM_CAP_USER_MEMORY, 1],
  [uapi.KVM_CAP_NR_VCPUS, MAX_VCPUS],
  [uapi.KVM_CAP_NR_MEMSLOTS, USER_SLOTS],
  [uapi.KVM_CAP_MP_STATE, 1],
  [uapi.KVM_CAP_SYNC_MMU, 1],
  [uapi.KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1],
  [uapi.KVM_CAP_SET_GUEST_DEBUG, 1],
  [uapi.KVM_CAP_IRQ_ROUTING, MAX_ROUTES],
  [uapi.KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1],
  [uapi.KVM_CAP_IRQFD, 1],
  [uapi.KVM_CAP_INTERNAL_ERROR_DATA, 1],
  [uapi.KVM_CAP_VCPU_EVENTS, 1],
  [uapi.KVM_CAP_MAX_VCPUS, MAX_VCPUS],
  [uapi.KVM_CAP_SIGNAL_MSI, 1],
  [uapi.KVM_CAP_READONLY_MEM, 1],
  [uapi.KVM_CAP_ENABLE_CAP_VM, 1],
  [uapi.KVM_CAP_CHECK_EXTENSION_VM, 1],
  [uapi.KVM_CAP_MAX_VCPU_ID, MAX_VCPUS],
  [uapi.KVM_CAP_IMMEDIATE_EXIT, 1],
])
