// Draws from a seed: the same seed and index give the same case on every machine.

/** A source of draws. */
export class Draw {
  #state: number

  /** Cases of one run are independent: case `index` can be drawn without the ones before it. */
  constructor(seed: number, index: number) {
    this.#state = (Math.imul(seed, 0x9e37_79b1) ^ Math.imul(index + 1, 0x85eb_ca77)) | 0
    this.word()
    this.word()
  }

  /** 32 random bits. */
  word(): number {
    this.#state = (this.#state + 0x6d2b_79f5) | 0
    let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (t ^ (t >>> 14)) >>> 0
  }

  /** An integer from 0 to `n - 1`. */
  below(n: number): number {
    return Math.floor((this.word() / 2 ** 32) * n)
  }

  /** True once in `n`. */
  oneIn(n: number): boolean {
    return this.below(n) === 0
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!
  }

  /** One of several values, each as often as its weight says. */
  weighted<T>(from: readonly (readonly [weight: number, value: T])[]): T {
    let n = this.below(from.reduce((sum, [weight]) => sum + weight, 0))
    for (const [weight, value] of from) {
      if (n < weight) return value
      n -= weight
    }
    throw new Error('weights must be positive')
  }

  /** A value of that many bits. */
  bits(n: number): bigint {
    const all = (BigInt(this.word()) << 32n) | BigInt(this.word())
    return all & ((1n << BigInt(n)) - 1n)
  }

  /** Each bit of a mask, half of the time. */
  some(mask: bigint): bigint {
    return this.bits(64) & mask
  }

  /** One bit of a mask. */
  bitOf(mask: bigint): bigint {
    const set: bigint[] = []
    for (let n = 0n; n < 64n; n++) if (((mask >> n) & 1n) !== 0n) set.push(1n << n)
    return this.pick(set)
  }
}
