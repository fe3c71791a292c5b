// The x86 side of /dev/kvm: which MSRs and CPUID leaves there are, and VMs.

import type { Process } from '../../../sys/process.js'
import { PHYSICAL_ADDRESS_BITS, SUPPORTED_CPUID } from '../../x86/cpuid.js'
import { MSR_INDICES } from '../../x86/msr.js'
import type { Architecture } from '../architecture.js'
import { copyIn, copyOut, refuse } from '../arguments.js'
import { calls } from '../calls.js'
import type { KvmParts } from '../system.js'
import * as uapi from '../uapi.js'
import { MAX_CPUID_ENTRIES, toEntry2 } from './cpuid-entries.js'
import { RUN_BYTES, X86_EXTENSIONS } from './extensions.js'
import { X86Vm } from './vm.js'

/** KVM on an x86-64 host. */
export const X86: Architecture = {
  calls: calls<KvmParts>([
    [uapi.KVM_GET_MSR_INDEX_LIST, (_, arg, caller) => msrIndexList(arg, caller)],
    [uapi.KVM_GET_SUPPORTED_CPUID, (_, arg, caller) => supportedCpuid(arg, caller)],
  ]),
  extensions: X86_EXTENSIONS,
  runBytes: RUN_BYTES,
  addressBits(type) {
    if (type !== 0) throw refuse('EINVAL', `VM type ${type}`)
    return PHYSICAL_ADDRESS_BITS
  },
  createVm: (parts, _, owner, gone) => new X86Vm(parts, owner, gone),
}

function msrIndexList(arg: number, caller: Process): number {
  const header = copyIn(caller, arg, uapi.kvm_msr_list)
  const room = header.nmsrs
  header.nmsrs = MSR_INDICES.length
  copyOut(caller, arg, header)
  if (room < MSR_INDICES.length) throw refuse('E2BIG', `${MSR_INDICES.length} MSRs`)
  copyOut(caller, arg, uapi.kvm_msr_list({ nmsrs: MSR_INDICES.length, indices: MSR_INDICES }))
  return 0
}

function supportedCpuid(arg: number, caller: Process): number {
  const { nent } = copyIn(caller, arg, uapi.kvm_cpuid2)
  const count = SUPPORTED_CPUID.length
  if (Math.min(nent, MAX_CPUID_ENTRIES) < count) throw refuse('E2BIG', `${count} leaves`)
  caller.kernel.failures.step('CPUID leaves')
  copyOut(caller, arg, uapi.kvm_cpuid2({ nent: count, entries: SUPPORTED_CPUID.map(toEntry2) }))
  return 0
}
