/**
 * Address Translation Services (PCIe 7.8.8, 10.2, 10.3): the capability, and the function's translation
 * cache behind it. Changing Enable empties the cache.
 * Next: ../atc.ts (the cache), ../bus-master.ts (when it is asked).
 */
import { bank, bits, flag, r16 } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import { TranslationCache } from '../atc.js'
import { type CacheObserver, ObservedCache } from '../atc-observer.js'
import { type Capability, type CapabilityFactory, extendedHeader } from '../capability.js'
import { EXTENDED } from '../ids.js'
import type { AtsInvalidation } from '../request.js'

/** The capability structure. */
export const ATS = bank('ATS capability', {
  Header: extendedHeader(EXTENDED.ATS, 1),
  Capability: r16(0x04, 'PCIe 7.8.8.2', {
    Global_Invalidate_Supported: flag(6, 'ro', 'invalidations with Global Invalidate work'),
    Page_Aligned_Request: flag(5, 'ro', 'requests have address bits 11:0 clear'),
    Invalidate_Queue_Depth: bits(4, 0, 'ro', 'invalidations held before the link stalls; 0: 32'),
  }),
  Control: r16(0x06, 'PCIe 7.8.8.3', {
    Enable: flag(15, 'rw', 'translations may be asked for and cached'),
    Smallest_Translation_Unit: bits(4, 0, 'rw', 'granule of requests: 4096 << n bytes'),
  }),
})

/** Address translation of one function; `enabled` and `unitBits` are what the request path asks. */
export class AtsCapability implements Capability {
  readonly id = EXTENDED.ATS
  readonly extended = true
  readonly file: RegisterFile<typeof ATS>
  cache = new TranslationCache()
  enabled = false
  /** log2 of the smallest translation unit. */
  unitBits = 12
  readonly #queueDepth: number

  constructor(queueDepth: number) {
    if (!Number.isInteger(queueDepth) || queueDepth < 1 || queueDepth > 32)
      throw new RangeError(`invalidate queue depth ${queueDepth} is not 1 to 32`)
    this.#queueDepth = queueDepth & 31
    this.file = new RegisterFile(ATS, { onWrite: { Control: () => this.#controlled() } })
    this.reset()
  }

  /** Puts a cache in place of this one that tells what it holds and what is used. */
  observe(observer: CacheObserver): void {
    this.cache = new ObservedCache(observer)
  }

  /** Takes an Invalidate Request; true is its completion. With ATS disabled there is none. */
  invalidate(i: AtsInvalidation): boolean {
    if (!this.enabled) return false
    this.cache.invalidate(i)
    return true
  }

  link(next: number): void {
    this.file.regs.Header.NEXT = next
  }

  reset(): void {
    this.file.reset()
    const c = this.file.regs.Capability
    c.Global_Invalidate_Supported = true
    c.Page_Aligned_Request = true
    c.Invalidate_Queue_Depth = this.#queueDepth
    this.cache.clear()
    this.#controlled()
  }

  restore(): void {
    this.cache.clear()
    this.#controlled()
  }

  #controlled(): void {
    const { Enable, Smallest_Translation_Unit } = this.file.regs.Control
    if (Enable !== this.enabled) this.cache.clear()
    this.enabled = Enable
    this.unitBits = 12 + Smallest_Translation_Unit
  }
}

/** ATS capability with a translation cache. `queueDepth` is 1 to 32. */
export const ats =
  (options: { queueDepth?: number } = {}): CapabilityFactory =>
  () =>
    new AtsCapability(options.queueDepth ?? 32)
