// A small seeded generator, so that a failing run can be had again from its seed.

/** Draws integers of 0 to limit-1; the same seed gives the same numbers. */
export function xorshift(seed: number): (limit: number) => number {
  let x = (seed * 0x9e37_79b9) | 0 || 1
  return limit => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return Math.floor(((x >>> 0) / 2 ** 32) * limit)
  }
}
