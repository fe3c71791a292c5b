// Attributes of a vCPU: the PPIs of its timers (Documentation of KVM's API, devices/vcpu). They are the same on all
// vCPUs of a VM; setting one sets them all.

import type { Process } from '../../../sys/process.js'
import { refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'
import { type Attribute, type Attributes, noAttribute, numberIn, numberOut } from './attributes.js'
import type { Arm64Vm } from './vm.js'

export class TimerAttributes implements Attributes {
  readonly #vm: Arm64Vm

  constructor(vm: Arm64Vm) {
    this.#vm = vm
  }

  has(a: Attribute): void {
    this.#timerOf(a)
  }

  get(a: Attribute, caller: Process): void {
    const timer = this.#timerOf(a)
    const [vcpu] = this.#vm.vcpus.values()
    numberOut(a, 4, BigInt(vcpu!.processor.timer[timer].intid), caller)
  }

  /** EINVAL: no in-kernel controller, or no PPI; EBUSY: a vCPU has run. */
  set(a: Attribute, caller: Process): void {
    const vm = this.#vm
    if (a.group !== uapi.KVM_ARM_VCPU_TIMER_CTRL) throw noAttribute(a)
    if (!vm.hasIrqchip) throw refuse('EINVAL', 'the VM has no interrupt controller')
    const intid = Number(numberIn(a, 4, caller))
    if (intid < 16 || intid > 31) throw refuse('EINVAL', `interrupt ${intid} is no PPI`)
    if (vm.hasRun) throw refuse('EBUSY', 'the VM has run')
    const timer = this.#timerOf(a)
    for (const { processor } of vm.vcpus.values()) processor.timer[timer].intid = intid
  }

  #timerOf(a: Attribute): 'virtual' | 'physical' {
    if (a.group === uapi.KVM_ARM_VCPU_TIMER_CTRL) {
      if (Number(a.attr) === uapi.KVM_ARM_VCPU_TIMER_IRQ_VTIMER) return 'virtual'
      if (Number(a.attr) === uapi.KVM_ARM_VCPU_TIMER_IRQ_PTIMER) return 'physical'
    }
    throw noAttribute(a)
  }
}
