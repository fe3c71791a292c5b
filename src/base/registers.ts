// RegisterFile: storage and access rules of a register bank. Software's accesses of any width go
// through read and write and obey the access column; the model uses the live accessors and does not.

import type { Bank, FieldValues, Register } from './fields.js'
import { bankRules } from './register-rules.js'

/** Live accessors for each register of a bank; `$value` is the whole register. */
export type LiveRegisters<R> = {
  readonly [K in keyof R as R[K] extends Register ? K : never]: R[K] extends Register<infer F>
    ? FieldValues<F> & { $value: bigint }
    : never
}

/** What happens on a software access, by register name, after the access rules were applied. */
export interface RegisterBehaviour<R> {
  /**
   * Runs after software wrote any byte of the register. The argument shows what was written:
   * stored bits as they now are, write-only and write-one bits as software set them in this write.
   */
  readonly onWrite?: {
    readonly [K in keyof R]?: R[K] extends Register<infer F>
      ? (written: FieldValues<F> & { readonly $value: bigint }) => void
      : never
  }
  /** Runs before software reads any byte of the register, to refresh bits that change by themselves. */
  readonly onRead?: { readonly [K in keyof R]?: () => void }
}

interface Slot {
  readonly name: string
  readonly index: number
  readonly size: number
  readonly offset: number
  onWrite: ((written: never) => void) | undefined
  onRead: (() => void) | undefined
  /** What `onWrite` is given. */
  readonly written: object | undefined
}

/**
 * The registers of one bank. Offsets with no register read as zero and ignore writes. Addresses are
 * bytes; an access may have any size and may straddle registers: each register sees its own bytes.
 */
export class RegisterFile<const R extends object = object> {
  /** Live field accessors: the model's own doing, to which access rules do not apply. */
  readonly regs: LiveRegisters<R>
  /** The stored bytes, for save and restore and for models that copy whole spans. */
  readonly bytes: Uint8Array
  readonly #words: Uint32Array
  readonly #written: Uint32Array
  readonly #writtenBytes: Uint8Array
  /** Per byte: bits that a write stores, clears when one, sets when one, and that never read back. */
  readonly #rw: Uint8Array
  readonly #rw1c: Uint8Array
  readonly #rw1s: Uint8Array
  readonly #wo: Uint8Array
  /** The same rules a word at a time. */
  readonly #rwWords: Uint32Array
  readonly #rw1cWords: Uint32Array
  readonly #rw1sWords: Uint32Array
  readonly #woWords: Uint32Array
  readonly #resetBytes: Uint8Array
  readonly #slotAt: Int16Array
  readonly #slots: Slot[] = []
  readonly #scratch: DataView

  constructor(bank: Bank & R, behaviour: RegisterBehaviour<R> = {}) {
    const rules = bankRules(bank)
    const { size, words } = rules
    const memory = new ArrayBuffer(8 * (words + 2))
    this.#scratch = new DataView(memory, 8 * (words + 1))
    this.#words = new Uint32Array(memory, 0, words + 1)
    this.bytes = new Uint8Array(memory, 0, size)
    this.#written = new Uint32Array(memory, 4 * (words + 1), words + 1)
    this.#writtenBytes = new Uint8Array(memory, 4 * (words + 1), 4 * (words + 1))
    this.#rwWords = rules.rw
    this.#rw1cWords = rules.rw1c
    this.#rw1sWords = rules.rw1s
    this.#woWords = rules.wo
    this.#rw = rules.bytes.rw
    this.#rw1c = rules.bytes.rw1c
    this.#rw1s = rules.bytes.rw1s
    this.#wo = rules.bytes.wo
    this.#resetBytes = rules.resetBytes
    this.#slotAt = rules.slotAt
    const regs: Record<string, object> = {}
    for (const row of rules.rows) {
      const { name, register } = row
      const onWrite = behaviour.onWrite?.[name as keyof R] as Slot['onWrite']
      regs[name] = row.live(this.#words)
      this.#slots.push({
        name,
        index: this.#slots.length,
        offset: register.offset,
        size: register.size,
        onWrite,
        onRead: behaviour.onRead?.[name as keyof R],
        written: onWrite && row.live(this.#written),
      })
    }
    this.regs = regs as LiveRegisters<R>
    this.reset()
  }

  /** Bytes of the bank. */
  get size(): number {
    return this.bytes.length
  }

  /** Puts every register to its reset value; no behaviour runs. */
  reset(): void {
    this.bytes.set(this.#resetBytes)
  }

  /** A copy of the stored bytes. */
  save(): Uint8Array {
    return this.bytes.slice()
  }

  /** Takes back what `save` gave. */
  restore(saved: Uint8Array): void {
    if (saved.length !== this.bytes.length)
      throw new Error(`register state of ${saved.length} bytes, not ${this.bytes.length}`)
    this.bytes.set(saved)
  }

  /** Software's read of `size` bytes (1 to 8) at `offset`; bytes outside the bank read as zero. */
  read(offset: number, size: number): bigint {
    this.#beforeRead(offset, size)
    this.#scratch.setBigUint64(0, 0n)
    for (let i = 0; i < size; i++) this.#scratch.setUint8(i, this.#readable(offset + i))
    return this.#scratch.getBigUint64(0, true)
  }

  /** Software's read of a 32-bit word, as an unsigned number. */
  read32(offset: number): number {
    const index = (offset & 3) === 0 ? (this.#slotAt[offset] ?? -1) : -1
    const slot = index < 0 ? undefined : this.#slots[index]!
    if (slot !== undefined && slot.size >= 4) {
      slot.onRead?.()
      return (this.#words[offset >> 2]! & ~this.#woWords[offset >> 2]!) >>> 0
    }
    this.#beforeRead(offset, 4)
    let v = 0
    for (let i = 3; i >= 0; i--) v = (v << 8) | this.#readable(offset + i)
    return v >>> 0
  }

  /** Software's write of `size` bytes (1 to 8) at `offset`; bytes outside the bank are ignored. */
  write(offset: number, size: number, value: bigint): void {
    this.#scratch.setBigUint64(0, value, true)
    this.#store(offset, size)
  }

  /** Software's write of a 32-bit word. */
  write32(offset: number, value: number): void {
    const index = (offset & 3) === 0 ? (this.#slotAt[offset] ?? -1) : -1
    const slot = index < 0 ? undefined : this.#slots[index]!
    if (slot === undefined || slot.size < 4) {
      this.#scratch.setUint32(0, value, true)
      this.#store(offset, 4)
      return
    }
    const i = offset >> 2
    const words = this.#words
    const rw = this.#rwWords[i]!
    const set = this.#rw1sWords[i]!
    const clear = this.#rw1cWords[i]!
    words[i] = (((words[i]! & ~rw) | (value & rw)) & ~(value & clear)) | (value & set)
    if (slot.onWrite === undefined) return
    const shown = rw | clear | set | this.#woWords[i]!
    this.#written[i] = (words[i]! & ~shown) | (value & shown)
    if (slot.size === 8) {
      const other = (slot.offset >> 2) * 2 + 1 - i
      const hidden = this.#rw1cWords[other]! | this.#rw1sWords[other]! | this.#woWords[other]!
      this.#written[other] = words[other]! & ~hidden
    }
    slot.onWrite(slot.written as never)
  }

  #store(offset: number, size: number): void {
    const { bytes } = this
    const end = Math.min(offset + size, bytes.length)
    let at = Math.max(offset, 0)
    while (at < end) {
      const index = this.#slotAt[at]!
      if (index < 0) {
        at++
        continue
      }
      const slot = this.#slots[index]!
      const stop = Math.min(end, slot.offset + slot.size)
      for (let i = 0; i < slot.size; i++) {
        const b = slot.offset + i
        this.#writtenBytes[b] = bytes[b]! & ~(this.#rw1c[b]! | this.#rw1s[b]! | this.#wo[b]!)
      }
      for (; at < stop; at++) {
        const w = this.#scratch.getUint8(at - offset)
        const rw = this.#rw[at]!
        const stored = (bytes[at]! & ~rw) | (w & rw)
        bytes[at] = (stored & ~(w & this.#rw1c[at]!)) | (w & this.#rw1s[at]!)
        const shown = rw | this.#rw1c[at]! | this.#rw1s[at]! | this.#wo[at]!
        this.#writtenBytes[at] = (bytes[at]! & ~shown) | (w & shown)
      }
      slot.onWrite?.(slot.written as never)
    }
  }

  #beforeRead(offset: number, size: number): void {
    let last = -1
    for (let at = Math.max(offset, 0); at < offset + size && at < this.bytes.length; at++) {
      const index = this.#slotAt[at]!
      if (index < 0 || index === last) continue
      last = index
      this.#slots[index]!.onRead?.()
    }
  }

  #readable(at: number): number {
    return at >= 0 && at < this.bytes.length ? this.bytes[at]! & ~this.#wo[at]! : 0
  }
}
