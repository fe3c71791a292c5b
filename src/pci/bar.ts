/**
 * Base Address Registers: what software reads back when it sizes one, and where it decodes. Memory
 * BARs only, 32- and 64-bit; I/O BARs are not modelled.
 * Next: function.ts (which BARs a function has), fabric.ts (how an address finds one).
 */
import type { MmioTarget } from '../mem/address-space.js'

/** A BAR as a device declares it. */
export interface BarSpec {
  /** 0 to 5; a 64-bit BAR takes `index` and `index + 1`. */
  readonly index: number
  /** Bytes wanted; rounded up to a power of two of at least 4096, so that a page of it can be mapped. */
  readonly size: number
  readonly wide?: boolean
  readonly prefetchable?: boolean
  readonly target: MmioTarget
}

/** What a BAR register of a header is. `upper` is the second register of a 64-bit BAR. */
export type BarKind = 'none' | 'memory32' | 'memory64' | 'upper'

/** The register behind a BAR, as stored in the header. */
export interface BarRegister {
  VALUE: number
}

/** One of the six BAR registers of a function. */
export class Bar {
  readonly index: number
  readonly kind: BarKind
  /** Bytes, a power of two; 0 for `none` and `upper`. */
  readonly size: number
  readonly prefetchable: boolean
  readonly target: MmioTarget | undefined
  readonly #low: BarRegister
  readonly #high: BarRegister | undefined
  /** Address bits that exist in this register. */
  readonly #mask: number
  readonly #type: number
  readonly #decoding: () => boolean

  constructor(
    kind: BarKind,
    spec: BarSpec | { index: number },
    size: number,
    registers: readonly BarRegister[],
    decoding: () => boolean,
  ) {
    this.index = spec.index
    this.kind = kind
    this.size = kind === 'upper' ? 0 : size
    this.prefetchable = 'prefetchable' in spec && spec.prefetchable === true
    this.target = 'target' in spec && kind !== 'upper' ? spec.target : undefined
    this.#low = registers[spec.index]!
    this.#high = kind === 'memory64' ? registers[spec.index + 1] : undefined
    this.#decoding = decoding
    if (kind === 'none') this.#mask = 0
    else if (kind === 'upper') this.#mask = size > 2 ** 32 ? -(size / 2 ** 32) >>> 0 : 0xffff_ffff
    else this.#mask = size >= 2 ** 32 ? 0 : -size >>> 0
    const memory = kind === 'memory32' || kind === 'memory64'
    this.#type = memory ? (kind === 'memory64' ? 4 : 0) | (this.prefetchable ? 8 : 0) : 0
  }

  /** Address decoded, from the registers; meaningful when `enabled`. */
  address(): number {
    if (this.size === 0) return 0
    return (this.#high ? this.#high.VALUE * 2 ** 32 : 0) + ((this.#low.VALUE & this.#mask) >>> 0)
  }

  /** Whether the function answers memory requests to it: implemented, Memory Space Enable set, in D0. */
  get enabled(): boolean {
    return this.size !== 0 && this.#decoding()
  }

  /** Puts the bits that are not address bits back, after software's write or a reset. */
  settle(): void {
    this.#low.VALUE = ((this.#low.VALUE & this.#mask) | this.#type) >>> 0
  }
}

/** Bytes of address space that a BAR of `size` wanted bytes takes. */
export function barSize(size: number): number {
  let pow = 4096
  while (pow < size) pow *= 2
  return pow
}

/** The six BARs of a function. Refuses specs that collide. */
export function makeBars(
  specs: readonly BarSpec[],
  registers: readonly BarRegister[],
  decoding: () => boolean,
): Bar[] {
  const bars: (Bar | undefined)[] = new Array(registers.length).fill(undefined)
  for (const spec of specs) {
    const size = barSize(spec.size)
    const last = spec.index + (spec.wide ? 1 : 0)
    if (spec.index < 0 || last >= bars.length || bars[spec.index] || bars[last])
      throw new Error(`BAR ${spec.index} is taken or does not exist`)
    if (!spec.wide && size > 2 ** 31) throw new Error(`BAR ${spec.index} needs 64 bits`)
    bars[spec.index] = new Bar(spec.wide ? 'memory64' : 'memory32', spec, size, registers, decoding)
    if (spec.wide)
      bars[last] = new Bar('upper', { ...spec, index: last }, size, registers, decoding)
  }
  return Array.from(bars, (b, index) => b ?? new Bar('none', { index }, 0, registers, decoding))
}
