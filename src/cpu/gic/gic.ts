// A GICv3: distributor, and for each processor a redistributor and a CPU interface; an ITS beside them when asked for.
// Where their frames lie in the guest's address space is for its maker to say.

import type { AddressSpace } from '../../mem/address-space.js'
import { CpuInterface } from './cpu-interface.js'
import { Distributor } from './distributor.js'
import { Its } from './its.js'
import { Redistributor } from './redistributor.js'
import { iccRegisters, type SystemRegister } from './system-registers.js'

/** What a GIC is built from. */
export interface GicParts {
  /** Where LPI tables, and an ITS's, are read and written. */
  readonly memory: AddressSpace
  /** SGIs, PPIs and SPIs: a multiple of 32 from 64 to 1024. */
  readonly interrupts: number
  /** Makes an ITS, and LPIs. */
  readonly its: boolean
  /** A processor's inputs may have changed: one that waits should look. */
  wake?(): void
}

/** One processor's share of a GIC. */
export interface GicProcessor {
  readonly redistributor: Redistributor
  readonly cpuInterface: CpuInterface
  /** ICC_*_EL1 by key. */
  readonly registers: ReadonlyMap<number, SystemRegister>
}

/** A saved GIC; guest memory, which holds an ITS's tables, is not part of it. */
export interface GicState {
  readonly distributor: Uint8Array[]
  readonly processors: readonly {
    readonly redistributor: ReturnType<Redistributor['save']>
    readonly cpuInterface: readonly number[]
  }[]
  readonly its: Uint8Array | undefined
}

/** A GICv3. */
export class Gic {
  readonly distributor: Distributor
  readonly #parts: GicParts
  readonly #redistributors: Redistributor[] = []
  readonly #processors: GicProcessor[] = []
  readonly #changed: () => void
  #its: Its | undefined

  constructor(parts: GicParts) {
    const { interrupts, its, memory } = parts
    if (!(interrupts >= 64 && interrupts <= 1024 && interrupts % 32 === 0))
      throw new Error(`a GIC with ${interrupts} interrupts`)
    this.#parts = parts
    this.#changed = () => {
      for (const { cpuInterface } of this.#processors) cpuInterface.changed()
      parts.wake?.()
    }
    this.distributor = new Distributor({
      interrupts,
      lpis: its,
      processorAt: affinity => this.#redistributors.findIndex(r => r.affinity === affinity),
      changed: this.#changed,
    })
    if (its) this.#its = new Its({ memory, redistributors: this.#redistributors })
  }

  get its(): Its | undefined {
    return this.#its
  }

  /** Adds an ITS, and LPIs with it, unless there is one. */
  addIts(): Its {
    const { memory } = this.#parts
    this.#its ??= new Its({ memory, redistributors: this.#redistributors })
    this.distributor.addLpis()
    for (const redistributor of this.#redistributors) redistributor.addLpis()
    return this.#its
  }

  /** Processors by number. */
  get processors(): readonly GicProcessor[] {
    return this.#processors
  }

  /** Adds the next processor; `affinity` is Aff3.Aff2.Aff1.Aff0 of its MPIDR_EL1. */
  addProcessor(affinity: number): GicProcessor {
    const number = this.#processors.length
    const redistributor = new Redistributor({
      number,
      affinity: affinity >>> 0,
      memory: this.#parts.memory,
      distributor: this.distributor,
      lpis: this.#its !== undefined,
      changed: this.#changed,
    })
    const cpuInterface = new CpuInterface(redistributor, this.distributor, (value, groups) =>
      this.#sendSgi(number, value, groups),
    )
    for (const other of this.#redistributors) other.last = false
    redistributor.last = true
    const processor = { redistributor, cpuInterface, registers: iccRegisters(cpuInterface) }
    this.#redistributors.push(redistributor)
    this.#processors.push(processor)
    this.distributor.reroute()
    return processor
  }

  /** The processor with this affinity (Aff3.Aff2.Aff1.Aff0). */
  at(affinity: number): GicProcessor | undefined {
    return this.#processors[this.#redistributors.findIndex(r => r.affinity === affinity >>> 0)]
  }

  /** Moves the input line of an SPI; false when there is none. */
  setSpi(intid: number, level: boolean): boolean {
    const { spis } = this.distributor
    if (!spis.has(intid) || intid >= 1020) return false
    spis.setLine(intid, level)
    return true
  }

  /** Moves the input line of a processor's PPI (16 to 31); false when there is none. */
  setPpi(processor: number, intid: number, level: boolean): boolean {
    const target = this.#redistributors[processor]
    if (target === undefined || intid < 16 || intid >= 32) return false
    target.interrupts.setLine(intid, level)
    return true
  }

  /** Levels of 32 input lines from `first`, as KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO has them; SGIs have none. */
  lines(processor: number, first: number): number {
    const { spis } = this.distributor
    if (first === 0) return this.#redistributors[processor]!.interrupts.line[0]! >>> 0
    return spis.has(first) ? spis.line[(first - 32) >> 5]! >>> 0 : 0
  }

  setLines(processor: number, first: number, levels: number): void {
    const { spis } = this.distributor
    const range = first === 0 ? this.#redistributors[processor]!.interrupts : spis
    if (!range.has(first)) return
    for (let i = first === 0 ? 16 : 0; i < 32; i++)
      range.setLine(first + i, ((levels >>> i) & 1) === 1)
  }

  /** Brings the guest's LPI pending tables up to date; false when some is not in memory. */
  writePendingTables(): boolean {
    return this.#redistributors.map(r => r.lpis.writePendingTable()).every(done => done)
  }

  save(): GicState {
    return {
      distributor: this.distributor.save(),
      processors: this.#processors.map(p => ({
        redistributor: p.redistributor.save(),
        cpuInterface: p.cpuInterface.save(),
      })),
      its: this.its?.save(),
    }
  }

  /** Takes back what `save` gave, into a GIC with as many interrupts and processors. */
  restore(state: GicState): void {
    if (state.processors.length !== this.#processors.length)
      throw new Error(`a saved GIC of ${state.processors.length} processors`)
    this.distributor.restore(state.distributor)
    for (const [i, saved] of state.processors.entries()) {
      this.#processors[i]!.redistributor.restore(saved.redistributor)
      this.#processors[i]!.cpuInterface.restore(saved.cpuInterface)
    }
    if (state.its !== undefined) this.its?.restore(state.its)
    this.#changed()
  }

  // ICC_SGI<n>R (IHI 0069H 12.2): by affinity, or to all but the sender.
  #sendSgi(sender: number, value: bigint, groups: number): void {
    const intid = Number((value >> 24n) & 0xfn)
    const all = ((value >> 40n) & 1n) === 1n
    const list = Number(value & 0xffffn)
    const above =
      (Number((value >> 48n) & 0xffn) << 24) |
      (Number((value >> 32n) & 0xffn) << 16) |
      (Number((value >> 16n) & 0xffn) << 8)
    for (const { number, affinity, interrupts } of this.#redistributors) {
      const low = affinity & 0xff
      const listed = affinity >>> 8 === above >>> 8 && low < 16 && ((list >> low) & 1) === 1
      if (all ? number === sender : !listed) continue
      const group = (interrupts.group[0]! >>> intid) & 1
      if ((groups >> group) & 1) interrupts.latch(intid)
    }
  }
}
