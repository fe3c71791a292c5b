// /dev/kvm: what can be asked before there is a VM (Documentation of KVM's API, "System ioctls").
// Next: vm.ts, vcpu.ts; what is an architecture's own is in x86/ and arm64/.

import type { VirtualClock } from '../../base/clock.js'
import type { TraceBus } from '../../base/trace.js'
import type { Kernel } from '../../sys/kernel.js'
import type { OpenFile } from '../../sys/open-file.js'
import type { Process } from '../../sys/process.js'
import type { OsLockKind } from '../a64/os-lock.js'
import type { SevPlatform } from '../sev/platform.js'
import type { Architecture } from './architecture.js'
import { noArgument, refuse } from './arguments.js'
import { ARM64 } from './arm64/system.js'
import type { GuestMemfdOptions } from './memory/private-memory.js'
import type { PasidSource } from './pasid.js'
import * as uapi from './uapi/common.js'
import type { Vm } from './vm.js'
import { SevFile } from './x86/sev-device.js'
import { X86 } from './x86/system.js'

/** Architectures a KVM can be of. */
export type CpuArchitecture = 'x86-64' | 'arm64'

/** Choices of an arm64 processor. */
export interface A64Options {
  /**
   * `strict`: a system register written without a context synchronisation event is not yet what the hardware goes by, and a
   * use before one is told (`a64.use-before-isb` on the trace bus). Default: effective at once, as most emulators have it.
   */
  readonly sync?: 'immediate' | 'strict'
  /** The OS Lock: open at reset as KVM has it, by default; locked at reset as the architecture has it; or not there. */
  readonly osLock?: OsLockKind
}

/** What KVM is made of. */
export interface KvmParts {
  readonly kernel: Kernel
  /** Guest instructions are time: see `nsPerInstruction`. */
  readonly clock: VirtualClock
  readonly trace: TraceBus
  /** Architecture of the host's processors, and so of its guests; 'x86-64' by default. */
  readonly cpu?: CpuArchitecture
  /** Who says which guest PASID is which host PASID; without it no ENQCMD reaches a device. */
  readonly pasidSource?: PasidSource
  /** What guest_memfds are like. */
  readonly guestMemfd?: GuestMemfdOptions
  /** What arm64 processors are like. */
  readonly a64?: A64Options
  /** Virtual nanoseconds an instruction takes; 1 by default. */
  readonly nsPerInstruction?: number
  /** The host's SEV; without it there are no encrypted guests. */
  readonly sev?: SevPlatform
}

/** The emulated KVM. */
export interface Kvm {
  /** VMs alive. */
  readonly vms: ReadonlySet<Vm>
  /** Takes /dev/kvm, and /dev/sev, away; VMs live on. */
  unregister(): void
}

const ARCHITECTURES: Readonly<Record<CpuArchitecture, Architecture>> = {
  'x86-64': X86,
  arm64: ARM64,
}

/** Registers /dev/kvm. A path that is taken is an Error. */
export function registerKvm(parts: KvmParts): Kvm {
  const vms = new Set<Vm>()
  const architecture = ARCHITECTURES[parts.cpu ?? 'x86-64']
  const open = () => new KvmFile(parts, architecture, vms)
  const { kernel, sev } = parts
  const gone = [kernel.nodes.register('/dev/kvm', open)]
  if (sev) gone.push(kernel.nodes.register('/dev/sev', () => new SevFile(sev.firmware)))
  const unregister = () => {
    for (const end of gone) end()
  }
  return { vms, unregister }
}

class KvmFile implements OpenFile {
  readonly kind = 'kvm'
  readonly #parts: KvmParts
  readonly #architecture: Architecture
  readonly #vms: Set<Vm>

  constructor(parts: KvmParts, architecture: Architecture, vms: Set<Vm>) {
    this.#parts = parts
    this.#architecture = architecture
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
        return this.#architecture.extension(this.#parts, arg)
      case uapi.KVM_GET_VCPU_MMAP_SIZE:
        noArgument(arg)
        return this.#architecture.runBytes
    }
    const handler = this.#architecture.calls.get(cmd)
    if (handler === undefined)
      throw refuse('EINVAL', `/dev/kvm knows no request 0x${cmd.toString(16)}`)
    return handler(this.#parts, arg, caller)
  }

  #createVm(type: number, caller: Process): number {
    const architecture = this.#architecture
    architecture.addressBits(type)
    caller.kernel.failures.step('a VM')
    caller.fds.reserve()
    const vm = architecture.createVm(this.#parts, type, caller, () => this.#vms.delete(vm))
    this.#vms.add(vm)
    return caller.fds.install(vm)
  }
}
