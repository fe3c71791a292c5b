// Attributes of devices and vCPUs: KVM_SET_DEVICE_ATTR, KVM_GET_DEVICE_ATTR, KVM_HAS_DEVICE_ATTR (Documentation of KVM's
// API, 4.80). What there is of them: vgic-device.ts, its-device.ts, timer-attributes.ts.

import type { StructValue } from '../../../base/struct.js'
import type { Process } from '../../../sys/process.js'
import { copyIn, copyInBytes, copyOutBytes, refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'

/** The argument of an attribute call. */
export type Attribute = StructValue<(typeof uapi.kvm_device_attr)['members']>

/** Something with attributes: a device, or a vCPU. */
export interface Attributes {
  /** ENXIO when there is no such attribute. */
  has(attribute: Attribute, caller: Process): void
  get(attribute: Attribute, caller: Process): void
  set(attribute: Attribute, caller: Process): void
}

/** Answers an attribute call, or undefined for another request. */
export function attributeCall(
  of: Attributes,
  cmd: number,
  arg: number,
  caller: Process,
): number | undefined {
  const call =
    cmd === uapi.KVM_HAS_DEVICE_ATTR
      ? 'has'
      : cmd === uapi.KVM_GET_DEVICE_ATTR
        ? 'get'
        : cmd === uapi.KVM_SET_DEVICE_ATTR
          ? 'set'
          : undefined
  if (call === undefined) return undefined
  of[call](copyIn(caller, arg, uapi.kvm_device_attr), caller)
  return 0
}

/** The number behind an attribute's address, of `bytes` bytes; EFAULT. */
export function numberIn(a: Attribute, bytes: 4 | 8, caller: Process): bigint {
  const view = new DataView(copyInBytes(caller, Number(a.addr), bytes).buffer)
  return bytes === 4 ? BigInt(view.getUint32(0, true)) : view.getBigUint64(0, true)
}

/** Puts a number behind an attribute's address; EFAULT. */
export function numberOut(a: Attribute, bytes: 4 | 8, value: bigint, caller: Process): void {
  const view = new DataView(new ArrayBuffer(bytes))
  if (bytes === 4) view.setUint32(0, Number(value & 0xffff_ffffn), true)
  else view.setBigUint64(0, BigInt.asUintN(64, value), true)
  copyOutBytes(caller, Number(a.addr), new Uint8Array(view.buffer))
}

/** The refusal of an attribute that is not there. */
export const noAttribute = (a: Attribute) =>
  refuse('ENXIO', `no attribute ${a.attr} in group ${a.group}`)
