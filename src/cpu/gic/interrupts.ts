// A range of interrupts with their state: 32 private ones of a processor, or the SPIs. A bit of each word is one
// interrupt. Registers that show them are in families.ts; who is interrupted is redistributor.ts.

import { PRIORITY_MASK } from './registers.js'

/** State of `count` interrupts from `first`, both multiples of 32. */
export class InterruptRange {
  readonly first: number
  readonly count: number
  readonly group: Int32Array
  readonly enabled: Int32Array
  /** The pending latch: set by edges and by ISPENDR, cleared by acknowledgement and by ICPENDR. */
  readonly latched: Int32Array
  /** Levels of input lines. */
  readonly line: Int32Array
  readonly active: Int32Array
  /** Edge-triggered ones. */
  readonly edge: Int32Array
  /** Which of `edge` software may change, by word. */
  readonly configurable: Int32Array
  readonly priority: Uint8Array
  readonly #changed: () => void

  /** `changed` runs after anything that may alter what is signalled. */
  constructor(first: number, count: number, changed: () => void) {
    const words = count >> 5
    this.first = first
    this.count = count
    this.group = new Int32Array(words)
    this.enabled = new Int32Array(words)
    this.latched = new Int32Array(words)
    this.line = new Int32Array(words)
    this.active = new Int32Array(words)
    this.edge = new Int32Array(words)
    this.configurable = new Int32Array(words).fill(first < 32 ? 0 : -1)
    this.priority = new Uint8Array(count)
    if (first < 32) this.edge[0] = 0xffff
    this.#changed = changed
  }

  /** Pending interrupts of a word: latched, or level-sensitive with the line high. */
  pending(word: number): number {
    return this.latched[word]! | (this.line[word]! & ~this.edge[word]!)
  }

  has(intid: number): boolean {
    return intid >= this.first && intid < this.first + this.count
  }

  /** Moves an input line; a rising edge latches an edge-triggered interrupt. */
  setLine(intid: number, level: boolean): void {
    const i = intid - this.first
    const mask = 1 << (i & 31)
    const was = this.line[i >> 5]! & mask
    if ((was !== 0) === level) return
    if (level) {
      this.line[i >> 5]! |= mask
      if (this.edge[i >> 5]! & mask) this.latched[i >> 5]! |= mask
    } else this.line[i >> 5]! &= ~mask
    this.#changed()
  }

  /** Makes an interrupt pending, whatever its line does. */
  latch(intid: number): void {
    const i = intid - this.first
    this.latched[i >> 5]! |= 1 << (i & 31)
    this.#changed()
  }

  /** Takes a pending interrupt into service. */
  activate(intid: number): void {
    const i = intid - this.first
    const mask = 1 << (i & 31)
    this.latched[i >> 5]! &= ~mask
    this.active[i >> 5]! |= mask
    this.#changed()
  }

  deactivate(intid: number): void {
    const i = intid - this.first
    this.active[i >> 5]! &= ~(1 << (i & 31))
    this.#changed()
  }

  /** Sets or clears bits of a word of state. */
  change(words: Int32Array, word: number, set: number, clear: number): void {
    words[word] = (words[word]! & ~clear) | set
    this.#changed()
  }

  setPriority(i: number, value: number): void {
    this.priority[i] = value & PRIORITY_MASK
    this.#changed()
  }

  /** What a saved state holds, in its order. */
  #arrays(): readonly (Int32Array | Uint8Array)[] {
    const { group, enabled, latched, line, active, edge, priority } = this
    return [group, enabled, latched, line, active, edge, priority]
  }

  save(): Uint8Array[] {
    return this.#arrays().map(a => new Uint8Array(a.buffer).slice())
  }

  restore(saved: readonly Uint8Array[]): void {
    const arrays = this.#arrays()
    if (arrays.some((a, i) => saved[i]?.length !== a.byteLength))
      throw new Error(`a saved state that is not of ${this.count} interrupts`)
    arrays.forEach((a, i) => {
      new Uint8Array(a.buffer).set(saved[i]!)
    })
    this.#changed()
  }
}
