// The ioctls of private memory, in the kernel's order of checks: a VM's slots with files, files, attributes; a vCPU's
// pre-fault. Which VMs answer them is their architecture's business.

import { hex, PAGE_SIZE } from '../../../base/addr.js'
import { ErrnoError } from '../../../base/errno.js'
import type { Process } from '../../../sys/process.js'
import { copyIn, copyOut, refuse } from '../arguments.js'
import { calls } from '../calls.js'
import * as uapi from '../uapi/common.js'
import type { Vm } from '../vm.js'
import { blockOf, LEVEL_PAGES } from './mapping-levels.js'
import { createMemfd } from './private-memory.js'

const PAGE_BITS = BigInt(PAGE_SIZE - 1)
const TOP = 1n << 64n

/** Requests of VMs. */
export const MEMORY_CALLS = calls<Vm>([
  [uapi.KVM_SET_USER_MEMORY_REGION2, setMemoryRegion2],
  [uapi.KVM_SET_MEMORY_ATTRIBUTES, setMemoryAttributes],
  [uapi.KVM_CREATE_GUEST_MEMFD, createGuestMemfd],
])

/** KVM_SET_USER_MEMORY_REGION2. */
export function setMemoryRegion2(vm: Vm, arg: number, caller: Process): number {
  const region = copyIn(caller, arg, uapi.kvm_userspace_memory_region2)
  vm.slots.set(region, {
    offset: region.guest_memfd_offset,
    find: () => vm.privateMemory!.memfdOf(region.guest_memfd, caller),
  })
  return 0
}

function setMemoryAttributes(vm: Vm, arg: number, caller: Process): number {
  const { address, size, attributes, flags } = copyIn(caller, arg, uapi.kvm_memory_attributes)
  if (flags !== 0n) throw refuse('EINVAL', `attribute flags ${hex(flags)}`)
  if ((attributes & ~(vm.privateMemory?.supported ?? 0n)) !== 0n)
    throw refuse('EINVAL', `attributes ${hex(attributes)} of this type of VM`)
  if (size === 0n || address + size >= TOP)
    throw refuse('EINVAL', `${hex(size)} bytes at ${hex(address)}`)
  if (((address | size) & PAGE_BITS) !== 0n)
    throw refuse('EINVAL', `${hex(size)} bytes at ${hex(address)} are not whole pages`)
  const page = (bytes: bigint) => Number(bytes / BigInt(PAGE_SIZE))
  // Without private memory every page is shared, which is what the call then says.
  vm.privateMemory?.setAttributes(page(address), page(size), attributes !== 0n)
  return 0
}

function createGuestMemfd(vm: Vm, arg: number, caller: Process): number {
  const { size, flags } = copyIn(caller, arg, uapi.kvm_create_guest_memfd)
  const { kernel, trace, guestMemfd: options } = vm.parts
  // Without private memory no slot takes the file, and nothing of it is mapped.
  const host = vm.privateMemory ?? {
    name: 'a VM without private memory',
    invalidate: (_: unknown, change: () => void) => change(),
    put: () => vm.put(),
  }
  const attributes = (vm.privateMemory?.supported ?? 0n) !== 0n
  const get = () => vm.get()
  return createMemfd({ host, kernel, trace, options, attributes, get }, size, flags, caller)
}

/**
 * KVM_PRE_FAULT_MEMORY: maps a range as faults of the guest would, without running it. 0 once a page was mapped; what is
 * left is copied back in any case. EINVAL, EOPNOTSUPP (`allowed`), ENOENT (no slot), EFAULT (nothing to map).
 */
export function preFault(vm: Vm, allowed: boolean, arg: number, caller: Process): number {
  const range = copyIn(caller, arg, uapi.kvm_pre_fault_memory)
  const whole = range.size
  let refused: unknown
  try {
    checkRange(range.flags, range.gpa, range.size)
    if (!allowed) throw refuse('EOPNOTSUPP', 'memory of this VM cannot be faulted in yet')
    while (range.size > 0n) {
      const done = preFaultOne(vm, range.gpa, range.size)
      range.gpa += done
      range.size -= done
    }
  } catch (error) {
    if (!(error instanceof ErrnoError)) throw error
    refused = error
  }
  copyOut(caller, arg, range)
  if (refused !== undefined && range.size === whole) throw refused
  return 0
}

function checkRange(flags: bigint, gpa: bigint, size: bigint): void {
  if (flags !== 0n) throw refuse('EINVAL', `pre-fault flags ${hex(flags)}`)
  if (((gpa | size) & PAGE_BITS) !== 0n || size === 0n || gpa + size >= TOP)
    throw refuse('EINVAL', `pre-fault of ${hex(size)} bytes at ${hex(gpa)}`)
}

// Returns the bytes from `gpa` on that are mapped now, at most `size`.
function preFaultOne(vm: Vm, gpa: bigint, size: bigint): bigint {
  const gfn = Number(gpa / BigInt(PAGE_SIZE))
  const faulted = vm.privateMemory?.mappings
  if (faulted === undefined) {
    const address = gfn * PAGE_SIZE
    const { memory, slots } = vm
    if (slots.at(address) === undefined) throw refuse('ENOENT', `no slot at ${hex(gpa)}`)
    const there = () => memory.ramAt(address) ?? memory.mmioAt(address)
    if (there() === undefined && !slots.populate(address))
      throw refuse('EFAULT', `no memory behind ${hex(gpa)}`)
    const { base, size: bytes } = there()!
    return least(size, BigInt(base + bytes) - gpa)
  }
  const present = faulted.mappingAt(gfn)
  const outcome =
    present === undefined ? faulted.fault(gfn) : { kind: 'mapped' as const, ...present }
  switch (outcome.kind) {
    case 'mapped': {
      const end = blockOf(gfn, outcome.level) + LEVEL_PAGES[outcome.level]
      return least(size, BigInt(end) * BigInt(PAGE_SIZE) - gpa)
    }
    case 'mmio':
      throw refuse('ENOENT', `no slot at ${hex(gpa)}`)
    case 'no-memory':
      throw refuse('EFAULT', `no memory behind ${hex(gpa)}`)
    case 'exit':
      throw refuse(outcome.code, `${hex(gpa)} cannot be mapped`)
  }
}

const least = (a: bigint, b: bigint) => (a < b ? a : b)
