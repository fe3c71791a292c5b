// The distributor (IHI 0069H 12.8): SPIs, their routes and the groups' enables. Accesses of a width that a register does
// not have read zero and write nothing. Which SPI goes where is read by redistributor.ts.

import { RegisterFile } from '../../base/registers.js'
import type { MmioTarget } from '../../mem/address-space.js'
import { type FoundWord, findWord, priorityIndex } from './families.js'
import { InterruptRange } from './interrupts.js'
import { GIC_FRAME, GICD } from './registers.js'

const IROUTER = 0x6000
/** Aff2.Aff1.Aff0 in the low half; Aff3 in the high half. Bit 31 (1 of N) is RES0. */
const ROUTE_LOW = 0xff_ffff
const ROUTE_HIGH = 0xff
const IIDR = 0x0008

/** What a distributor is built from. */
export interface DistributorParts {
  /** SPIs and the 32 below them: a multiple of 32 up to 1024. */
  readonly interrupts: number
  readonly lpis: boolean
  /** Number of the processor with this affinity (Aff3.Aff2.Aff1.Aff0), or -1. */
  processorAt(affinity: number): number
  /** Something that may alter what is signalled has changed. */
  changed(): void
}

/** Distributor and SPIs. */
export class Distributor implements MmioTarget {
  readonly spis: InterruptRange
  /** Group enables: bit 0 group 0, bit 1 group 1. */
  groups = 0
  readonly #file: RegisterFile<typeof GICD>
  readonly #parts: DistributorParts
  /** Two words for each SPI. */
  readonly #routes: Int32Array
  /** Number of the processor that each SPI goes to, or -1. */
  readonly #targets: Int16Array
  readonly #found: FoundWord = { family: undefined, word: 0 }

  constructor(parts: DistributorParts) {
    const { interrupts, lpis } = parts
    const count = interrupts - 32
    this.#parts = parts
    this.spis = new InterruptRange(32, count, parts.changed)
    this.#routes = new Int32Array(count * 2)
    this.#targets = new Int16Array(count).fill(-1)
    this.#file = new RegisterFile(GICD, { onWrite: { CTLR: () => this.#readGroups() } })
    const { TYPER } = this.#file.regs
    TYPER.ITLINESNUMBER = interrupts / 32 - 1
    TYPER.LPIS = lpis
  }

  /** An ITS was added: TYPER says that there are LPIs. */
  addLpis(): void {
    this.#file.regs.TYPER.LPIS = true
  }

  /** Interrupt ids below the LPIs: private ones and SPIs. */
  get interrupts(): number {
    return this.spis.count + 32
  }

  /** Number of the processor an SPI goes to; -1 when its route names none. */
  target(intid: number): number {
    return this.#targets[intid - 32]!
  }

  /** Works routes out anew: a processor was added. */
  reroute(): void {
    for (let i = 0; i < this.spis.count; i++) this.#route(i)
    this.#parts.changed()
  }

  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    if (offset % size !== 0) return 0n
    if (size === 4) return BigInt(this.read32(offset))
    if (size === 8 && this.#routeIndex(offset) >= 0)
      return (BigInt(this.read32(offset + 4)) << 32n) | BigInt(this.read32(offset))
    const i = size === 1 ? priorityIndex(this.spis, offset) : -1
    return i < 0 ? 0n : BigInt(this.spis.priority[i]!)
  }

  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    if (offset % size !== 0) return
    if (size === 4) this.write32(offset, Number(value))
    else if (size === 8 && this.#routeIndex(offset) >= 0) {
      this.write32(offset, Number(value & 0xffff_ffffn))
      this.write32(offset + 4, Number(value >> 32n))
    } else if (size === 1) {
      const i = priorityIndex(this.spis, offset)
      if (i >= 0) this.spis.setPriority(i, Number(value))
    }
  }

  read32(offset: number): number {
    if (findWord(this.spis, offset, this.#found))
      return this.#found.family!.read(this.spis, this.#found.word) >>> 0
    const i = this.#routeIndex(offset)
    if (i >= 0) return this.#routes[i]! >>> 0
    return this.#file.read32(offset)
  }

  write32(offset: number, value: number): void {
    if (findWord(this.spis, offset, this.#found)) {
      this.#found.family!.write(this.spis, this.#found.word, value | 0)
      return
    }
    const i = this.#routeIndex(offset)
    if (i >= 0) {
      this.#routes[i] = value & (i & 1 ? ROUTE_HIGH : ROUTE_LOW)
      this.#route(i >> 1)
      this.#parts.changed()
    } else this.#file.write32(offset, value)
  }

  /** KVM's read of a word: undefined where no register is. */
  userRead(offset: number): number | undefined {
    if (!this.#exists(offset)) return undefined
    const user = findWord(this.spis, offset, this.#found) ? this.#found.family!.user : undefined
    return user ? user.read(this.spis, this.#found.word) >>> 0 : this.read32(offset)
  }

  /** KVM's write of a word: 'missing' where no register is, 'refused' for another GIC's IIDR. */
  userWrite(offset: number, value: number): 'done' | 'missing' | 'refused' {
    if (!this.#exists(offset)) return 'missing'
    if (offset === IIDR && value >>> 0 !== this.read32(IIDR)) return 'refused'
    const user = findWord(this.spis, offset, this.#found) ? this.#found.family!.user : undefined
    if (user) user.write(this.spis, this.#found.word, value | 0)
    else this.write32(offset, value)
    return 'done'
  }

  save(): Uint8Array[] {
    return [this.#file.save(), new Uint8Array(this.#routes.buffer).slice(), ...this.spis.save()]
  }

  restore([file, routes, ...spis]: readonly Uint8Array[]): void {
    if (routes?.length !== this.#routes.byteLength)
      throw new Error(`a saved distributor that has not ${this.interrupts} interrupts`)
    this.#file.restore(file!)
    new Uint8Array(this.#routes.buffer).set(routes)
    this.#readGroups()
    this.spis.restore(spis)
    this.reroute()
  }

  #readGroups(): void {
    const { ENABLEGRP0, ENABLEGRP1 } = this.#file.regs.CTLR
    this.groups = (ENABLEGRP0 ? 1 : 0) | (ENABLEGRP1 ? 2 : 0)
    this.#parts.changed()
  }

  /** Index of a word of the routes, or -1. */
  #routeIndex(offset: number): number {
    const i = (offset - IROUTER - 32 * 8) / 4
    return i >= 0 && i < this.#routes.length ? i : -1
  }

  #route(i: number): void {
    const affinity = this.#routes[2 * i]! | (this.#routes[2 * i + 1]! << 24)
    this.#targets[i] = this.#parts.processorAt(affinity >>> 0)
  }

  // What KVM lists: every word of a frame where some register lies, those of private interrupts among them.
  #exists(offset: number): boolean {
    if (offset % 4 !== 0 || offset >= GIC_FRAME) return false
    return (
      offset <= 0x010 ||
      (offset >= 0x080 && offset < 0x0d80) ||
      (offset >= IROUTER && offset < IROUTER + 8 * 1024) ||
      offset >= 0xffd0
    )
  }
}
