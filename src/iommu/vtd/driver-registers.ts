/**
 * A unit's registers as its driver sees them: memory-mapped, at an address. Fields are decoded by the
 * register tables; nothing here knows the unit. Next: driver.ts.
 */
import type { VirtualClock } from '../../base/clock.js'
import { type LiveRegisters, RegisterFile } from '../../base/registers.js'
import type { AddressSpace } from '../../mem/address-space.js'
import { VTD, type VTD_REGISTERS } from './registers.js'

type Registers = LiveRegisters<typeof VTD_REGISTERS>
/** Name of a register that every unit has. */
export type RegisterName = keyof typeof VTD_REGISTERS & keyof Registers

/** GCMD_REG bits that are states; the others are one-shot commands and must not be repeated. */
const STATE_BITS = 0x96ff_ffff
/** Clock steps a command may take. */
const PATIENCE = 1000

/** One unit's registers at `base`. */
export class UnitRegisters {
  readonly base: number
  readonly #memory: AddressSpace
  readonly #clock: VirtualClock
  readonly #shadow = new RegisterFile(VTD)

  constructor(memory: AddressSpace, base: number, clock: VirtualClock) {
    this.#memory = memory
    this.base = base
    this.#clock = clock
  }

  /** Reads a register; the fields of the answer are as of now. */
  read<K extends RegisterName>(name: K): Registers[K] {
    const { offset, size } = VTD[name]
    const live = this.#shadow.regs[name]
    live.$value = this.#memory.load(this.base + offset, size as 4 | 8)
    return live
  }

  /** Writes a register: the fields given, the others zero. */
  write<K extends RegisterName>(name: K, fields: Partial<Registers[K]>): void {
    const { offset, size } = VTD[name]
    const live = this.#shadow.regs[name]
    live.$value = 0n
    Object.assign(live, fields)
    this.#memory.store(this.base + offset, size as 4 | 8, live.$value)
  }

  /** A 64-bit value somewhere in the unit's range. */
  load64(offset: number): bigint {
    return this.#memory.load(this.base + offset, 8)
  }

  /** A 32-bit word of it. */
  load32(offset: number): number {
    return this.#memory.readU32(this.base + offset)
  }

  store32(offset: number, value: number): void {
    this.#memory.writeU32(this.base + offset, value)
  }

  /**
   * Gives a command through GCMD_REG and waits for GSTS_REG to show it. All other states stay as they are;
   * a unit that never answers is an Error.
   */
  command(bit: number, on = true): void {
    const status = this.base + VTD.GSTS_REG.offset
    const states = this.#memory.readU32(status) & STATE_BITS
    const mask = 1 << bit
    this.store32(VTD.GCMD_REG.offset, on ? states | mask : states & ~mask)
    for (let i = 0; ((this.#memory.readU32(status) & mask) !== 0) !== on; i++)
      if (i >= PATIENCE || !this.#clock.step())
        throw new Error(`VT-d at 0x${this.base.toString(16)}: command bit ${bit} got no answer`)
  }
}
