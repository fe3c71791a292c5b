// KVM_CREATE_DEVICE and the files it makes (Documentation of KVM's API, 4.79). Devices: GICv3 and its ITS.

import type { OpenFile } from '../../../sys/open-file.js'
import type { Process } from '../../../sys/process.js'
import { copyIn, copyOut, refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'
import { type Attributes, attributeCall } from './attributes.js'
import { ItsDevice } from './its-device.js'
import { VgicDevice } from './vgic-device.js'
import type { Arm64Vm } from './vm.js'

/** The file behind a device's descriptor. It holds its VM; what it made stays when it is closed. */
class DeviceFile implements OpenFile {
  readonly kind = 'kvm-device'
  readonly #vm: Arm64Vm
  readonly #attributes: Attributes

  constructor(vm: Arm64Vm, attributes: Attributes) {
    this.#vm = vm
    this.#attributes = attributes
    vm.get()
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    this.#vm.admit(caller)
    const answer = attributeCall(this.#attributes, cmd, arg, caller)
    if (answer === undefined)
      throw refuse('ENOTTY', `a device knows no request 0x${cmd.toString(16)}`)
    return answer
  }

  release(): void {
    this.#vm.put()
  }
}

/** KVM_CREATE_DEVICE. ENODEV: no such type; then what the type says. */
export function createDevice(vm: Arm64Vm, arg: number, caller: Process): number {
  const given = copyIn(caller, arg, uapi.kvm_create_device)
  const make = TYPES.get(given.type)
  if (make === undefined) throw refuse('ENODEV', `device type ${given.type}`)
  if ((given.flags & uapi.KVM_CREATE_DEVICE_TEST) !== 0) return 0
  caller.kernel.failures.step('a device')
  caller.fds.reserve()
  given.fd = caller.fds.install(new DeviceFile(vm, make(vm)))
  copyOut(caller, arg, given)
  return 0
}

const TYPES: ReadonlyMap<number, (vm: Arm64Vm) => Attributes> = new Map<
  number,
  (vm: Arm64Vm) => Attributes
>([
  [uapi.KVM_DEV_TYPE_ARM_VGIC_V3, vm => VgicDevice.create(vm)],
  [uapi.KVM_DEV_TYPE_ARM_VGIC_ITS, vm => new ItsDevice(vm.vgic)],
])
