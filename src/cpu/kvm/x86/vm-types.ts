// The types of VM that KVM_CREATE_VM takes on x86 (KVM's API, "KVM_CAP_VM_TYPES"), and what they mean for memory.

import type { SevPlatform } from '../../sev/platform.js'
import * as uapi from '../uapi.js'
import { sevVmTypes } from './sev.js'

/** The types there are on a host: a bit a type, as KVM_CAP_VM_TYPES answers. */
export const vmTypes = (sev: SevPlatform | undefined): number =>
  (1 << uapi.KVM_X86_DEFAULT_VM) |
  (1 << uapi.KVM_X86_SW_PROTECTED_VM) |
  (sev === undefined ? 0 : sevVmTypes(sev))

/** Whether pages can be private: then they have attributes, and faults go by them. */
export const hasPrivateMemory = (type: number): boolean => type === uapi.KVM_X86_SW_PROTECTED_VM

/** Whether KVM_PRE_FAULT_MEMORY is answered: an encrypted guest's pages must not be there before it is launched. */
export const mayPreFault = (type: number): boolean =>
  type === uapi.KVM_X86_DEFAULT_VM || type === uapi.KVM_X86_SW_PROTECTED_VM
