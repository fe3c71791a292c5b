/**
 * A unit's registers as its driver sees them: memory-mapped, at an address. Fields are decoded by the
 * register tables; nothing here knows the unit. Next: driver.ts.
 */
import type { VirtualClock } from '../../base/clock.js'
import { type LiveRegisters, RegisterFile } from '../../base/registers.js'
import type { AddressSpace } from '../../mem/address-space.js'
import { SMMU, type SMMU_REGISTERS } from './registers.js'

type Registers = LiveRegisters<typeof SMMU_REGISTERS>
/** Name of a register. */
export type RegisterName = keyof typeof SMMU_REGISTERS & keyof Registers

/** Clock steps that an acknowledgement may take. */
const PATIENCE = 1000

/** One unit's registers at `base`. */
export class SmmuRegisters {
  readonly base: number
  readonly #memory: AddressSpace
  readonly #clock: VirtualClock
  readonly #shadow = new RegisterFile(SMMU)

  constructor(memory: AddressSpace, base: number, clock: VirtualClock) {
    this.#memory = memory
    this.base = base
    this.#clock = clock
  }

  /** Reads a register; the fields of the answer are as of now, until the register is read or written again. */
  read<K extends RegisterName>(name: K): Registers[K] {
    const { offset, size } = SMMU[name]
    const live = this.#shadow.regs[name]
    live.$value = this.#memory.load(this.base + offset, size as 4 | 8)
    return live
  }

  /** Writes a register: the fields given, the others zero. */
  write<K extends RegisterName>(name: K, fields: Partial<Registers[K]>): void {
    const live = this.#shadow.regs[name]
    live.$value = 0n
    this.#store(name, live, fields)
  }

  /** Changes fields of CR0 or IRQ_CTRL and waits until the unit acknowledges; one that never does is an Error. */
  change<K extends 'CR0' | 'IRQ_CTRL'>(name: K, fields: Partial<Registers[K]>): void {
    const live = this.read(name)
    this.#store(name, live, fields)
    const wanted = live.$value
    for (let i = 0; this.read(`${name}ACK`).$value !== wanted; i++)
      if (i >= PATIENCE || !this.#clock.step())
        throw new Error(`SMMUv3 at 0x${this.base.toString(16)}: ${name} is not acknowledged`)
  }

  #store<K extends RegisterName>(name: K, live: Registers[K], fields: Partial<Registers[K]>): void {
    const { offset, size } = SMMU[name]
    Object.assign(live, fields)
    this.#memory.store(this.base + offset, size as 4 | 8, live.$value)
  }
}
