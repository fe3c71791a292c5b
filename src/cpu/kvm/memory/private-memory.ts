// Private memory of one VM: attributes of its pages, its guest_memfds, and what happens around a change of either.
// Calls that reach it are in calls.ts; what a guest's access then finds is in faulted-slots.ts.

import { PAGE_SIZE } from '../../../base/addr.js'
import type { TraceBus, TraceEvents, TracePoint } from '../../../base/trace.js'
import { ConfidentialPages } from '../../../mem/confidential.js'
import type { Kernel } from '../../../sys/kernel.js'
import type { Process } from '../../../sys/process.js'
import { refuse } from '../arguments.js'
import {
  GUEST_MEMFD_FLAG_INIT_SHARED,
  GUEST_MEMFD_FLAG_MMAP,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
} from '../uapi/memory.js'
import { MemoryAttributes } from './attributes.js'
import { FaultedSlots } from './faulted-slots.js'
import { GuestMemfd, type MemfdHost } from './guest-memfd.js'
import { Invalidations } from './invalidations.js'
import { blockOf, LEVEL_PAGES } from './mapping-levels.js'
import type { Slot } from './slot.js'
import type { MappingParts } from './slot-mappings.js'
import { WithdrawnCopies } from './withdrawn-copies.js'

/** What a machine's guest_memfds are like. */
export interface GuestMemfdOptions {
  /**
   * `base`, the default: the form that was merged first. `mmap`: flags MMAP and INIT_SHARED, and slots of any type of
   * VM may have a file (Linux 6.18 and later).
   */
  readonly edition?: 'base' | 'mmap'
  /** Files allocate 2^order pages at a time where they can: 0 by default, as kernels do; 9 and 18 map large. */
  readonly order?: number
  /** Pages the guest executes are mapped 4 KiB at a time (the NX large-page workaround). */
  readonly smallCode?: boolean
  /**
   * Shared copies of private pages: `withdrawn` from devices by the kernel, the default, or left to the `owner` of the
   * VM to unmap, as kernels do so far. DMA to a copy that the owner forgot is refused by the machine either way.
   */
  readonly devices?: 'withdrawn' | 'owner'
}

/** What it needs of its VM. */
export interface PrivateMemoryParts {
  /** Names the VM in the history of pages. */
  readonly name: string
  readonly kernel: Kernel
  readonly trace: TraceBus
  readonly options: GuestMemfdOptions
  /** Whether pages can be private at all: not in VMs of the default type. */
  readonly attributes: boolean
  /** A file has let the VM go. */
  readonly put: () => void
}

/** Flags of files, where pages have `attributes` or not. What is shared from the start has no place beside them. */
export function memfdFlags(options: GuestMemfdOptions | undefined, attributes: boolean): number {
  if (options?.edition !== 'mmap') return 0
  return GUEST_MEMFD_FLAG_MMAP | (attributes ? 0 : GUEST_MEMFD_FLAG_INIT_SHARED)
}

/** What a file is made for: a VM, which it holds. */
export interface MemfdMaker {
  readonly host: MemfdHost
  readonly kernel: Kernel
  readonly trace: TraceBus
  readonly options: GuestMemfdOptions | undefined
  /** Whether pages of the VM have attributes. */
  readonly attributes: boolean
  /** Holds the VM. */
  readonly get: () => void
}

/** KVM_CREATE_GUEST_MEMFD: a descriptor of the caller. EINVAL: flags, size; ENOMEM; EMFILE. */
export function createMemfd(vm: MemfdMaker, size: bigint, flags: bigint, caller: Process): number {
  const { host, kernel, trace, options, attributes, get } = vm
  if ((flags & ~BigInt(memfdFlags(options, attributes))) !== 0n)
    throw refuse('EINVAL', `file flags ${flags}`)
  if (size <= 0n || size >= 1n << 63n || size % BigInt(PAGE_SIZE) !== 0n)
    throw refuse('EINVAL', `a file of ${size} bytes`)
  caller.fds.reserve()
  kernel.failures.step('a guest_memfd')
  const file = new GuestMemfd({
    host,
    frames: kernel.frames,
    states: ConfidentialPages.of(kernel.memory, kernel.clock, trace),
    pages: Number(size / BigInt(PAGE_SIZE)),
    flags: Number(flags),
    inode: kernel.nextInode(),
    order: options?.order ?? 0,
  })
  get()
  return caller.fds.install(file)
}

/** Private memory of a VM. */
export class PrivateMemory implements MemfdHost {
  readonly name: string
  readonly attributes = new MemoryAttributes()
  readonly invalidations = new Invalidations()
  readonly #parts: PrivateMemoryParts
  readonly #states: ConfidentialPages
  readonly #mapping: MappingParts
  readonly #copies: WithdrawnCopies
  readonly #stop: () => void
  readonly #told: TracePoint<TraceEvents['kvm.attributes']>
  /** Changes of the owner's memory that have begun and not ended. */
  #userChanges = 0
  /** Guest-physical mappings. */
  readonly mappings: FaultedSlots

  constructor(parts: PrivateMemoryParts, mapping: MappingParts) {
    const { kernel, trace, name, options } = parts
    const { attributes, invalidations } = this
    const { user, slots } = mapping
    this.name = name
    this.#parts = parts
    this.#mapping = mapping
    this.#states = ConfidentialPages.of(kernel.memory, kernel.clock, trace)
    this.#told = trace.point('kvm.attributes')
    const devices = options.devices ?? 'withdrawn'
    const copies = new WithdrawnCopies({
      name,
      user,
      states: this.#states,
      attributes,
      slots,
      devices,
    })
    this.#copies = copies
    this.mappings = new FaultedSlots({
      ...mapping,
      attributes,
      invalidations,
      copies,
      mapped: trace.point('kvm.map'),
      smallCode: options.smallCode === true,
    })
    this.#stop = user.onInvalidate(
      (first, pages) => this.#userChanging(first, pages),
      (first, pages) => this.#userChanged(first, pages),
    )
  }

  /** Attribute bits that KVM_SET_MEMORY_ATTRIBUTES takes. */
  get supported(): bigint {
    return this.#parts.attributes ? BigInt(KVM_MEMORY_ATTRIBUTE_PRIVATE) : 0n
  }

  /** The guest_memfd behind a caller's descriptor. EBADF; EINVAL when it is another file, or another VM's. */
  memfdOf(fd: number, caller: Process): GuestMemfd {
    const file = caller.fds.get(fd)
    if (file === undefined) throw refuse('EBADF', `guest_memfd ${fd}`)
    if (!(file instanceof GuestMemfd)) throw refuse('EINVAL', `${fd} is a ${file.kind}`)
    if (file.host !== this) throw refuse('EINVAL', `${fd} is the guest_memfd of another VM`)
    return file
  }

  /**
   * Makes pages [first, first + pages) private, or shared. ENOMEM, and nothing changed, when there is no memory to
   * note it. Devices lose what becomes private before anything else happens.
   */
  setAttributes(first: number, pages: number, isPrivate: boolean): void {
    if (this.attributes.all(first, pages, isPrivate)) return
    this.#parts.kernel.failures.step('memory attributes')
    const last = first + pages - 1
    if (isPrivate) this.#copies.becomingPrivate(first, last)
    const { invalidations, mappings } = this
    invalidations.begin()
    invalidations.add(first, last)
    const slots = [...this.#mapping.slots()].filter(s => s.first <= last && s.last >= first)
    for (const slot of slots)
      this.#addBlocks(slot, Math.max(first, slot.first), Math.min(last, slot.last))
    mappings.unmap(first, last)
    this.attributes.set(first, pages, isPrivate)
    for (const slot of slots)
      slot.levels!.changed(Math.max(first, slot.first), Math.min(last, slot.last))
    invalidations.end()
    if (!isPrivate) this.#copies.becameShared(first, last)
    if (this.#told.on)
      this.#told.emit({ gpa: first * PAGE_SIZE, bytes: pages * PAGE_SIZE, private: isPrivate })
  }

  invalidate(
    ranges: readonly { readonly first: number; readonly last: number }[],
    change: () => void,
  ): void {
    const { invalidations, mappings } = this
    if (ranges.length === 0) {
      change()
      return
    }
    invalidations.begin()
    for (const { first, last } of ranges) {
      invalidations.add(first, last)
      mappings.unmap(first, last)
    }
    change()
    invalidations.end()
  }

  put(): void {
    this.#parts.put()
  }

  /** The VM is gone; its slots went before. */
  release(): void {
    this.#stop()
    this.#copies.release()
    // The owner's memory may be on its way out, and the VM's last descriptor with it.
    for (; this.#userChanges > 0; this.#userChanges--) this.invalidations.end()
    if (this.invalidations.open > 0) throw new Error('a VM ends with an invalidation under way')
  }

  // A large page over the edge of the range could be mapped anew while the attributes are in flux.
  #addBlocks(slot: Slot, first: number, last: number): void {
    for (const level of [2, 3] as const) {
      for (const gfn of [first, last]) {
        const block = blockOf(gfn, level)
        const end = block + LEVEL_PAGES[level] - 1
        const whole = block >= first && end <= last
        const inside = block >= slot.first && end <= slot.last
        if (!whole && inside && !slot.levels!.mixed(block, level))
          this.invalidations.add(block, end)
      }
    }
  }

  #userChanging(first: number, pages: number): void {
    this.#copies.userChanging(first, pages)
    this.#userChanges++
    this.invalidations.begin()
    for (const slot of this.#mapping.slots()) {
      const low = Math.max(first, slot.userPage(slot.first))
      const high = Math.min(first + pages - 1, slot.userPage(slot.last))
      if (low > high) continue
      const shift = slot.userPage(slot.first) - slot.first
      this.invalidations.add(low - shift, high - shift)
      this.mappings.unmap(low - shift, high - shift)
    }
  }

  #userChanged(first: number, pages: number): void {
    this.#userChanges--
    this.invalidations.end()
    this.#copies.userChanged(first, pages)
  }
}
