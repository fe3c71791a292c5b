/**
 * Which descriptors each change of the tables asks for (VT-d 6.5.3.3, "guidance to software"). A
 * device TLB is told only after the unit's own caches, or it could fetch the old translation again.
 */
import { halves, split } from '../../base/addr.js'
import {
  CONTEXT_CACHE_DESCRIPTOR,
  DESCRIPTOR,
  DEVICE_TLB_DESCRIPTOR,
  INTERRUPT_ENTRY_CACHE_DESCRIPTOR,
  IOTLB_DESCRIPTOR,
  PASID_CACHE_DESCRIPTOR,
  PASID_DEVICE_TLB_DESCRIPTOR,
  PASID_IOTLB_DESCRIPTOR,
} from './descriptors.js'
import type { VtdDevice } from './driver-device.js'
import type { Completion, InvalidationQueue } from './driver-queue.js'

/** Order of the whole address space: 2^52 pages. */
export const WHOLE_ORDER = 52

/** Descriptors of one unit, kept and rewritten. */
export class VtdInvalidator {
  readonly #queue: InvalidationQueue
  readonly #largestMask: number
  readonly #drainPages: boolean
  readonly #page = IOTLB_DESCRIPTOR.create({ TYPE: DESCRIPTOR.IOTLB, G: 3, DR: true, DW: true })
  readonly #domain = IOTLB_DESCRIPTOR.create({ TYPE: DESCRIPTOR.IOTLB, G: 2, DR: true, DW: true })
  readonly #pasid = PASID_IOTLB_DESCRIPTOR.create({ TYPE: DESCRIPTOR.PASID_IOTLB })
  readonly #pasidCache = PASID_CACHE_DESCRIPTOR.create({ TYPE: DESCRIPTOR.PASID_CACHE, G: 1 })
  readonly #context = CONTEXT_CACHE_DESCRIPTOR.create({ TYPE: DESCRIPTOR.CONTEXT_CACHE, G: 3 })
  readonly #deviceTlb = DEVICE_TLB_DESCRIPTOR.create({ TYPE: DESCRIPTOR.DEVICE_TLB })
  readonly #interruptEntry = INTERRUPT_ENTRY_CACHE_DESCRIPTOR.create({
    TYPE: DESCRIPTOR.INTERRUPT_ENTRY_CACHE,
    G: 1,
  })
  readonly #pasidDeviceTlb = PASID_DEVICE_TLB_DESCRIPTOR.create({
    TYPE: DESCRIPTOR.PASID_DEVICE_TLB,
  })

  /** `largestMask` is CAP.MAMV; `drainPages` says whether waits may drain page requests (ECAP.PDS). */
  constructor(queue: InvalidationQueue, largestMask: number, drainPages: boolean) {
    this.#queue = queue
    this.#largestMask = largestMask
    this.#drainPages = drainPages
  }

  /** Largest order of a page-selective invalidation. */
  get largestMask(): number {
    return this.#largestMask
  }

  /** Second-stage pages of a domain: 2^order from an aligned page. `leaf`: only leaves changed. */
  iotlbPages(did: number, page: number, order: number, leaf: boolean): void {
    const d = this.#page
    d.DID = did
    d.ADDR_LO = page
    d.ADDR_HI = page / 0x10_0000
    d.AM = order
    d.IH = leaf
    this.#queue.submit(d)
  }

  /** Everything of a domain. */
  iotlbDomain(did: number): void {
    this.#domain.DID = did
    this.#queue.submit(this.#domain)
  }

  /** First-stage and nested translations of a PASID: 2^order pages at `addr`, or all of them. */
  pasidIotlb(did: number, pasid: number, addr: bigint, order: number, leaf: boolean): void {
    const d = this.#pasid
    const whole = order > this.#largestMask
    d.DID = did
    d.PASID = pasid
    d.G = whole ? 2 : 3
    split(whole ? 0n : addr)
    d.ADDR_HI = halves[1]!
    d.ADDR_LO = halves[0]! >>> 12
    d.AM = whole ? 0 : order
    d.IH = leaf && !whole
    this.#queue.submit(d)
  }

  /** What a device caches without PASID: 2^order pages from `page`. */
  deviceTlbPages(device: VtdDevice, page: number, order: number): void {
    const d = this.#deviceTlb
    d.SID = device.bdf
    d.MIP = device.invalidateDepth & 31
    d.S = order > 0
    rangeOf(page / 0x10_0000, page, order)
    d.ADDR_HI = range[1]!
    d.ADDR_LO = range[0]!
    this.#queue.submit(d)
  }

  /** What a device caches under a PASID: 2^order pages at `addr`. */
  pasidDeviceTlb(device: VtdDevice, pasid: number, addr: bigint, order: number): void {
    const d = this.#pasidDeviceTlb
    d.SID = device.bdf
    d.PASID = pasid
    d.MIP = device.invalidateDepth & 31
    d.S = order > 0
    split(addr)
    rangeOf(halves[1]!, halves[0]! >>> 12, order)
    d.ADDR_HI = range[1]!
    d.ADDR_LO = range[0]!
    this.#queue.submit(d)
  }

  /** Later descriptors wait for earlier ones. */
  fence(): void {
    this.#queue.fence()
  }

  /** Waits for everything submitted. */
  complete(): Completion {
    return this.#queue.complete()
  }

  /** An interrupt remapping entry changed; waits. */
  interruptEntry(index: number): void {
    this.#interruptEntry.IIDX = index
    this.#queue.submit(this.#interruptEntry)
    this.#queue.complete()
  }

  /** A PASID's entry was taken away. Ends with a wait that also drains the device's page requests. */
  pasidGone(device: VtdDevice, did: number, pasid: number): void {
    this.#pasidCache.DID = did
    this.#pasidCache.PASID = pasid
    this.#queue.submit(this.#pasidCache)
    this.pasidIotlb(did, pasid, 0n, WHOLE_ORDER, false)
    if (device.atsOn) {
      this.#queue.fence()
      this.pasidDeviceTlb(device, pasid, 0n, WHOLE_ORDER)
    }
    this.#queue.complete(this.#drainPages && device.priOn)
  }

  /**
   * The entry of requests without PASID (`pasid` 0), or of a PASID, was rewritten or taken away. Ends with a wait
   * that also drains the device's page requests.
   */
  entryGone(
    device: VtdDevice,
    did: number,
    pasid: number,
    withPasid: boolean,
    nested: boolean,
  ): void {
    this.#pasidCache.DID = did
    this.#pasidCache.PASID = pasid
    this.#queue.submit(this.#pasidCache)
    if (nested) this.pasidIotlb(did, pasid, 0n, WHOLE_ORDER, false)
    else this.iotlbDomain(did)
    if (device.atsOn) {
      this.#queue.fence()
      if (withPasid) this.pasidDeviceTlb(device, pasid, 0n, WHOLE_ORDER)
      else this.deviceTlbPages(device, 0, WHOLE_ORDER)
    }
    this.#queue.complete(this.#drainPages && device.priOn)
  }

  /** A device's context entry was taken away, and with it the entry for requests without PASID. */
  deviceGone(device: VtdDevice, did: number): void {
    this.#context.SID = device.bdf
    this.#queue.submit(this.#context)
    this.#pasidCache.DID = did
    this.#pasidCache.PASID = 0
    this.#queue.submit(this.#pasidCache)
    this.iotlbDomain(did)
    if (device.atsOn) {
      this.#queue.fence()
      this.deviceTlbPages(device, 0, WHOLE_ORDER)
    }
    this.#queue.complete()
  }
}

/** The last result of `rangeOf`: address bits 31:12 and 63:32. */
const range = new Uint32Array(2)

/**
 * Encodes 2^order pages in an address with S set: the lowest order-1 page bits are ones and the next is
 * zero (PCIe 10.3.1, table of sizes); WHOLE_ORDER clears bit 63.
 */
function rangeOf(hi: number, lo: number, order: number): void {
  const ones = order - 1
  const low = ones >= 20 ? 0xf_ffff : (1 << Math.max(ones, 0)) - 1
  const high = ones <= 20 ? 0 : 2 ** (ones - 20) - 1
  const zeroLow = ones >= 0 && ones < 20 ? 1 << ones : 0
  const zeroHigh = ones >= 20 ? 2 ** (ones - 20) : 0
  range[0] = ((lo & 0xf_ffff) | low) & ~zeroLow
  range[1] = (Math.floor(hi) | high) & ~zeroHigh
}
