/**
 * A BAR whose 64-byte writes are commands. A deferrable write (ENQCMD) is answered accepted or retry; a
 * posted one (MOVDIR64B, or smaller writes that fill 64 bytes in order) is taken or lost. Reads are zero.
 */
import type { MmioTarget } from '../mem/address-space.js'

const UNIT = 64

/** Takes one 64-byte write; true is accepted. */
export type PortalHandler = (offset: number, bytes: Uint8Array, deferrable: boolean) => boolean

/** The MMIO side of a device's portal. */
export class PortalTarget implements MmioTarget {
  readonly #handler: PortalHandler
  /** Posted writes of less than 64 bytes gather here; the one that reaches byte 63 submits. */
  readonly #gathered = new Uint8Array(UNIT)
  #unit = -1
  #next = 0

  constructor(handler: PortalHandler) {
    this.#handler = handler
  }

  read(): bigint {
    return 0n
  }

  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    const unit = offset & -UNIT
    const at = offset - unit
    if (at === 0) {
      this.#unit = unit
      this.#next = 0
    }
    if (unit !== this.#unit || at !== this.#next || at + size > UNIT) {
      this.reset()
      return
    }
    for (let i = 0; i < size; i++) this.#gathered[at + i] = Number((value >> BigInt(8 * i)) & 0xffn)
    this.#next = at + size
    if (this.#next < UNIT) return
    this.reset()
    this.#handler(unit, this.#gathered, false)
  }

  write64(offset: number, bytes: Uint8Array, deferrable: boolean): boolean {
    return this.#handler(offset, bytes, deferrable)
  }

  /** Forgets a half-gathered write. */
  reset(): void {
    this.#unit = -1
    this.#next = 0
  }
}
