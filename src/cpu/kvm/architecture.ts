// What an architecture brings to KVM: its calls on /dev/kvm, its answers to KVM_CHECK_EXTENSION, and its VMs.

import type { Process } from '../../sys/process.js'
import type { Calls } from './calls.js'
import type { KvmParts } from './system.js'
import type { Vm } from './vm.js'

/** One architecture behind /dev/kvm. */
export interface Architecture {
  /** Calls on /dev/kvm beside the common ones. */
  readonly calls: Calls<KvmParts>
  /** What KVM_CHECK_EXTENSION answers on /dev/kvm. */
  extension(parts: KvmParts, n: number): number
  /** Bytes of a vCPU's mapping. */
  readonly runBytes: number
  /** The bits of guest-physical addresses that a VM of this type has (KVM_CREATE_VM's argument); EINVAL. */
  addressBits(type: number): number
  /** A VM of a type that `addressBits` let pass. `gone` runs when the last descriptor into it is closed. */
  createVm(parts: KvmParts, type: number, owner: Process, gone: () => void): Vm
}
