// ioctl arguments of KVM: structures copied from and to the caller, and the refusals its files share.

import { hex } from '../../base/addr.js'
import { ErrnoError, type ErrnoName } from '../../base/errno.js'
import type { Members, StructBytes, StructType, StructValue } from '../../base/struct.js'
import type { Process } from '../../sys/process.js'

/** Copies a structure in, with `tailBytes` behind its fixed part; EFAULT. */
export function copyIn<M extends Members>(
  caller: Process,
  at: number,
  type: StructType<M>,
  tailBytes = 0,
): StructValue<M> {
  const value = type(undefined, tailBytes)
  if (!caller.memory.copyIn(at, value.bytes)) throw badAddress(at)
  return value
}

/** Copies bytes in; EFAULT. */
export function copyInBytes(caller: Process, at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  if (!caller.memory.copyIn(at, bytes)) throw badAddress(at)
  return bytes
}

/** Copies a structure out; EFAULT. */
export function copyOut(caller: Process, at: number, value: StructBytes): void {
  copyOutBytes(caller, at, value.bytes)
}

export function copyOutBytes(caller: Process, at: number, bytes: Uint8Array): void {
  if (!caller.memory.copyOut(at, bytes)) throw badAddress(at)
}

const badAddress = (at: number) => refuse('EFAULT', `${hex(at)} is a bad address`)

/** The error of a refused KVM call. */
export const refuse = (code: ErrnoName, what: string): ErrnoError =>
  new ErrnoError(code, `KVM: ${what}`)

/** KVM calls without an argument insist on zero. */
export function noArgument(arg: number): void {
  if (arg !== 0) throw refuse('EINVAL', `argument ${hex(arg)} where there is none`)
}

/** VM and vCPU calls come from the address space that made the VM, or are EIO. */
export function sameMemory(mm: object, caller: Process): void {
  if (caller.mm !== mm) throw refuse('EIO', 'the VM belongs to another address space')
}
