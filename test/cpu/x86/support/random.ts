// A small seeded generator, so that every random test can be repeated from its seed.

/** xorshift32 over a non-zero state. */
export class Random {
  #x: number

  constructor(seed: number) {
    this.#x = seed | 0 || 1
    for (let i = 0; i < 8; i++) this.next()
  }

  /** 32 random bits, unsigned. */
  next(): number {
    let x = this.#x
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#x = x
    return x >>> 0
  }

  /** An integer from 0 to n - 1. */
  below(n: number): number {
    return this.next() % n
  }

  /** True once in n. */
  oneIn(n: number): boolean {
    return this.below(n) === 0
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!
  }

  /** 64 random bits. */
  wide(): bigint {
    return (BigInt(this.next()) << 32n) | BigInt(this.next())
  }
}
