// A redistributor (IHI 0069H 12.10): one processor's SGIs, PPIs and LPIs, and the choice of the highest priority pending
// interrupt for its CPU interface, SPIs routed to it included.

import { RegisterFile } from '../../base/registers.js'
import type { AddressSpace, MmioTarget } from '../../mem/address-space.js'
import type { Distributor } from './distributor.js'
import { type FoundWord, findWord, priorityIndex } from './families.js'
import { InterruptRange } from './interrupts.js'
import { Lpis, type LpiTables } from './lpis.js'
import { FIRST_LPI, GIC_FRAME, GICR, IDLE_PRIORITY, INTID_BITS } from './registers.js'

/** What a redistributor is built from. */
export interface RedistributorParts {
  /** Number of its processor. */
  readonly number: number
  /** Aff3.Aff2.Aff1.Aff0. */
  readonly affinity: number
  readonly memory: AddressSpace
  readonly distributor: Distributor
  readonly lpis: boolean
  changed(): void
}

const IIDR = 0x0004

/** Registers that are 64 bits wide, by offset. */
const WIDE = new Set([0x0008, 0x0070, 0x0078, 0x00a0, 0x00b0])

/** One processor's redistributor. */
export class Redistributor implements MmioTarget {
  readonly number: number
  readonly affinity: number
  readonly interrupts: InterruptRange
  readonly lpis: Lpis
  /** What `choose` found: interrupt id or -1, its priority and group. */
  best = -1
  bestPriority = IDLE_PRIORITY
  bestGroup = 0
  readonly #file: RegisterFile<typeof GICR>
  readonly #distributor: Distributor
  readonly #found: FoundWord = { family: undefined, word: 0 }
  #lpisOn = false
  #emptyTable = false

  constructor(parts: RedistributorParts) {
    const { number, affinity } = parts
    this.number = number
    this.affinity = affinity
    this.#distributor = parts.distributor
    this.interrupts = new InterruptRange(0, 32, parts.changed)
    this.lpis = new Lpis(parts.memory, parts.changed)
    this.#file = new RegisterFile(GICR, {
      onWrite: {
        CTLR: () => this.#switchLpis(),
        WAKER: () => {
          const { WAKER } = this.#file.regs
          WAKER.CHILDRENASLEEP = WAKER.PROCESSORSLEEP
          parts.changed()
        },
        PENDBASER: written => {
          this.#emptyTable = written.PTZ
        },
        INVLPIR: ({ INTID }) => this.lpis.invalidate(INTID),
        INVALLR: () => this.lpis.invalidate(),
      },
    })
    const { TYPER } = this.#file.regs
    TYPER.AFFINITY = affinity
    TYPER.PROCESSOR = number
    TYPER.PLPIS = parts.lpis
  }

  /** An ITS was added: TYPER says that there are LPIs. */
  addLpis(): void {
    this.#file.regs.TYPER.PLPIS = true
  }

  /** TYPER.Last: no redistributor follows in the next frames. */
  set last(value: boolean) {
    this.#file.regs.TYPER.LAST = value
  }

  /** Chooses the pending interrupt of the highest priority among `groups` (bit 0 group 0, bit 1 group 1). */
  choose(groups: number): void {
    this.best = -1
    this.bestPriority = IDLE_PRIORITY
    this.bestGroup = 0
    if (groups === 0 || this.#file.regs.WAKER.PROCESSORSLEEP) return
    const { interrupts, lpis } = this
    this.#search(interrupts, 0, groups)
    const { spis } = this.#distributor
    for (let word = 0; word < spis.enabled.length; word++) this.#search(spis, word, groups)
    if (groups & 2 && lpis.best >= 0 && lpis.bestPriority < this.bestPriority) {
      this.best = lpis.best
      this.bestPriority = lpis.bestPriority
      this.bestGroup = 1
    }
  }

  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    if (offset % size !== 0) return 0n
    if (size === 4) return BigInt(this.read32(offset))
    if (size === 8 && WIDE.has(offset)) return this.#file.read(offset, 8)
    const i = size === 1 ? priorityIndex(this.interrupts, offset - GIC_FRAME) : -1
    return i < 0 ? 0n : BigInt(this.interrupts.priority[i]!)
  }

  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    if (offset % size !== 0) return
    if (size === 4) this.write32(offset, Number(value))
    else if (size === 8 && WIDE.has(offset)) {
      if (!this.#locked(offset)) this.#file.write(offset, 8, value)
    } else if (size === 1) {
      const i = priorityIndex(this.interrupts, offset - GIC_FRAME)
      if (i >= 0) this.interrupts.setPriority(i, Number(value))
    }
  }

  read32(offset: number): number {
    if (offset < GIC_FRAME) return this.#file.read32(offset)
    if (!findWord(this.interrupts, offset - GIC_FRAME, this.#found)) return 0
    return this.#found.family!.read(this.interrupts, this.#found.word) >>> 0
  }

  write32(offset: number, value: number): void {
    if (offset < GIC_FRAME) {
      if (!this.#locked(offset)) this.#file.write32(offset, value)
    } else if (findWord(this.interrupts, offset - GIC_FRAME, this.#found))
      this.#found.family!.write(this.interrupts, this.#found.word, value | 0)
  }

  /** KVM's read of a word: undefined where no register is. */
  userRead(offset: number): number | undefined {
    if (!this.#exists(offset)) return undefined
    const user = this.#userFamily(offset)
    return user ? user.read(this.interrupts, this.#found.word) >>> 0 : this.read32(offset)
  }

  /** KVM's write of a word: 'missing' where no register is, 'refused' for another GIC's IIDR. */
  userWrite(offset: number, value: number): 'done' | 'missing' | 'refused' {
    if (!this.#exists(offset)) return 'missing'
    if (offset === IIDR && value >>> 0 !== this.read32(IIDR)) return 'refused'
    const user = this.#userFamily(offset)
    if (user) user.write(this.interrupts, this.#found.word, value | 0)
    else this.write32(offset, value)
    return 'done'
  }

  save(): { readonly bytes: Uint8Array[]; readonly lpis: readonly number[] } {
    return { bytes: [this.#file.save(), ...this.interrupts.save()], lpis: this.lpis.save() }
  }

  restore({ bytes, lpis }: ReturnType<Redistributor['save']>): void {
    const [file, ...interrupts] = bytes
    this.#file.restore(file!)
    this.#lpisOn = this.#file.regs.CTLR.ENABLELPIS
    this.interrupts.restore(interrupts)
    this.lpis.restore(lpis, this.#lpisOn ? this.#tables() : undefined)
  }

  #search(range: InterruptRange, word: number, groups: number): void {
    let bits = range.pending(word) & range.enabled[word]! & ~range.active[word]!
    if ((groups & 1) === 0) bits &= range.group[word]!
    if ((groups & 2) === 0) bits &= ~range.group[word]!
    for (; bits !== 0; bits &= bits - 1) {
      const bit = 31 - Math.clz32(bits & -bits)
      const i = word * 32 + bit
      if (range.priority[i]! >= this.bestPriority) continue
      const intid = range.first + i
      if (intid >= 1020) continue
      if (intid >= 32 && this.#distributor.target(intid) !== this.number) continue
      this.best = intid
      this.bestPriority = range.priority[i]!
      this.bestGroup = (range.group[word]! >>> bit) & 1
    }
  }

  // Table addresses stay while LPIs are on.
  #locked(offset: number): boolean {
    return this.#lpisOn && offset >= 0x0070 && offset < 0x0080
  }

  #switchLpis(): void {
    const { CTLR } = this.#file.regs
    if (!this.#file.regs.TYPER.PLPIS) CTLR.ENABLELPIS = false
    if (CTLR.ENABLELPIS === this.#lpisOn) return
    this.#lpisOn = CTLR.ENABLELPIS
    if (this.#lpisOn) this.lpis.enable(this.#tables(), this.#emptyTable)
    else this.lpis.disable()
  }

  #tables(): LpiTables {
    const { PROPBASER, PENDBASER } = this.#file.regs
    const end = 2 ** Math.min(PROPBASER.IDBITS + 1, INTID_BITS)
    return {
      configuration: PROPBASER.ADDR,
      pending: PENDBASER.ADDR,
      end: Math.max(end, FIRST_LPI),
    }
  }

  #userFamily(offset: number) {
    if (offset < GIC_FRAME || !findWord(this.interrupts, offset - GIC_FRAME, this.#found))
      return undefined
    return this.#found.family!.user
  }

  #exists(offset: number): boolean {
    if (offset % 4 !== 0 || offset < 0 || offset >= 2 * GIC_FRAME) return false
    if (offset >= GIC_FRAME) return findWord(this.interrupts, offset - GIC_FRAME, this.#found)
    return (
      offset <= 0x0014 ||
      (offset >= 0x0070 && offset < 0x0080) ||
      (offset >= 0x00a0 && offset < 0x00a8) ||
      (offset >= 0x00b0 && offset < 0x00b8) ||
      offset === 0x00c0 ||
      offset >= 0xffd0
    )
  }
}
