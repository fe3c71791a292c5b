// CPUID leaves between `struct kvm_cpuid_entry2` and the core.

import type { StructValue } from '../../../base/struct.js'
import type { CpuidEntry } from '../../x86/cpuid.js'
import { KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2 } from '../uapi.js'

/** Most entries KVM takes. */
export const MAX_CPUID_ENTRIES = 256

type Entry2 = StructValue<(typeof kvm_cpuid_entry2)['members']>

export const toEntry2 = (e: CpuidEntry): Entry2 =>
  kvm_cpuid_entry2({
    function: e.leaf,
    index: e.subleaf,
    flags: e.indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
    eax: e.eax,
    ebx: e.ebx,
    ecx: e.ecx,
    edx: e.edx,
  })

export const fromEntry2 = (e: Entry2): CpuidEntry => ({
  leaf: e.function,
  subleaf: e.index,
  indexed: (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) !== 0,
  eax: e.eax,
  ebx: e.ebx,
  ecx: e.ecx,
  edx: e.edx,
})
