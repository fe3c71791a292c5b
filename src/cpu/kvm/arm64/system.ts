// The arm64 side of /dev/kvm: VMs by the size of their guest-physical memory.

import type { Architecture } from '../architecture.js'
import { refuse } from '../arguments.js'
import { calls } from '../calls.js'
import type { KvmParts } from '../system.js'
import { KVM_VM_TYPE_ARM_IPA_SIZE_MASK } from '../uapi/arm64.js'
import {
  ARM64_EXTENSIONS,
  DEFAULT_ADDRESS_BITS,
  MAX_ADDRESS_BITS,
  MIN_ADDRESS_BITS,
  RUN_BYTES,
} from './extensions.js'
import { Arm64Vm } from './vm.js'

/** KVM on an arm64 host. */
export const ARM64: Architecture = {
  calls: calls<KvmParts>([]),
  extension: (_, n) => ARM64_EXTENSIONS.get(n) ?? 0,
  runBytes: RUN_BYTES,
  addressBits,
  createVm: (parts, type, owner, gone) => new Arm64Vm(parts, owner, addressBits(type), gone),
}

// The type is the number of address bits; 0 asks for 40.
function addressBits(type: number): number {
  const bits = type === 0 ? DEFAULT_ADDRESS_BITS : type
  if (type > KVM_VM_TYPE_ARM_IPA_SIZE_MASK || bits < MIN_ADDRESS_BITS || bits > MAX_ADDRESS_BITS)
    throw refuse('EINVAL', `VM type ${type}: ${MIN_ADDRESS_BITS} to ${MAX_ADDRESS_BITS} bits`)
  return bits
}
