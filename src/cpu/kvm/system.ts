// /dev/kvm: what can be asked before there is a VM (Documentation of KVM's API, "System ioctls").
// Next: vm.ts, vcpu.ts.

import type { VirtualClock } from '../../base/clock.js'
import type { TraceBus } from '../../base/trace.js'
import type { Kernel } from '../../sys/kernel.js'
import type { OpenFile } from '../../sys/open-file.js'
import type { Process } from '../../sys/process.js'
import { SUPPORTED_CPUID } from '../x86/cpuid.js'
import { MSR_INDICES } from '../x86/msr.js'
import { copyIn, copyOut, noArgument, refuse } from './arguments.js'
import { MAX_CPUID_ENTRIES, toEntry2 } from './cpuid-entries.js'
import { extension, RUN_BYTES } from './extensions.js'
import type { PasidSource } from './pasid.js'
import * as uapi from './uapi.js'
import { Vm } from './vm.js'

/** What KVM is made of. */
export interface KvmParts {
  readonly kernel: Kernel
  /** Guest instructions are time: see `nsPerInstruction`. */
  readonly clock: VirtualClock
  readonly trace: TraceBus
  /** Who says which guest PASID is which host PASID; without it no ENQCMD reaches a device. */
  readonly pasidSource?: PasidSource
  /** Virtual nanoseconds an instruction takes; 1 by default. */
  readonly nsPerInstruction?: number
}

/** The emulated KVM. */
export interface Kvm {
  /** VMs alive. */
  readonly vms: ReadonlySet<Vm>
  /** Takes /dev/kvm away; VMs live on. */
  unregister(): void
}

/** Registers /dev/kvm. A path that is taken is an Error. */
export function registerKvm(parts: KvmParts): Kvm {
  const vms = new Set<Vm>()
  const unregister = parts.kernel.nodes.register('/dev/kvm', () => new KvmFile(parts, vms))
  return { vms, unregister }
}

class KvmFile implements OpenFile {
  readonly kind = 'kvm'
  readonly #parts: KvmParts
  readonly #vms: Set<Vm>

  constructor(parts: KvmParts, vms: Set<Vm>) {
    this.#parts = parts
    this.#vms = vms
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    switch (cmd) {
      case uapi.KVM_GET_API_VERSION:
        noArgument(arg)
        return uapi.KVM_API_VERSION
      case uapi.KVM_CREATE_VM:
        return this.#createVm(arg, caller)
      case uapi.KVM_CHECK_EXTENSION:
        return extension(arg)
      case uapi.KVM_GET_VCPU_MMAP_SIZE:
        noArgument(arg)
        return RUN_BYTES
      case uapi.KVM_GET_MSR_INDEX_LIST:
        return msrIndexList(arg, caller)
      case uapi.KVM_GET_SUPPORTED_CPUID:
        return supportedCpuid(arg, caller)
    }
    throw refuse('EINVAL', `/dev/kvm knows no request 0x${cmd.toString(16)}`)
  }

  #createVm(type: number, caller: Process): number {
    if (type !== 0) throw refuse('EINVAL', `VM type ${type}`)
    caller.kernel.failures.step('a VM')
    caller.fds.reserve()
    const vm = new Vm(this.#parts, caller, () => this.#vms.delete(vm))
    this.#vms.add(vm)
    return caller.fds.install(vm)
  }
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
