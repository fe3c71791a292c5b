// The guest's virtual VT-d: the same unit class as the host's, over guest memory, with hooks that turn
// what the guest did to its PASID table and caches into PASID_REQUEST, BIND, UNBIND and CACHE_INVLD.

import { join } from '../base/addr.js'
import { VirtualClock } from '../base/clock.js'
import { ErrnoError } from '../base/errno.js'
import { TraceBus } from '../base/trace.js'
import type { VtdConfig } from '../iommu/vtd/config.js'
import { VCMD } from '../iommu/vtd/registers.js'
import { VtdUnit } from '../iommu/vtd/unit.js'
import type { AddressSpace } from '../mem/address-space.js'
import type { PageGroupResponse, PageRequest } from '../pci/request.js'
import type { MessageSink } from '../pci/upstream.js'
import type { NestingContainer } from './container.js'
import { type GuestBinding, GuestPasidTable } from './shadow-pasids.js'
import './trace.js'

/** What the virtual unit needs from the VMM around it. */
export interface VirtualIommuParts {
  readonly memory: AddressSpace
  readonly container: NestingContainer
  readonly interrupts: MessageSink
  /** Requester id of the passed-through function as the guest sees it. */
  readonly guestBdf: number
  /** Width of the guest's physical addresses; 52 unless a C-bit takes some. */
  readonly addressBits?: number
  readonly trace: TraceBus
  /** Takes the guest's answer to a page request to the device. */
  readonly respond: (response: PageGroupResponse) => void
}

/** A virtual VT-d unit in front of a nesting container. */
export class VirtualIommu {
  readonly #unit: VtdUnit
  readonly #clock = new VirtualClock()
  readonly #container: NestingContainer
  readonly #table: GuestPasidTable
  readonly #bound = new Map<number, GuestBinding>()
  readonly #pasidLimit: number
  readonly #bindPoint
  readonly #pasidPoint
  readonly #invalidatePoint

  constructor(parts: VirtualIommuParts) {
    const { container, trace } = parts
    const { nesting } = container
    this.#container = container
    this.#table = new GuestPasidTable(parts.memory, parts.guestBdf, parts.addressBits)
    this.#pasidLimit = 2 ** nesting.pasid_bits
    this.#bindPoint = trace.point('vmm.bind')
    this.#pasidPoint = trace.point('vmm.pasid')
    this.#invalidatePoint = trace.point('vmm.invalidate')
    this.#unit = new VtdUnit({
      memory: parts.memory,
      config: virtualConfig(
        nesting.vendor.vtd.cap_reg,
        nesting.vendor.vtd.ecap_reg,
        nesting.pasid_bits,
      ),
      downstream: { invalidate: () => true, respond: parts.respond },
      interrupts: parts.interrupts,
      clock: this.#clock,
      // The guest's unit is not the machine's: its own walks and faults would only confuse the trace.
      trace: new TraceBus(),
      hooks: {
        pasidCacheInvalidated: (granularity, _did, pasid) => {
          if (granularity === 'pasid') this.#reconcile(pasid)
          else this.#reconcileAll()
        },
        contextCacheInvalidated: () => this.#reconcileAll(),
        iotlbInvalidated: (kind, _did, pasid, hi, lo, order, leaf) => {
          if (kind === 'pasid') this.#invalidate(pasid)
          else if (kind === 'pasid-page') this.#invalidate(pasid, join(hi, lo), 2 ** order, leaf)
          else for (const bound of this.#bound.keys()) this.#invalidate(bound)
        },
        pageGroupResponse: response => parts.respond(response),
        virtualCommand: (command, operand) => this.#virtualCommand(command, operand),
      },
    })
  }

  /** The guest's register read. */
  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    return this.#unit.read(offset, size)
  }

  /** The guest's register write, with everything that follows from it. */
  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    this.#unit.write(offset, size, value)
    this.#clock.settle()
  }

  /** Puts a page request into the guest's queue; false when the guest cannot take it. */
  pageRequest(request: PageRequest): boolean {
    const taken = this.#unit.injectPageRequest(request)
    this.#clock.settle()
    return taken
  }

  /** PASIDs that are bound on the host now. */
  get bound(): readonly number[] {
    return [...this.#bound.keys()]
  }

  #reconcileAll(): void {
    this.#table.root = this.#unit.rootTable
    const wanted = new Map(this.#table.entries())
    for (const pasid of [...this.#bound.keys(), ...wanted.keys()]) this.#reconcile(pasid)
  }

  /** Makes the host's binding of `pasid` what the guest's entry says. */
  #reconcile(pasid: number): void {
    this.#table.root = this.#unit.rootTable
    const wanted = this.#table.entry(pasid)
    const bound = this.#bound.get(pasid)
    if (bound && (!wanted || !sameTable(bound, wanted))) {
      this.#unbind(pasid, bound)
      this.#bound.delete(pasid)
    }
    if (wanted && !this.#bound.has(pasid)) this.#bind(pasid, wanted)
  }

  #bind(pasid: number, binding: GuestBinding): void {
    const refused = attempt(() => this.#container.bind(pasid, binding.root, binding))
    if (refused === undefined) this.#bound.set(pasid, binding)
    if (this.#bindPoint.on)
      this.#bindPoint.emit({ operation: 'bind', pasid, root: binding.root, ...refusal(refused) })
  }

  #unbind(pasid: number, binding: GuestBinding): void {
    const refused = attempt(() => this.#container.unbind(pasid))
    if (this.#bindPoint.on)
      this.#bindPoint.emit({ operation: 'unbind', pasid, root: binding.root, ...refusal(refused) })
  }

  #invalidate(pasid: number, address = 0n, pages = 0, leaf = false): void {
    if (!this.#bound.has(pasid)) return
    const refused = attempt(() =>
      pages === 0
        ? this.#container.invalidatePasid(pasid)
        : this.#container.invalidatePages(pasid, address, pages, leaf),
    )
    if (this.#invalidatePoint.on)
      this.#invalidatePoint.emit({ pasid, address, pages, ...refusal(refused) })
  }

  /** Virtual commands: PASIDs come from the host's allocator (vsva-uapi 3.6). */
  #virtualCommand(
    command: number,
    operand: number,
  ): { status: 'success' | 'no-pasid' | 'invalid-pasid' | 'undefined'; result: number } {
    if (command === VCMD.ALLOCATE_PASID) {
      let pasid = 0
      const refused = attempt(() => {
        pasid = this.#container.allocPasid(1, this.#pasidLimit - 1)
      })
      if (this.#pasidPoint.on)
        this.#pasidPoint.emit({ operation: 'alloc', pasid, ...refusal(refused) })
      return refused === undefined
        ? { status: 'success', result: pasid }
        : { status: 'no-pasid', result: 0 }
    }
    if (command === VCMD.FREE_PASID) {
      const refused = attempt(() => this.#container.freePasid(operand))
      if (this.#pasidPoint.on)
        this.#pasidPoint.emit({ operation: 'free', pasid: operand, ...refusal(refused) })
      return { status: refused === undefined ? 'success' : 'invalid-pasid', result: 0 }
    }
    return { status: 'undefined', result: 0 }
  }
}

const sameTable = (a: GuestBinding, b: GuestBinding) =>
  a.root === b.root && a.supervisor === b.supervisor && a.addressWidth === b.addressWidth

/** Runs an ioctl whose refusal the guest must not crash the VMM with; the errno's name, or undefined. */
function attempt(call: () => void): string | undefined {
  try {
    call()
    return undefined
  } catch (error) {
    if (error instanceof ErrnoError) return error.code
    throw error
  }
}

const refusal = (refused: string | undefined) => (refused === undefined ? {} : { refused })

/**
 * What the guest's unit offers: scalable mode with first-stage tables, and of the rest no more than
 * the host's nesting information allows (vsva-uapi 2.3). Second stage and nesting stay the host's.
 */
function virtualConfig(cap: bigint, ecap: bigint, pasidBits: number): Partial<VtdConfig> {
  const has = (register: bigint, bit: bigint) => ((register >> bit) & 1n) !== 0n
  return {
    secondStage: false,
    nesting: false,
    passThrough: false,
    interruptRemapping: false,
    virtualCommand: true,
    firstStage1GPages: has(cap, 56n),
    firstStage5Level: has(cap, 60n),
    pageRequests: has(ecap, 29n),
    executeRequests: has(ecap, 30n),
    supervisorRequests: has(ecap, 31n),
    pasidBits: has(ecap, 40n) ? pasidBits : 0,
  }
}
