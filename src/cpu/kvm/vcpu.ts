// A vCPU's descriptor (KVM's API, "vcpu ioctls"): the shared run page and KVM_RUN. Registers and the rest are an
// architecture's: x86/vcpu.ts, arm64/vcpu.ts. The loop that lets it run is run.ts.

import type { MmapBacking } from '../../mem/vma.js'
import type { OpenFile } from '../../sys/open-file.js'
import type { Process } from '../../sys/process.js'
import { noArgument, refuse } from './arguments.js'
import { KVM_RUN } from './uapi/common.js'
import type { Vm } from './vm.js'

/** The file behind a vCPU's descriptor. */
export abstract class Vcpu implements OpenFile {
  readonly kind = 'kvm-vcpu'
  readonly id: number
  /** The page shared with the owner, and those behind it. */
  protected readonly page: Uint8Array
  readonly #vm: Vm
  #hasRun = false

  constructor(vm: Vm, id: number, runBytes: number) {
    this.#vm = vm
    this.id = id
    this.page = new Uint8Array(runBytes)
  }

  /** KVM_RUN. */
  protected abstract run(): void

  /** Answers another request, or undefined: there is no such request. */
  protected abstract answer(cmd: number, arg: number, caller: Process): number | undefined

  /** Guest-physical memory is no longer what it was. */
  abstract memoryChanged(): void

  /** The VM is gone. */
  abstract destroy(): void

  /** From now on the vCPU has run: KVM_RUN refuses no more for want of something. */
  protected begun(): void {
    this.#hasRun = true
  }

  /** Whether the guest was ever entered. */
  get hasRun(): boolean {
    return this.#hasRun
  }

  release(): void {
    this.#vm.put()
  }

  mmap(length: number, offset: number): MmapBacking {
    if (offset + length > this.page.length)
      throw refuse('EINVAL', `a vCPU's mapping has ${this.page.length} bytes`)
    return { bytes: this.page.subarray(offset) }
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    this.#vm.admit(caller)
    if (cmd === KVM_RUN) {
      noArgument(arg)
      this.run()
      return 0
    }
    const answer = this.answer(cmd, arg, caller)
    if (answer === undefined)
      throw refuse('EINVAL', `a vCPU knows no request 0x${cmd.toString(16)}`)
    return answer
  }
}
