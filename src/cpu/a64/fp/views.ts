// Lane views: the slots of A64State seen as elements of every size, signed, unsigned and floating point.
// An element index is slot * (8 / size) + lane, so a vector register's lanes are consecutive in each view.

/** log2 of an element's size in bytes. */
export type Size = 0 | 1 | 2 | 3

/** The buffer of an A64State as elements. */
export class LaneViews {
  readonly u8: Uint8Array
  readonly u16: Uint16Array
  readonly u32: Uint32Array
  readonly u64: BigUint64Array
  readonly f32: Float32Array
  readonly f64: Float64Array
  /** By log2 of the element size below 8 bytes. */
  readonly unsigned: readonly [Uint8Array, Uint16Array, Uint32Array]
  readonly signed: readonly [Int8Array, Int16Array, Int32Array]
  readonly s64: BigInt64Array

  constructor(buffer: ArrayBuffer) {
    this.u8 = new Uint8Array(buffer)
    this.u16 = new Uint16Array(buffer)
    this.u32 = new Uint32Array(buffer)
    this.u64 = new BigUint64Array(buffer)
    this.s64 = new BigInt64Array(buffer)
    this.f32 = new Float32Array(buffer)
    this.f64 = new Float64Array(buffer)
    this.unsigned = [this.u8, this.u16, this.u32]
    this.signed = [new Int8Array(buffer), new Int16Array(buffer), new Int32Array(buffer)]
  }

  /** Index of lane 0 of a slot. */
  index(size: Size, slot: number): number {
    return slot << (3 - size)
  }

  /** An element's bits. */
  bits(size: Size, index: number): bigint {
    return size === 3 ? this.u64[index]! : BigInt(this.unsigned[size][index]!)
  }

  /** Writes an element's bits. */
  setBits(size: Size, index: number, v: bigint): void {
    if (size === 3) this.u64[index] = v
    else this.unsigned[size][index] = Number(v)
  }

  /** Zeroes what a vector register of two slots has above its first `bytes` bytes. */
  clearAbove(slot: number, bytes: number): void {
    if (bytes >= 16) return
    this.u32[2 * slot + 2] = 0
    this.u32[2 * slot + 3] = 0
    if (bytes === 4) this.u32[2 * slot + 1] = 0
    else if (bytes !== 8) this.u8.fill(0, 8 * slot + bytes, 8 * slot + 16)
  }
}
