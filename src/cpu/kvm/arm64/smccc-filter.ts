// Which calls of the SMC calling convention are answered here, refused, or left to the VM's owner: ranges of function ids,
// given while no vCPU has run (Documentation of KVM's API, devices/vm, KVM_ARM_VM_SMCCC_FILTER).

import type { Process } from '../../../sys/process.js'
import { copyIn, refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'
import { type Attribute, type Attributes, noAttribute } from './attributes.js'
import type { Arm64Vm } from './vm.js'

interface Range {
  readonly first: number
  readonly last: number
  readonly action: number
}

const ACTIONS = 3
/** The architecture's own calls, 32-bit and 64-bit: always answered here. */
const RESERVED: readonly Range[] = [0x8000_0000, 0xc000_0000].map(first => ({
  first,
  last: first + 0xffff,
  action: uapi.KVM_SMCCC_FILTER_HANDLE,
}))

/** The filter of a VM, and the attribute that it is set by. */
export class SmcccFilter implements Attributes {
  readonly #vm: Arm64Vm
  readonly #ranges: Range[] = [...RESERVED]

  constructor(vm: Arm64Vm) {
    this.#vm = vm
  }

  /** KVM_SMCCC_FILTER_*: what becomes of a function. */
  actionOf(id: number): number {
    const range = this.#ranges.find(r => id >= r.first && id <= r.last)
    return range?.action ?? uapi.KVM_SMCCC_FILTER_HANDLE
  }

  has({ group, attr }: Attribute): void {
    if (group !== uapi.KVM_ARM_VM_SMCCC_CTRL || Number(attr) !== uapi.KVM_ARM_VM_SMCCC_FILTER)
      throw refuse('ENXIO', `no attribute ${attr} in group ${group}`)
  }

  /** There is none that can be read. */
  get(a: Attribute): never {
    throw noAttribute(a)
  }

  /** EFAULT, EINVAL (padding, an empty or wrapping range, an unknown action), EBUSY, EEXIST (ranges overlap). */
  set(a: Attribute, caller: Process): void {
    this.has(a)
    const filter = copyIn(caller, Number(a.addr), uapi.kvm_smccc_filter)
    const { base: first, nr_functions, action, pad } = filter
    const last = first + nr_functions - 1
    const good = pad.every(b => b === 0) && nr_functions > 0 && last <= 0xffff_ffff
    if (!good || action >= ACTIONS) throw refuse('EINVAL', `${nr_functions} functions`)
    if (this.#vm.hasRun) throw refuse('EBUSY', 'the VM has run')
    if (this.#ranges.some(r => first <= r.last && last >= r.first))
      throw refuse('EEXIST', 'functions that have their action')
    this.#ranges.push({ first, last, action })
  }
}
