// The x86 side of /dev/kvm: which MSRs and CPUID leaves there are, and VMs.

import type { Process } from '../../../sys/process.js'
import { withSevLeaves } from '../../sev/platform.js'
import { PHYSICAL_ADDRESS_BITS, SUPPORTED_CPUID } from '../../x86/cpuid.js'
import { MSR_INDICES } from '../../x86/msr.js'
import type { Architecture } from '../architecture.js'
import { copyIn, copyOut, refuse } from '../arguments.js'
import { calls } from '../calls.js'
import { memfdFlags } from '../memory/private-memory.js'
import type { KvmParts } from '../system.js'
import * as uapi from '../uapi.js'
import { MAX_CPUID_ENTRIES, toEntry2 } from './cpuid-entries.js'
import { RUN_BYTES, X86_EXTENSIONS } from './extensions.js'
import { X86Vm } from './vm.js'
import { vmTypes } from './vm-types.js'

/** KVM on an x86-64 host. */
export const X86: Architecture = {
  calls: calls<KvmParts>([
    [uapi.KVM_GET_MSR_INDEX_LIST, (_, arg, caller) => msrIndexList(arg, caller)],
    [uapi.KVM_GET_SUPPORTED_CPUID, supportedCpuid],
  ]),
  runBytes: RUN_BYTES,
  extension({ sev, guestMemfd }, n) {
    if (n === uapi.KVM_CAP_VM_TYPES) return vmTypes(sev)
    if (n === uapi.KVM_CAP_GUEST_MEMFD_FLAGS) return memfdFlags(guestMemfd, false)
    return X86_EXTENSIONS.get(n) ?? 0
  },
  addressBits(type) {
    if (type > 31) throw refuse('EINVAL', `VM type ${type}`)
    return PHYSICAL_ADDRESS_BITS
  },
  createVm(parts, type, owner, gone) {
    if ((vmTypes(parts.sev) & (1 << type)) === 0) throw refuse('EINVAL', `VM type ${type}`)
    return new X86Vm(parts, type, owner, gone)
  },
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

function supportedCpuid({ sev }: KvmParts, arg: number, caller: Process): number {
  const { nent } = copyIn(caller, arg, uapi.kvm_cpuid2)
  const leaves = sev ? withSevLeaves(SUPPORTED_CPUID, sev) : SUPPORTED_CPUID
  const count = leaves.length
  if (Math.min(nent, MAX_CPUID_ENTRIES) < count) throw refuse('E2BIG', `${count} leaves`)
  caller.kernel.failures.step('CPUID leaves')
  copyOut(caller, arg, uapi.kvm_cpuid2({ nent: count, entries: leaves.map(toEntry2) }))
  return 0
}
