/**
 * Enhanced Configuration Access Mechanism (PCIe 7.2.2): configuration space as memory, 4 KiB a function,
 * by bus, device and function number. What does not exist reads all-ones.
 */
import type { MmioTarget } from '../mem/address-space.js'

/** Configuration by requester id; `undefined` is a function that is not there. */
export interface ConfigRouter {
  configRead(bdf: number, offset: number, size: number): number
  configWrite(bdf: number, offset: number, size: number, value: number): void
}

/** Bytes of the memory-mapped range for buses 0 to 255. */
export const ECAM_SIZE = 0x1000_0000

/** The memory-mapped range of a root complex. */
export class Ecam implements MmioTarget {
  readonly #router: ConfigRouter

  constructor(router: ConfigRouter) {
    this.#router = router
  }

  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    const bdf = offset >>> 12
    const at = offset & 0xfff
    if (size < 8) return BigInt(this.#router.configRead(bdf, at, size))
    const low = BigInt(this.#router.configRead(bdf, at, 4))
    return low | (BigInt(this.#router.configRead(bdf, at + 4, 4)) << 32n)
  }

  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    const bdf = offset >>> 12
    const at = offset & 0xfff
    this.#router.configWrite(bdf, at, Math.min(size, 4), Number(value & 0xffff_ffffn))
    if (size === 8) this.#router.configWrite(bdf, at + 4, 4, Number(value >> 32n))
  }
}
