// KVM_IRQ_LINE on arm64 (Documentation of KVM's API, 4.25): which line in bits 27:24, of which vCPU in 23:16 and, as
// their upper part, 31:28, number in 15:0.

import type { Process } from '../../../sys/process.js'
import { copyIn, refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'
import type { Arm64Vm } from './vm.js'

const PRIVATE = 32
const SGIS = 16
const SPECIAL = 1020

/** ENXIO: no controller, or one where the line is the owner's; EBUSY: not initialised; EINVAL: no such line. */
export function irqLine(vm: Arm64Vm, arg: number, caller: Process): number {
  const { irq, level } = copyIn(caller, arg, uapi.kvm_irq_level)
  const upper = (irq >>> uapi.KVM_ARM_IRQ_VCPU2_SHIFT) & uapi.KVM_ARM_IRQ_VCPU2_MASK
  const type = (irq >>> uapi.KVM_ARM_IRQ_TYPE_SHIFT) & uapi.KVM_ARM_IRQ_TYPE_MASK
  const lower = (irq >>> uapi.KVM_ARM_IRQ_VCPU_SHIFT) & uapi.KVM_ARM_IRQ_VCPU_MASK
  const id = upper * (uapi.KVM_ARM_IRQ_VCPU_MASK + 1) + lower
  const number = irq & uapi.KVM_ARM_IRQ_NUM_MASK
  const high = level !== 0
  switch (type) {
    case uapi.KVM_ARM_IRQ_TYPE_CPU: {
      if (vm.hasIrqchip) throw refuse('ENXIO', 'the interrupt controller is the kernel’s')
      const vcpu = vm.vcpus.get(id)
      if (vcpu === undefined || number > uapi.KVM_ARM_IRQ_CPU_FIQ)
        throw refuse('EINVAL', `line ${number} of vCPU ${id}`)
      if (number === uapi.KVM_ARM_IRQ_CPU_FIQ) vcpu.processor.fiqLine = high
      else vcpu.processor.irqLine = high
      return 0
    }
    case uapi.KVM_ARM_IRQ_TYPE_PPI: {
      const gic = initialised(vm)
      const vcpu = vm.vcpus.get(id)
      if (vcpu === undefined || number < SGIS || number >= PRIVATE)
        throw refuse('EINVAL', `PPI ${number} of vCPU ${id}`)
      gic.setPpi(vcpu.processor.index, number, high)
      return 0
    }
    case uapi.KVM_ARM_IRQ_TYPE_SPI: {
      const gic = initialised(vm)
      if (number < PRIVATE || number >= SPECIAL || !gic.setSpi(number, high))
        throw refuse('EINVAL', `SPI ${number}`)
      return 0
    }
  }
  throw refuse('EINVAL', `line of type ${type}`)
}

function initialised(vm: Arm64Vm) {
  if (!vm.hasIrqchip) throw refuse('ENXIO', 'the VM has no interrupt controller')
  const { gic } = vm.vgic
  if (gic === undefined) throw refuse('EBUSY', 'the interrupt controller is not initialised')
  return gic
}
