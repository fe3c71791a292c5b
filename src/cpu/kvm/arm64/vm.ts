// An arm64 virtual machine: what its vCPUs share, its interrupt controller, PSCI.

import type { Process } from '../../../sys/process.js'
import { ShareabilityDomain } from '../../a64/domain.js'
import { copyIn, copyOut, refuse } from '../arguments.js'
import { calls, type Handler, joinCalls } from '../calls.js'
import { IrqRouting } from '../irq-routing.js'
import { setMemoryRegion2 } from '../memory/calls.js'
import type { KvmParts } from '../system.js'
import * as uapi from '../uapi/arm64.js'
import { VM_CALLS, Vm } from '../vm.js'
import { attributeCall } from './attributes.js'
import { createDevice } from './devices.js'
import { ARM64_EXTENSIONS } from './extensions.js'
import { PSCI_VERSION } from './firmware-registers.js'
import { irqLine } from './irq-line.js'
import { SmcccFilter } from './smccc-filter.js'
import { Arm64Vcpu } from './vcpu.js'
import { Vgic } from './vgic.js'

/** The file behind an arm64 VM's descriptor, and the VM. */
export class Arm64Vm extends Vm<Arm64Vcpu> {
  /** Bits of guest-physical addresses. */
  readonly addressBits: number
  readonly vgic = new Vgic(this)
  readonly interrupts = new IrqRouting(this.vgic)
  /** The vCPUs' caches of translations and exclusive monitors, as far as they know of each other. */
  readonly domain = new ShareabilityDomain()
  /** What becomes of hypercalls. */
  readonly smccc = new SmcccFilter(this)
  /** KVM_REG_ARM_PSCI_VERSION. */
  psciVersion: number = PSCI_VERSION.V1_1
  /** Feature bits of the first KVM_ARM_VCPU_INIT, which every other one must repeat. */
  features: number | undefined
  /** Values of feature registers that were set lower than what there is, by key. */
  readonly identification = new Map<number, bigint>()
  /** Whether a vCPU has run: identification stays as it is from then on. */
  hasRun = false

  constructor(parts: KvmParts, owner: Process, addressBits: number, gone: () => void) {
    super(parts, owner, { addressBits, extensions: ARM64_EXTENSIONS, gone })
    this.addressBits = addressBits
  }

  get hasIrqchip(): boolean {
    return this.vgic.created
  }

  hasFeature(bit: number): boolean {
    return (((this.features ?? 0) >>> bit) & 1) === 1
  }

  /** The interrupt controller's whole state. */
  digest(): Uint8Array {
    return new TextEncoder().encode(JSON.stringify(this.vgic.gic?.save() ?? null))
  }

  override extension(n: number): number {
    return n === uapi.KVM_CAP_MSI_DEVID ? (this.vgic.hasIts ? 1 : 0) : super.extension(n)
  }

  enable(cap: number): never {
    throw refuse('EINVAL', `capability ${cap} cannot be enabled`)
  }

  /** EBUSY once the interrupt controller is initialised: it would not know the vCPU. */
  override createVcpu(id: number, caller: Process): number {
    if (this.vgic.gic !== undefined)
      throw refuse('EBUSY', 'the interrupt controller is initialised')
    return super.createVcpu(id, caller)
  }

  protected makeVcpu(id: number): Arm64Vcpu {
    return new Arm64Vcpu(this, id)
  }

  protected override get unknownRequest(): 'EINVAL' {
    return 'EINVAL'
  }

  protected answer(cmd: number, arg: number, caller: Process): number | undefined {
    return CALLS.get(cmd)?.(this, arg, caller)
  }
}

const CALLS = joinCalls<Arm64Vm>(
  VM_CALLS,
  calls<Arm64Vm>([
    [uapi.KVM_ARM_PREFERRED_TARGET, preferredTarget],
    [uapi.KVM_CREATE_DEVICE, createDevice],
    [uapi.KVM_IRQ_LINE, irqLine],
    [uapi.KVM_CREATE_IRQCHIP, createIrqchip],
    [uapi.KVM_ARM_SET_DEVICE_ADDR, setDeviceAddress],
    [uapi.KVM_SET_USER_MEMORY_REGION2, setMemoryRegion2],
    [uapi.KVM_HAS_DEVICE_ATTR, attributes(uapi.KVM_HAS_DEVICE_ATTR)],
    [uapi.KVM_SET_DEVICE_ATTR, attributes(uapi.KVM_SET_DEVICE_ATTR)],
  ]),
)

function preferredTarget(_: Arm64Vm, arg: number, caller: Process): number {
  copyOut(caller, arg, uapi.kvm_vcpu_init({ target: uapi.KVM_ARM_TARGET_GENERIC_V8 }))
  return 0
}

// KVM_GET_DEVICE_ATTR is no request of a VM.
function attributes(cmd: number): Handler<Arm64Vm> {
  return (vm, arg, caller) => attributeCall(vm.smccc, cmd, arg, caller)!
}

// Only a GICv2 has addresses to be set so.
function setDeviceAddress(_: Arm64Vm, arg: number, caller: Process): never {
  copyIn(caller, arg, uapi.kvm_arm_device_addr)
  throw refuse('ENODEV', 'there is no GICv2')
}

// It would make a GICv2.
function createIrqchip(): never {
  throw refuse('ENODEV', 'there is no GICv2')
}
