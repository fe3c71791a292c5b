/**
 * A function's 4096 bytes of configuration space, put together from register files. Accesses of any
 * width at any offset are byte-exact; bytes that belong to no register read as zero and ignore writes.
 * Next: headers.ts and capability.ts (what is placed here), ecam.ts (how software gets here).
 */
import { CONFIG_SIZE } from './ids.js'

/** What a part of configuration space must do: a `RegisterFile` of any bank does. */
export interface ConfigPart {
  /** Bytes. */
  readonly size: number
  readonly bytes: Uint8Array
  read(offset: number, size: number): bigint
  read32(offset: number): number
  write(offset: number, size: number, value: bigint): void
  reset(): void
  restore(saved: Uint8Array): void
}

/** Configuration space as the bus accesses it. */
export class ConfigSpace {
  readonly #partAt: (ConfigPart | undefined)[] = new Array(CONFIG_SIZE / 4).fill(undefined)
  readonly #startAt = new Int16Array(CONFIG_SIZE / 4)
  readonly #written: () => void

  /** `written` runs before every write. */
  constructor(written: () => void = () => {}) {
    this.#written = written
  }

  /** Puts `part` at `offset`, a multiple of 4. Refuses overlap with an earlier part. */
  place(offset: number, part: ConfigPart): void {
    const first = offset >> 2
    const end = (offset + part.size + 3) >> 2
    if (offset & 3 || end > this.#partAt.length)
      throw new Error(`config part of ${part.size} bytes does not fit at 0x${offset.toString(16)}`)
    for (let i = first; i < end; i++) {
      if (this.#partAt[i]) throw new Error(`config dword 0x${(i * 4).toString(16)} is taken`)
      this.#partAt[i] = part
      this.#startAt[i] = offset
    }
  }

  /** Reads 1 to 4 bytes as an unsigned number; bytes beyond the 4096 read as ones. */
  read(offset: number, size: number): number {
    let value = 0
    let scale = 1
    for (let at = offset; at < offset + size; ) {
      const n = Math.min(offset + size, (at & ~3) + 4) - at
      value += this.#readInside(at, n) * scale
      scale *= 2 ** (8 * n)
      at += n
    }
    return value
  }

  /** Writes the low `size` (1 to 4) bytes of `value`; bytes beyond the 4096 are ignored. */
  write(offset: number, size: number, value: number): void {
    this.#written()
    let rest = value >>> 0
    for (let at = offset; at < offset + size; ) {
      const n = Math.min(offset + size, (at & ~3) + 4) - at
      const part = this.#partAt[at >> 2]
      part?.write(at - this.#startAt[at >> 2]!, n, BigInt(rest))
      rest = n === 4 ? 0 : rest >>> (8 * n)
      at += n
    }
  }

  /** All 4096 bytes as a configuration read sees them now. */
  dump(): Uint8Array {
    const out = new Uint8Array(CONFIG_SIZE)
    const view = new DataView(out.buffer)
    for (let at = 0; at < CONFIG_SIZE; at += 4) view.setUint32(at, this.read(at, 4), true)
    return out
  }

  #readInside(at: number, n: number): number {
    if (at < 0 || at >= CONFIG_SIZE) return 2 ** (8 * n) - 1
    const part = this.#partAt[at >> 2]
    return part ? Number(part.read(at - this.#startAt[at >> 2]!, n)) : 0
  }
}
